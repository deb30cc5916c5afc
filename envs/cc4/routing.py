"""Who owns what, and which zone is blocked from which.

Arrays over agents become arrays over zones and hosts by repetition (a zone has one red and one blue owner), and back
by reduction. Ported from `EnterpriseScenarioGenerator.py` and `Action.py:RemoteAction.blocking_host`.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer, Shaped

from .constants import NUM_ZONES, SLOTS


def red_to_zones(values: Shaped[Array, "*n 6"]) -> Shaped[Array, "*n 8"]:
    """For every zone the value of its red owner."""
    hq = values[..., 5:]
    return jnp.concatenate([values, hq, hq], axis=-1)


def blue_to_zones(values: Shaped[Array, "*n 5"]) -> Shaped[Array, "*n 8"]:
    """For every zone the value of its blue owner; zero for the contractor network, which has none."""
    hq = values[..., 4:]
    return jnp.concatenate([jnp.zeros_like(hq), values, hq, hq], axis=-1)


def zones_to_red(values: Shaped[Array, "*n 8"], reduce: Callable) -> Shaped[Array, "*n 6"]:
    """For every red agent its zones' values, combined by a binary function."""
    hq = reduce(reduce(values[..., 5:6], values[..., 6:7]), values[..., 7:8])
    return jnp.concatenate([values[..., :5], hq], axis=-1)


def zones_to_hosts(values: Shaped[Array, "*n 8"]) -> Shaped[Array, "*n 128"]:
    """For every host the value of its zone."""
    spread = jnp.broadcast_to(values[..., None], (*values.shape, SLOTS))
    return spread.reshape(*values.shape[:-1], NUM_ZONES * SLOTS)


def red_to_hosts(values: Shaped[Array, "*n 6"]) -> Shaped[Array, "*n 128"]:
    """For every host the value of its red owner."""
    return zones_to_hosts(red_to_zones(values))


def blue_to_hosts(values: Shaped[Array, "*n 5"]) -> Shaped[Array, "*n 128"]:
    """For every host the value of its blue owner; zero in the contractor network."""
    return zones_to_hosts(blue_to_zones(values))


def by_zone(values: Shaped[Array, "*n 128"]) -> Shaped[Array, "*n 8 16"]:
    """Hosts as zones of slots."""
    return values.reshape(*values.shape[:-1], NUM_ZONES, SLOTS)


def is_blocked(
    blocked: Bool[Array, "subnet subnet"], source: Integer[Array, "*n"], target: Integer[Array, "*n"]
) -> Bool[Array, "*n"]:
    """Whether traffic from one subnet to another is blocked; only the two end subnets count."""
    return blocked[target, source]
