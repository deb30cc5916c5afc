"""Who owns what, sets of hosts as words, and which zone is blocked from which.

Values of agents become values of zones by repetition (a zone has one red and one blue owner), and back by reduction.
Ported from `EnterpriseScenarioGenerator.py` and `Action.py:RemoteAction.blocking_host`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer, Shaped, UInt32

from .constants import MAX_SERVERS, MAX_USERS, NUM_RED, NUM_ZONES, SLOTS

OWNER = np.minimum(np.arange(NUM_ZONES), NUM_RED - 1)
"""The red agent of a zone."""
ZONES = np.arange(NUM_ZONES, dtype=np.uint8)
HOSTS = np.arange(NUM_ZONES * SLOTS, dtype=np.uint8).reshape(NUM_ZONES, SLOTS)
"""The user slots of a word."""
SERVERS = np.uint32((1 << MAX_SERVERS) - 1)


def red_to_zones(values: Shaped[Array, "*n 6"]) -> Shaped[Array, "*n 8"]:
    """For every zone the value of its red owner."""
    hq = values[..., 5:]
    return jnp.concatenate([values, hq, hq], axis=-1)


def blue_to_red(values: Shaped[Array, "*n 5"]) -> Shaped[Array, "*n 6"]:
    """For every red agent the value of the blue agent of its zones; zero for agent 0, whose zone has none."""
    return jnp.concatenate([jnp.zeros_like(values[..., :1]), values], axis=-1)


def blue_to_zones(values: Shaped[Array, "*n 5"]) -> Shaped[Array, "*n 8"]:
    """For every zone the value of its blue owner; zero for the contractor network, which has none."""
    return red_to_zones(blue_to_red(values))


def zones_to_red(values: Shaped[Array, "*n 8"], reduce: Callable) -> Shaped[Array, "*n 6"]:
    """For every red agent its zones' values, combined by a binary function."""
    hq = reduce(reduce(values[..., 5:6], values[..., 6:7]), values[..., 7:8])
    return jnp.concatenate([values[..., :5], hq], axis=-1)


def zone_of(host: Integer[Array, "*n"]) -> Integer[Array, "*n"]:
    """Zone of a host index."""
    return host >> 4


def slot_of(host: Integer[Array, "*n"]) -> Integer[Array, "*n"]:
    """Slot of a host index within its zone."""
    return host & (SLOTS - 1)


def bit(slot: Integer[Array, "*n"]) -> UInt32[Array, "*n"]:
    """The word with one slot."""
    return jnp.uint32(1) << slot.astype(jnp.uint32)


def union(words: UInt32[Array, "..."], axis: int) -> UInt32[Array, "..."]:
    """Bitwise or along an axis."""
    return jax.lax.reduce(words, np.uint32(0), jax.lax.bitwise_or, (axis % words.ndim,))


def pack(flags: Bool[Array, "*n k"]) -> UInt32[Array, "*n"]:
    """Flags of up to 32 slots as a word."""
    return union(jnp.where(flags, np.uint32(1) << np.arange(flags.shape[-1], dtype=np.uint32), np.uint32(0)), -1)


def unpack(words: UInt32[Array, "*n"], slots: range = range(SLOTS)) -> Bool[Array, "*n k"]:
    """Words as flags of some of their slots."""
    return (words[..., None] >> np.array(slots, np.uint32)) & 1 == 1


def pack_users(flags: Bool[Array, "80"]) -> UInt32[Array, "8"]:
    """Flags of the green users as words."""
    return pack(flags.reshape(NUM_ZONES, MAX_USERS)) << MAX_SERVERS


def hosts_of(host: Integer[Array, "n"], do: Bool[Array, "n"]) -> UInt32[Array, "8"]:
    """Some hosts as words, those for which `do` holds."""
    words = jnp.where(do, bit(slot_of(host)), np.uint32(0))
    here = zone_of(host)[:, None] == ZONES
    return union(jnp.where(here, words[:, None], np.uint32(0)), 0)


def holds(words: UInt32[Array, "*n 8"], host: Integer[Array, "m"]) -> Bool[Array, "*n m"]:
    """Whether hosts are in a set."""
    return (words.at[..., zone_of(host)].get(mode="clip") >> slot_of(host).astype(jnp.uint32)) & 1 == 1


def is_blocked(
    blocked: Bool[Array, "subnet subnet"], source: Integer[Array, "*n"], target: Integer[Array, "*n"]
) -> Bool[Array, "*n"]:
    """Whether traffic from one subnet to another is blocked; only the two end subnets count."""
    return blocked.at[target, source].get(mode="clip")
