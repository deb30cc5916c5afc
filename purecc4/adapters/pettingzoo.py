"""PettingZoo's `ParallelEnv`, with CybORG's agent names, observations and masks. Needs `pip install -e .[pettingzoo]`.

    from purecc4.adapters.pettingzoo import CC4
    env = CC4(red="fsm", arm="C00")
    observations, infos = env.reset(seed=1)
    infos["blue_agent_0"]["action_mask"]

It runs one environment at a time, which is slow compared with the native functions on batches.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8

try:
    from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space
    from pettingzoo import ParallelEnv
except ImportError as error:
    raise ImportError("purecc4.adapters.pettingzoo needs PettingZoo:  pip install -e '.[pettingzoo]'") from error

from purecc4 import arms
from purecc4.adapters import AGENTS, by_agent, key_of, make_game, observations
from purecc4.adapters.bounds import raw_bounds
from purecc4.envs import cc4
from purecc4.envs.cc4.constants import MESSAGE_BITS, NUM_ACTIONS, NUM_OBS, NUM_PHASES
from purecc4.train.run_reader import REWARD_TERMS


class CC4(ParallelEnv):
    """The five blue agents, each rewarded with the team's reward.

    `infos` holds the terms of the reward and `overflow`, the number of entries that the simulator's tables have dropped
    in this episode.
    """

    metadata = {"name": "cage_challenge_4", "render_modes": []}  # noqa: RUF012
    render_mode = None

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
        part of each array of `cc4.RawObservation`.
        """
        self._game = make_game(red, arm, num_steps, define, observation)
        self.possible_agents = list(AGENTS)
        self.agents = []
        self.observation_spaces = {agent: _observation_space(observation) for agent in AGENTS}
        self.action_spaces = {agent: Discrete(NUM_ACTIONS) for agent in AGENTS}
        self._key = None

    def observation_space(self, agent: str) -> Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Discrete:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start an episode. A seed starts a sequence of episodes; None continues it, or begins one at random."""
        if seed is not None or self._key is None:
            self._key = key_of(seed)
        obs, self._state = self._game.reset(self._next_key())
        self.agents = list(AGENTS)
        return self._to_dicts(obs)

    def step(self, actions: Mapping[str, Any], messages: Mapping[str, np.ndarray] | None = None) -> tuple:
        """Advance one step. Messages of 8 bits arrive within it. The end of an episode is a truncation.

        Raises ValueError unless each agent has an action from 0 to 241 and messages are bits, and if there is no
        episode: before `reset` and after a truncation.
        """
        if not self.agents:
            raise ValueError("no episode has started: call reset first.")
        joint, spoken = self._joint_action(actions), _joint_messages(messages or {})
        obs, self._state, reward, done, info = self._game.step(self._next_key(), self._state, joint, spoken)
        observations, infos = self._to_dicts(obs)
        about = {part: float(info[part]) for part in REWARD_TERMS} | {"overflow": int(self._state.overflow)}
        for agent in AGENTS:
            infos[agent] |= about
        rewards, truncations = dict.fromkeys(AGENTS, float(reward)), dict.fromkeys(AGENTS, bool(done))
        if done:
            self.agents = []
        return observations, rewards, dict.fromkeys(AGENTS, False), truncations, infos

    def _joint_action(self, actions: Mapping[str, Any]) -> Int32[Array, "blue"]:
        if set(actions) != set(AGENTS):
            raise ValueError(f"step needs one action for each of {', '.join(AGENTS)}, not for {', '.join(actions)}.")
        for agent, action in actions.items():
            if not self.action_spaces[agent].contains(np.asarray(action)):
                raise ValueError(f"an action is a whole number from 0 to {NUM_ACTIONS - 1}; {agent} has {action!r}.")
        return jnp.array([actions[agent] for agent in AGENTS], jnp.int32)

    def _next_key(self):
        self._key, key_now = jax.random.split(self._key)
        return key_now

    def _to_dicts(self, obs: cc4.Observation) -> tuple[dict, dict]:
        obs = jax.tree.map(np.asarray, obs)
        infos = {agent: {"action_mask": mask} for agent, mask in by_agent(obs.mask.astype(np.int8)).items()}
        return observations(obs.flat.astype(np.int64), obs.raw), infos


def _observation_space(observation: str) -> Space:
    values = np.full(NUM_OBS, 2)
    values[0] = NUM_PHASES
    flat = MultiDiscrete(values)
    if observation == "flat":
        return flat
    arrays = {name: Box(low, high, dtype=low.dtype.type) for name, (low, high) in raw_bounds().items()}
    return Dict({"flat": flat, **arrays})


def _joint_messages(messages: Mapping[str, Any]) -> UInt8[Array, "blue bit"]:
    for agent, message in messages.items():
        bits = np.asarray(message)
        if agent not in AGENTS or bits.shape != (MESSAGE_BITS,) or not np.isin(bits, (0, 1)).all():
            raise ValueError(f"a message is {MESSAGE_BITS} bits, 0 or 1, of a blue agent; {agent} has {message!r}.")
    silence = np.zeros(MESSAGE_BITS, np.uint8)
    return jnp.array([np.asarray(messages.get(agent, silence)) for agent in AGENTS], jnp.uint8)
