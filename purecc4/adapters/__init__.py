"""CAGE Challenge 4 behind the interfaces of other libraries. Only a module's own library must be installed.

`vector` and `cyborg_agents` need none. The adapters are part of the experiment, not of the simulator, because they can
sample episodes by an arm.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, Shaped, UInt8

from purecc4 import arms
from purecc4.arms.define import Definitions, read
from purecc4.arms.env import ArmEnv
from purecc4.envs import cc4
from purecc4.envs.cc4.constants import NUM_BLUE
from purecc4.errors import UserError

AGENTS = tuple(f"blue_agent_{index}" for index in range(NUM_BLUE))
"""CybORG's names."""


@dataclass(frozen=True)
class Game:
    """CC4 against one red, with episodes of one arm. Both are data, so all games share two compiled programs."""

    env: ArmEnv
    arm: arms.Arm

    def reset(self, key: PRNGKeyArray) -> tuple[cc4.Observation, cc4.State]:
        """Draw an episode and start it."""
        return _reset(self.env, key, self.arm)

    def step(
        self,
        key: PRNGKeyArray,
        state: cc4.State,
        actions: Int[Array, "blue"],
        messages: UInt8[Array, "blue bit"] | None = None,
    ):
        """Advance one step, as `ArmEnv.step`."""
        return _step(self.env, key, state, actions, messages)


_reset, _step = jax.jit(ArmEnv.reset), jax.jit(ArmEnv.step)


def make_game(
    red: str | cc4.RedPolicy,
    arm: str | arms.ArmSpec,
    num_steps: int,
    define: str | Path | None = None,
    observation: str = "flat",
) -> Game:
    """A game of one red and one arm, each by name or as data; `define` is a TOML file with more names (arms/define.py).

    `observation` is one of `cc4.OBSERVATIONS`. Raises UserError for an invalid file, an unknown name, or an episode
    that is too short or too long.
    """
    if not isinstance(arm, str | arms.ArmSpec):
        raise UserError(f"arm must be the name of one arm or an ArmSpec: {arm!r}.")
    own = read(Path(define)) if define else Definitions()
    env = ArmEnv(own.params(red, num_steps, observation), arms.build([arm], own.arms, num_steps))
    return Game(env, jax.tree.map(lambda x: x[0], env.arms))


def by_agent(values):
    """Split an array along its leading axis, the blue agents, into a dict."""
    return dict(zip(AGENTS, values, strict=True))


def arrays_of(flat: Any, raw: cc4.RawObservation | None) -> Any:
    """An observation: the array `flat`, or with the raw observation a dict of it and of the raw arrays."""
    return flat if raw is None else {"flat": flat, **vars(raw)}


def observations(flat: Shaped[Array | np.ndarray, "blue obs"], raw: cc4.RawObservation | None) -> dict[str, Any]:
    """Each agent's part of `arrays_of`."""
    arrays = arrays_of(flat, raw)
    return {agent: jax.tree.map(lambda x, i=i: x[i], arrays) for i, agent in enumerate(AGENTS)}


def key_of(seed: int | None) -> PRNGKeyArray:
    """The key of a sequence of episodes; None makes one at random."""
    return jax.random.key(np.random.SeedSequence(seed).generate_state(1)[0])
