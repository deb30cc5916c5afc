"""Owners of zones, and blocks between subnets.

Every zone has one red owner, and every zone but the contractor network one blue owner. Five zones have owners of their
own; ADM, OFF and PAZ (constants.HQ) share the last blue and the last red agent. Values of agents are
repeated over their zones, and values of zones combined by owner. Ported from `EnterpriseScenarioGenerator.py` and
`Action.py:RemoteAction.blocking_host`.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer, Shaped

from .constants import HQ, HQ_BLUE, HQ_RED, NUM_ZONES, Subnet

OWNER = np.minimum(np.arange(NUM_ZONES), HQ_RED)
"""The red agent of a zone."""
_BLUE_OWNER = np.clip(np.arange(NUM_ZONES) - 1, 0, HQ_BLUE)
_HAS_BLUE = np.arange(NUM_ZONES) != Subnet.CON


def owner_of(zone: Integer[Array, "*n"]) -> Integer[Array, "*n"]:
    """The red agent of a zone."""
    return jnp.minimum(zone, HQ_RED)


def red_to_zones(values: Shaped[Array, "*n 6"]) -> Shaped[Array, "*n 8"]:
    """The value of each zone's red owner."""
    return values[..., OWNER]


def blue_to_zones(values: Shaped[Array, "*n 5"]) -> Shaped[Array, "*n 8"]:
    """The value of each zone's blue owner; zero for the contractor network, which has none."""
    return jnp.where(_HAS_BLUE, values[..., _BLUE_OWNER], jnp.zeros((), values.dtype))


def zones_to_red(values: Shaped[Array, "*n 8"], combine: Callable) -> Shaped[Array, "*n 6"]:
    """The values of each red agent's zones, combined by a binary function."""
    adm, off, paz = (values[..., zone, None] for zone in HQ)
    return jnp.concatenate([values[..., :HQ_RED], combine(combine(adm, off), paz)], axis=-1)


def is_blocked(
    blocked: Bool[Array, "subnet subnet"], source: Integer[Array, "*n"], target: Integer[Array, "*n"]
) -> Bool[Array, "*n"]:
    """True if traffic from `source` to `target` is blocked; subnets on the way do not matter (Q22)."""
    return blocked.at[target, source].get(mode="clip")
