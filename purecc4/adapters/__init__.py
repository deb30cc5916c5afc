"""CAGE Challenge 4 behind the interfaces of other libraries. Only a module's own library must be installed.

The adapters are part of the experiment, not of the simulator, because they can sample episodes by an arm.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from purecc4 import arms
from purecc4.arms.define import Definitions, read
from purecc4.envs import cc4
from purecc4.envs.cc4.constants import NUM_BLUE

AGENTS = tuple(f"blue_agent_{index}" for index in range(NUM_BLUE))
"""CybORG's names."""


@dataclass(frozen=True)
class Game:
    """CC4 against one red, with episodes of one arm. Both are data, so all games share two compiled programs."""

    params: cc4.Params
    arm: arms.Arm

    def reset(self, key: PRNGKeyArray) -> tuple[cc4.Observation, cc4.State]:
        """Sample an episode and start it."""
        return _reset(key, self.arm, self.params)

    def step(
        self,
        key: PRNGKeyArray,
        state: cc4.State,
        actions: Int[Array, "blue"],
        messages: UInt8[Array, "blue bit"] | None = None,
    ):
        """Same results as `cc4.step`."""
        return _step(key, state, actions, self.params, messages)


_reset = jax.jit(lambda key, arm, params: cc4.start(arms.sample(key, arm, params)))
_step = jax.jit(cc4.step)


def make_game(
    red: str | cc4.RedPolicy, arm: str | arms.ArmSpec, num_steps: int, define: str | Path | None = None
) -> Game:
    """A game of one red and one arm, each by name or as data; `define` is a TOML file with more names (arms/define.py).

    Raises UserError for an invalid file, an unknown name, or an episode that is too short or too long.
    """
    own = read(Path(define)) if define else Definitions()
    arm = arms.build([arm], own.arms, num_steps)
    return Game(own.params(red, num_steps), jax.tree.map(lambda x: x[0], arm))


def by_agent(values):
    """Split an array along its leading axis, the blue agents, into a dict."""
    return dict(zip(AGENTS, values, strict=True))
