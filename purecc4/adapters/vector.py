"""A batch of environments for NumPy and PyTorch, with the methods of Gymnasium's `VectorEnv` and agents as an axis.

    import torch
    from purecc4.adapters.vector import CC4Vector
    env = CC4Vector(num_envs=256, from_dlpack=torch.from_dlpack)
    obs, infos = env.reset(seed=1)  # obs [256, 5, 210], infos["action_mask"] [256, 5, 242]
    obs, rewards, terminations, truncations, infos = env.step(actions)  # actions [256, 5]

Neither Gymnasium nor PyTorch is needed. Arrays share the memory of the simulator (DLPack), so they must not be written
to. The environments reset themselves as `gymnasium.vector.AutoresetMode.NEXT_STEP` says: the step that ends an episode
returns its last observation, and the step after that ignores its actions, starts the next episode and returns its first
observation with rewards of 0. All episodes have `num_steps` steps and so end together.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Integer, PRNGKeyArray, UInt8

from purecc4 import arms
from purecc4.adapters import arrays_of, key_of, make_game
from purecc4.arms.env import ArmEnv
from purecc4.envs import cc4
from purecc4.envs.cc4.checks import check_integers, is_whole
from purecc4.envs.cc4.constants import MESSAGE_BITS, NUM_ACTIONS, NUM_BLUE
from purecc4.errors import UserError
from purecc4.train.run_reader import REWARD_TERMS


class CC4Vector:
    """`num_envs` environments against one red, with episodes of one arm. The five agents share the team's reward.

    `infos` holds `action_mask`, the terms of the reward by name, and `overflow`, the number of entries that the
    simulator's tables have dropped in each episode (0 unless it is overlong). `state` holds the states, a `cc4.State`
    with an axis of environments.
    """

    metadata = {"autoreset_mode": "NextStep", "render_modes": []}  # noqa: RUF012
    num_agents, num_actions = NUM_BLUE, NUM_ACTIONS

    def __init__(
        self,
        num_envs: int = 256,
        red: str | cc4.RedPolicy = "fsm",
        arm: str | arms.ArmSpec = "C00",
        num_steps: int = 500,
        define: str | Path | None = None,
        observation: str = "flat",
        from_dlpack: Callable[[Any], Any] = np.from_dlpack,
    ):
        """See `adapters.make_game`. `from_dlpack` makes the arrays that are returned, for example `torch.from_dlpack`.

        With `observation="flat"` an observation is an array [env, agent, 210] of CybORG's vectors; with "raw" a dict of
        this array (`flat`) and of the arrays of `cc4.RawObservation`. Raises UserError for a number of environments
        that is not positive.
        """
        if not is_whole(num_envs) or num_envs < 1:
            raise UserError(f"num_envs must be a whole number of at least 1: {num_envs!r}.")
        self.num_envs, self.num_steps = num_envs, num_steps
        self._game = make_game(red, arm, num_steps, define, observation)
        self._from_dlpack = from_dlpack
        self._key, self._left = None, None

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every environment; returns observations and infos.

        A seed starts a sequence of episodes; None continues it, or begins one at random. Raises ValueError for
        options, as it takes none.
        """
        if options:
            raise ValueError(f"reset takes no options; it resets all environments together: {options}.")
        if seed is not None or self._key is None:
            self._key = key_of(seed)
        self._left = self.num_steps
        self._key, obs, self.state = _reset(self.num_envs, self._game.env, self._key, self._game.arm)
        none = np.zeros(self.num_envs, np.float32)
        return self._share(obs, dict.fromkeys(REWARD_TERMS, none) | {"overflow": none.astype(np.int32)})

    def step(self, actions: Any, messages: Any = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Advance every environment; returns observations, rewards [env], terminations, truncations [env] and infos.

        `actions` holds indices [env, agent], as anything that NumPy reads: an array, a list, a tensor on the CPU.
        Messages [env, agent, 8] are bits and arrive within the step; None sends zeros. Raises ValueError for actions or
        messages of another type or shape, for actions outside 0..241, and before the first `reset`.
        """
        if self._left is None:
            raise ValueError("no episode has started: call reset first.")
        actions, messages = self._checked(actions, messages)
        if not self._left:
            return self._next_episodes()
        self._left -= 1
        self._key, obs, self.state, reward, terms = _step(self._game.env, self._key, self.state, actions, messages)
        observations, infos = self._share(obs, terms)
        return observations, self._from_dlpack(reward), *self._ends(truncated=not self._left), infos

    def close(self) -> None:
        """Part of the interface; there is nothing to close."""

    def _checked(
        self, actions: Any, messages: Any
    ) -> tuple[Integer[Array, "env blue"], UInt8[Array, "env blue bit"] | None]:
        shape = (self.num_envs, NUM_BLUE)
        joint = check_integers("actions", np.asarray(actions), shape)
        if not ((joint >= 0) & (joint < NUM_ACTIONS)).all():
            raise ValueError(f"an action is from 0 to {NUM_ACTIONS - 1}: {np.unique(np.asarray(actions)).tolist()}.")
        if messages is None:
            return joint, None
        bits = check_integers("messages", np.asarray(messages), (*shape, MESSAGE_BITS))
        return joint, (bits != 0).astype(np.uint8)

    def _next_episodes(self) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, infos = self.reset()
        rewards = self._from_dlpack(np.zeros(self.num_envs, np.float32))
        return observations, rewards, *self._ends(truncated=False), infos

    def _ends(self, truncated: bool) -> tuple[Any, Any]:
        """Terminations, which CC4 has none of, and truncations."""
        return tuple(self._from_dlpack(np.full(self.num_envs, ends)) for ends in (False, truncated))

    def _share(self, obs: cc4.Observation, about: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Observations and infos as arrays of the user's library."""
        arrays = arrays_of(obs.flat, obs.raw), {"action_mask": obs.mask, **about}
        return jax.tree.map(self._from_dlpack, arrays)


@partial(jax.jit, static_argnums=0)
def _reset(
    num_envs: int, env: ArmEnv, key: PRNGKeyArray, arm: arms.Arm
) -> tuple[PRNGKeyArray, cc4.Observation, cc4.State]:
    """The next key, and an episode in every environment."""
    key, key_now = jax.random.split(key)
    return key, *jax.vmap(env.reset, (0, None))(jax.random.split(key_now, num_envs), arm)


@jax.jit
def _step(
    env: ArmEnv,
    key: PRNGKeyArray,
    state: cc4.State,
    actions: Integer[Array, "env blue"],
    messages: UInt8[Array, "env blue bit"] | None,
) -> tuple:
    """The next key, then observations, states, rewards and infos after a step in every environment."""
    key, key_now = jax.random.split(key)
    obs, state, reward, _, terms = jax.vmap(env.step)(jax.random.split(key_now, len(actions)), state, actions, messages)
    return key, obs, state, reward, terms | {"overflow": state.overflow}
