"""CAGE Challenge 4 in the dress of other libraries. Each module needs its library; nothing else here does.

They live here, and not beside the simulator, because they can draw their episodes by an arm.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from envs import cc4
from envs.cc4.constants import NUM_BLUE
from purecc4 import arms

AGENTS = tuple(f"blue_agent_{index}" for index in range(NUM_BLUE))
"""CybORG's names."""


class Game(NamedTuple):
    """CC4 against one red, with the episodes of one arm, as pure functions of one environment."""

    reset: Callable[[PRNGKeyArray], tuple[cc4.Observation, cc4.State]]
    step: Callable[..., tuple]
    """(key, state, actions [blue], messages [blue bit] or None) -> what `cc4.step` returns"""


def make_game(red: str | cc4.RedPolicy = "fsm", arm: str | arms.ArmSpec = "C00", num_steps: int = 500) -> Game:
    """Raises ValueError, listing the known names, for an unknown red or arm."""
    params = cc4.make_params(red, num_steps)
    drawn = jax.tree.map(lambda x: x[0], arms.build([arm]))

    def reset(key: PRNGKeyArray):
        return cc4.start(arms.sample(key, drawn, params))

    def step(
        key: PRNGKeyArray,
        state: cc4.State,
        actions: Int[Array, "blue"],
        messages: UInt8[Array, "blue bit"] | None = None,
    ):
        return cc4.step(key, state, actions, params, messages)

    return Game(reset, step)


def by_agent(values):
    """An array with a leading axis of blue agents as a dict."""
    return dict(zip(AGENTS, values, strict=True))
