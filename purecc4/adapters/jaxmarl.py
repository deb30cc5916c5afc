"""JaxMARL's `MultiAgentEnv`: dicts of agents, `get_avail_actions`, reset within `step`.

    from purecc4.adapters.jaxmarl import CC4
    env = CC4(red="fsm", arm="C11")

Needs `pip install -e .[jaxmarl]`. As in all of JaxMARL, `step` without `reset_state` samples a new network at every
step of every environment. The native functions do so once an episode.

JaxMARL's `CTRolloutManager` chooses masks and rewards by the environment's name, which it does not know here. Its
defaults allow every action, and its global reward is the sum over agents: five times the team's reward. Pass
`get_avail_actions` to the network, and divide the global reward by five.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt8

try:
    from jaxmarl.environments import spaces
    from jaxmarl.environments.multi_agent_env import MultiAgentEnv
except ImportError as error:
    raise ImportError("purecc4.adapters.jaxmarl needs JaxMARL:  pip install -e '.[jaxmarl]'") from error

from purecc4 import arms
from purecc4.adapters import AGENTS, by_agent, make_game, observations
from purecc4.adapters.bounds import raw_bounds
from purecc4.envs import cc4
from purecc4.envs.cc4 import raw
from purecc4.envs.cc4.actions import ACTION_TABLE
from purecc4.envs.cc4.constants import MESSAGE_BITS, NUM_ACTIONS, NUM_BLUE, NUM_OBS, NUM_ZONES, BlueAction
from purecc4.envs.cc4.observations import observe
from purecc4.train.run_reader import REWARD_TERMS

_SLEEP = by_agent((ACTION_TABLE[:, :, 0] == BlueAction.SLEEP).argmax(axis=1))


class CC4(MultiAgentEnv):
    """The five blue agents, each rewarded with the team's reward."""

    def __init__(
        self,
        red: str | cc4.RedPolicy = "fsm",
        arm: str | arms.ArmSpec = "C00",
        num_steps: int = 500,
        define: str | Path | None = None,
        observation: str = "flat",
    ):
        """See `adapters.make_game`.

        With `observation="flat"` an agent observes CybORG's vector; with "raw" a dict of this vector (`flat`) and its
        part of each array of `cc4.RawObservation`. JaxMARL's own algorithms need "flat" or a wrapper that makes one
        array of the dict.
        """
        super().__init__(len(AGENTS))
        self.game = make_game(red, arm, num_steps, define, observation)
        self.agents = list(AGENTS)
        self.observation_spaces = {agent: _observation_space(observation) for agent in AGENTS}
        self.action_spaces = {agent: spaces.Discrete(NUM_ACTIONS) for agent in AGENTS}

    @partial(jax.jit, static_argnums=0)
    def reset(self, key: PRNGKeyArray) -> tuple[dict[str, Any], cc4.State]:
        """Sample an episode. Returns its first observations and state."""
        obs, state = self.game.reset(key)
        return _observations(obs.flat, obs.raw), state

    @partial(jax.jit, static_argnums=0)
    def step_env(self, key: PRNGKeyArray, state: cc4.State, actions: dict[str, Int[Array, "..."]]):
        """Advance one step, without a reset. Returns observations, state, rewards, dones and info.

        `info` holds the terms of the reward and `overflow`, the number of entries that the simulator's tables have
        dropped in this episode (0 unless it is overlong); each is repeated for every agent.

        An action is one integer, of shape () or (1,). Anything else raises ValueError when the step is traced. Values
        are not known then and cannot be refused: an agent whose action is outside 0..241 sleeps.
        """
        joint = jnp.stack([_action(agent, actions[agent]) for agent in AGENTS])
        obs, state, reward, done, info = self.game.step(key, state, joint)
        rewards, dones = dict.fromkeys(AGENTS, reward), dict.fromkeys((*AGENTS, "__all__"), done)
        about = {part: info[part] for part in REWARD_TERMS} | {"overflow": state.overflow}
        about = {name: jnp.full(len(AGENTS), value) for name, value in about.items()}
        return _observations(obs.flat, obs.raw), state, rewards, dones, about

    @partial(jax.jit, static_argnums=0)
    def get_obs(self, state: cc4.State) -> dict[str, Any]:
        """Observations of a state of `reset`, which JaxMARL's `step` asks for when it is given a `reset_state`.

        A state does not hold the alerts and messages of the step before it; in the observations they are 0.
        """
        phase = cc4.mission_phase(state.scenario, jnp.maximum(state.step - 1, 0))
        silent, no_messages = jnp.zeros(NUM_ZONES, jnp.uint32), jnp.zeros((NUM_BLUE, MESSAGE_BITS), jnp.uint8)
        flat = observe(phase, state.blocked, silent, silent, no_messages)
        return _observations(flat, None if state.evidence is None else raw.silent())

    @partial(jax.jit, static_argnums=0)
    def get_avail_actions(self, state: cc4.State) -> dict[str, Bool[Array, "action"]]:
        """Legal actions, which are constant during an episode."""
        return by_agent(cc4.action_mask(state.scenario.exists))

    @property
    def name(self) -> str:
        return "cage_challenge_4"

    @property
    def agent_classes(self) -> dict[str, list[str]]:
        return {"blue": self.agents}


def _action(agent: str, action: Any) -> Int[Array, ""]:
    action = jnp.asarray(action)
    if action.size != 1 or not jnp.issubdtype(action.dtype, jnp.integer):
        raise ValueError(f"an action is one integer; {agent} has {action.dtype} of shape {action.shape}.")
    action = action.reshape(())
    return jnp.where((action >= 0) & (action < NUM_ACTIONS), action, _SLEEP[agent])


def _observations(flat: UInt8[Array, "blue obs"], raw: cc4.RawObservation | None) -> dict[str, Any]:
    return observations(flat.astype(jnp.float32), raw)


def _observation_space(observation: str) -> spaces.Space:
    flat = spaces.Box(0, 2, (NUM_OBS,))
    if observation == "flat":
        return flat
    arrays = {name: spaces.Box(low, high, low.shape, low.dtype) for name, (low, high) in raw_bounds().items()}
    return spaces.Dict({"flat": flat, **arrays})
