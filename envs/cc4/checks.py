"""Validation of reds and episodes. Each `check_` function raises ValueError for invalid input."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from .constants import NUM_HOSTS, NUM_PHASES, NUM_RED_ACTIONS, Knowledge, Role

ACTING_STATES = tuple(state for state in Knowledge if state not in (Knowledge.UNKNOWN, Knowledge.F))
"""States of a host on which red can act: K to RD."""


def is_float32(value: Any) -> bool:
    """True for numbers that float32 can hold: 0, and finite numbers that it does not round to 0 or infinity.

    Compiled programs round the numbers below the smallest normal one, 1.2e-38, to 0.
    """
    if not isinstance(value, Real):
        return False
    limits = np.finfo(np.float32)
    return bool(value == 0 or float(limits.tiny) <= abs(value) <= float(limits.max))


def is_whole(value: Any) -> bool:
    """True for integers of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_integers(what: str, values: Any, shape: tuple[int, ...], bits: bool = False) -> Shaped[Array, "..."]:
    """Array of integers; `bits` may be booleans. Raises ValueError for other types and for another shape."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        # JAX keeps the low 32 bits of an integer: a large one would become a small one
        values = np.where((values >= 0) & (values < 2**31), values.astype(np.int32), np.int32(-1))
    values = jnp.asarray(values)
    if values.shape != shape or not (jnp.issubdtype(values.dtype, jnp.integer) or (bits and values.dtype == bool)):
        raise ValueError(f"{what} must be integers of shape {shape}: {values.dtype} of shape {values.shape}.")
    return values


def check_red(
    actions: Mapping[Any, Sequence[Any]],
    role_weight: Any,
    hunted: Sequence[Any],
    state_weights: Mapping[Any, Any] | None,
    server_chance: Any,
) -> None:
    """Check the arguments of `params.red_policy`."""
    _check_states("actions", actions)
    for state, row in actions.items():
        _check_actions(Knowledge(state).name, row)
    _check_hunted(role_weight, hunted)
    if state_weights is not None:
        _check_state_weights(state_weights)
    if not (is_float32(server_chance) and 0 <= server_chance <= 1):
        raise ValueError(f"server_chance must be a probability, from 0 to 1: {server_chance}.")


def check_num_steps(num_steps: Any) -> None:
    """Check the length of an episode."""
    if not is_whole(num_steps) or num_steps < NUM_PHASES:
        raise ValueError(
            f"num_steps must be a whole number of at least {NUM_PHASES}, one per mission phase: {num_steps}."
        )


def check_phase_starts(starts: Sequence[Any]) -> None:
    """Check the first steps of the mission phases."""
    whole = len(starts) == NUM_PHASES and all(map(is_whole, starts))
    if not whole or not 0 == starts[0] < starts[1] < starts[2]:
        raise ValueError(f"phase starts must be three increasing steps, the first 0: {tuple(starts)}.")


def _check_states(what: str, by_state: Mapping[Any, Any]) -> None:
    for state in by_state:
        if not is_whole(state) or state not in ACTING_STATES:
            known = ", ".join(state.name for state in ACTING_STATES)
            raise ValueError(f"{what} of a red are given by Knowledge, one of {known}: {state!r}.")


def _check_actions(state: str, row: Sequence[Any]) -> None:
    if len(row) > NUM_RED_ACTIONS:
        raise ValueError(f"a red has {NUM_RED_ACTIONS} actions, but state {state} gives {len(row)} probabilities.")
    if not all(is_float32(p) and p >= 0 for p in row) or sum(row) > 1 + 1e-6:
        raise ValueError(
            f"action probabilities of a red must be at least 0 and sum to at most 1: state {state} has {tuple(row)}."
        )


def _check_hunted(role_weight: Any, hunted: Sequence[Any]) -> None:
    for role in hunted:
        if not is_whole(role) or role not in tuple(Role):
            known = ", ".join(f"Role.{role.name}" for role in Role)
            raise ValueError(f"hunted takes roles, any of {known}: {role!r}.")
    if not is_float32(role_weight) or role_weight < 1 or not is_float32(role_weight * NUM_HOSTS):
        raise ValueError(
            f"role_weight, the weight of a hunted host, must be a float32 number of at least 1: {role_weight}."
        )
    if bool(hunted) != (role_weight > 1):
        raise ValueError(
            f"hunted and role_weight above 1 only work together: hunted is {tuple(hunted)}, role_weight {role_weight}."
        )


def _check_state_weights(weights: Mapping[Any, Any]) -> None:
    _check_states("state_weights", weights)
    valid = all(is_float32(weight) and weight >= 0 for weight in weights.values())
    if not valid or not any(weights.values()) or not is_float32(sum(weights.values())):
        raise ValueError(
            f"state_weights must be float32 numbers of at least 0, and one of them above 0: {_named(weights)}."
        )


def _named(by_state: Mapping[Any, Any]) -> str:
    return ", ".join(f"{Knowledge(state).name} {value}" for state, value in by_state.items())
