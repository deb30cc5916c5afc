"""JaxMARL's `MultiAgentEnv`: dicts of agents, `get_avail_actions`, reset within `step`.

    from purecc4.adapters.jaxmarl import CC4
    env = CC4(red="fsm", arm="C11")

Needs `pip install -e .[jaxmarl]`. The reset of `step` draws a new network at every step of every environment, because
that is how JaxMARL resets; the native functions do so once an episode.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

try:
    from jaxmarl.environments import spaces
    from jaxmarl.environments.multi_agent_env import MultiAgentEnv
except ImportError as error:
    raise ImportError("purecc4.adapters.jaxmarl needs JaxMARL:  pip install -e '.[jaxmarl]'") from error

from purecc4 import arms
from purecc4.adapters import AGENTS, by_agent, make_game
from purecc4.envs import cc4
from purecc4.envs.cc4.actions import ACTION_TABLE
from purecc4.envs.cc4.constants import NUM_ACTIONS, NUM_OBS, BlueAction
from purecc4.train.run_reader import REWARD_TERMS

_SLEEP = by_agent((ACTION_TABLE[:, :, 0] == BlueAction.SLEEP).argmax(axis=1))


class CC4(MultiAgentEnv):
    """The five blue agents; all get the team's reward."""

    def __init__(
        self,
        red: str | cc4.RedPolicy = "fsm",
        arm: str | arms.ArmSpec = "C00",
        num_steps: int = 500,
        define: str | Path | None = None,
    ):
        """As `adapters.make_game`."""
        super().__init__(len(AGENTS))
        self.agents = list(AGENTS)
        self.observation_spaces = {agent: spaces.Box(0, 2, (NUM_OBS,)) for agent in AGENTS}
        self.action_spaces = {agent: spaces.Discrete(NUM_ACTIONS) for agent in AGENTS}
        self.game = make_game(red, arm, num_steps, define)

    @partial(jax.jit, static_argnums=0)
    def reset(self, key: PRNGKeyArray) -> tuple[dict[str, Float[Array, "obs"]], cc4.State]:
        """An episode's first observations and state."""
        obs, state = self.game.reset(key)
        return _vectors(obs), state

    @partial(jax.jit, static_argnums=0)
    def step_env(self, key: PRNGKeyArray, state: cc4.State, actions: dict[str, Int[Array, "..."]]):
        """One step without a reset. `info` holds, one value for each agent, the parts of the reward, and `overflow`:
        what the tables of the simulator had to drop in the episode so far, 0 in all but overlong ones.

        An action is one integer, of shape () or (1,). Anything else raises ValueError when the step is traced. Values
        are not known then and cannot be refused: an agent whose action is outside 0..241 sleeps.
        """
        joint = jnp.stack([_action(agent, actions[agent]) for agent in AGENTS])
        obs, state, reward, done, info = self.game.step(key, state, joint)
        rewards, dones = dict.fromkeys(AGENTS, reward), dict.fromkeys((*AGENTS, "__all__"), done)
        about = {part: info[part] for part in REWARD_TERMS} | {"overflow": state.overflow}
        about = {name: jnp.full(len(AGENTS), value) for name, value in about.items()}
        return _vectors(obs), state, rewards, dones, about

    @partial(jax.jit, static_argnums=0)
    def get_avail_actions(self, state: cc4.State) -> dict[str, Bool[Array, "action"]]:
        """Legal actions, constant in an episode."""
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


def _vectors(obs: cc4.Observation) -> dict[str, Float[Array, "obs"]]:
    return by_agent(obs.vector.astype(jnp.float32))
