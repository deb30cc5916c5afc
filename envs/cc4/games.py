"""Games: the numbers of CAGE Challenge 4 as data, and named ones.

`GameSpec` is a game as plain numbers, `Game` the same as arrays; the defaults are the challenge's. The length of an
episode is a number of its own (`params.make_params`), and red's choices are a `params.RedPolicy`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8

from .checks import is_float32, is_whole
from .constants import (
    BLUE_DURATION,
    EXPLOIT_DETECTION,
    FALSE_ALARM_RATE,
    MAX_SERVERS,
    MAX_USERS,
    MIN_USERS,
    PHISHING_RATE,
    RED_DURATION,
    SCAN_DETECTION,
    BlueAction,
    RedAction,
)

MAX_DURATION = 100
"""Longest action, in steps."""


@dataclass(frozen=True)
class GameSpec:
    """A game as plain numbers. Raises ValueError for invalid ones."""

    phishing: int | float = PHISHING_RATE
    """Probability that a green user who has worked opens a phishing mail."""
    work_alarm: int | float = FALSE_ALARM_RATE
    """Probability that a green user's work raises a false process alert on the user's host."""
    visit_alarm: int | float = FALSE_ALARM_RATE
    """Probability that a green user's visit raises a false connection alert on the server."""
    work: int | float = 1 / 3
    """Share of green's steps at work."""
    visit: int | float = 1 / 3
    """Share of green's steps that visit a server; in the rest users sleep."""
    aggressive_detection: int | float = SCAN_DETECTION[RedAction.AGGRESSIVE_SERVICE_DISCOVERY]
    """Probability that an aggressive scan is detected."""
    stealth_detection: int | float = SCAN_DETECTION[RedAction.STEALTH_SERVICE_DISCOVERY]
    """Probability that a stealthy scan is detected."""
    exploit_detection: int | float = EXPLOIT_DETECTION
    """Probability that a successful exploit is detected, on every host where it can be."""
    servers: Sequence[int] = (1, MAX_SERVERS)
    """Least and most servers of a generated subnet, within 1..6."""
    users: Sequence[int] = (MIN_USERS, MAX_USERS)
    """Least and most users of a generated subnet, within 0..10."""
    red_durations: Mapping[RedAction, int] = field(default_factory=dict)
    """Steps of red's actions, where they differ from the challenge's."""
    blue_durations: Mapping[BlueAction, int] = field(default_factory=dict)
    """Steps of blue's actions, where they differ from the challenge's."""
    restore_cost: int | float = 1
    """Cost of each submitted Restore, in points of reward. That of an arm multiplies it."""
    red: str = "fsm"
    """Red that plays it unless another is asked for."""

    def __post_init__(self):
        for name in RATES:
            _check_rate(name, getattr(self, name))
        if self.work + self.visit > 1 + 1e-6:
            raise ValueError(
                f"work and visit are shares of green's steps, at most 1 together: {self.work + self.visit}."
            )
        _check_range("servers", self.servers, 1, MAX_SERVERS)
        _check_range("users", self.users, 0, MAX_USERS)
        _check_durations("red_durations", self.red_durations, RedAction)
        _check_durations("blue_durations", self.blue_durations, BlueAction)
        if not is_float32(self.restore_cost) or self.restore_cost < 0:
            raise ValueError(f"restore_cost must be a float32 number of at least 0: {self.restore_cost}.")

    def changes(self) -> dict[str, Any]:
        """The numbers that differ from the challenge's, by name."""
        return {x.name: getattr(self, x.name) for x in fields(self) if getattr(self, x.name) != getattr(BASE, x.name)}


RATES = (
    "phishing",
    "work_alarm",
    "visit_alarm",
    "work",
    "visit",
    "aggressive_detection",
    "stealth_detection",
    "exploit_detection",
)
"""Fields of GameSpec that are probabilities."""


class Game(eqx.Module):
    """A `GameSpec` as arrays, or several with a leading axis."""

    phishing: Float[Array, "*game"]
    work_alarm: Float[Array, "*game"]
    visit_alarm: Float[Array, "*game"]
    green_cdf: Float[Array, "*game 2"]
    """Cumulative shares of constants.GreenAction, without the last."""
    aggressive_detection: Float[Array, "*game"]
    stealth_detection: Float[Array, "*game"]
    exploit_detection: Float[Array, "*game"]
    servers: Int32[Array, "*game 2"]
    """Least and most in a subnet."""
    users: Int32[Array, "*game 2"]
    red_duration: UInt8[Array, "*game red_action"]
    """Steps, by RedAction."""
    blue_duration: UInt8[Array, "*game blue_action"]
    restore_cost: Float[Array, "*game"]


def build_game(spec: GameSpec) -> Game:
    """The arrays of a game."""
    rates = {name: jnp.float32(getattr(spec, name)) for name in RATES if name not in ("work", "visit")}
    return Game(
        **rates,
        green_cdf=jnp.float32([spec.visit, spec.visit + spec.work]),
        servers=jnp.int32(spec.servers),
        users=jnp.int32(spec.users),
        red_duration=_durations(RED_DURATION, spec.red_durations),
        blue_duration=_durations(BLUE_DURATION, spec.blue_durations),
        restore_cost=jnp.float32(spec.restore_cost),
    )


def _durations(base: UInt8[np.ndarray, "action"], changes: Mapping[Any, int]) -> UInt8[Array, "action"]:
    steps = base.copy()
    for action, duration in changes.items():
        steps[action] = duration
    return jnp.asarray(steps)


def _check_rate(name: str, value: Any) -> None:
    if not (is_float32(value) and 0 <= value <= 1):
        raise ValueError(f"{name} must be a probability, from 0 to 1: {value}.")


def _check_range(name: str, bounds: Any, least: int, most: int) -> None:
    if len(bounds) != 2 or not all(map(is_whole, bounds)) or not least <= bounds[0] <= bounds[1] <= most:
        raise ValueError(f"{name} must be the least and the most, within {least} to {most}: {tuple(bounds)}.")


def _check_durations(name: str, durations: Mapping[Any, Any], kinds: type) -> None:
    for kind, steps in durations.items():
        if kind not in tuple(kinds):
            raise ValueError(f"{name} are given by constants.{kinds.__name__}: {kind!r}.")
        if not is_whole(steps) or not 1 <= steps <= MAX_DURATION:
            raise ValueError(f"{kinds(kind).name} must last from 1 to {MAX_DURATION} steps: {steps}.")


BASE = GameSpec()
GAMES = {
    "base": BASE,
    "constant_size": GameSpec(servers=(MAX_SERVERS, MAX_SERVERS), users=(MAX_USERS, MAX_USERS)),
    "phishing": GameSpec(phishing=0.75),
    "stealthy": GameSpec(red="stealthy"),
    "stealthy_fp": GameSpec(red="stealthy", work_alarm=0.75, visit_alarm=0.75),
    "aggressive": GameSpec(red_durations={kind: 1 for kind in RedAction if RED_DURATION[kind] > 1}),
}
"""Games by name. The challenge's organisers took the finalists to a constant size, to phishing at 0.75, and to a
stealthy and an aggressive red (Kiely et al., AAAI 2025). How these two reds play is not published in detail: all
service discovery by stealth, and every action in one step, are ours."""
