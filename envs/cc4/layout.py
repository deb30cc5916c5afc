"""How hosts and red's targets are packed into words, and short axes folded: every packed layout is written here, once.

*Hosts.* A set of hosts is one uint32 word per zone; bit `slot` of word `zone` stands for host `16 * zone + slot`. So
a rule about all 128 hosts is a few operations on eight words.

*Targets of a red agent.* A target is a number below 64: 0..47 is an own host, counted from the first host of the
agent's zone (only agent 5 owns three zones, so only it uses more than 0..15), and 48 + zone is server 0 of a foreign
zone. Sets of targets are `sets.BitSet`s.
"""

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, Integer, Shaped, UInt8, UInt32

from .constants import HQ, HQ_RED, MAX_SERVERS, NUM_RED, NUM_ZONES, OWN_TARGETS, SLOTS, ZONE_START
from .sets import BitSet

ZONES = np.arange(NUM_ZONES, dtype=np.uint8)
AGENTS = np.arange(NUM_RED)
HOSTS = np.arange(NUM_ZONES * SLOTS, dtype=np.uint8).reshape(NUM_ZONES, SLOTS)
SERVERS = np.uint32((1 << MAX_SERVERS) - 1)
"""The server slots of a word."""


# Short axes


def union(sets: Shaped[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """Bitwise or along a short axis: the union of sets, or whether any flag is set.

    Written out, it fuses with what comes before and after, which a reduction does not: a step takes 3 % less CPU time.
    """
    return reduce(jnp.bitwise_or, [jax.lax.index_in_dim(sets, k, axis, False) for k in range(sets.shape[axis])])


def select(chosen: Bool[Array, "*n k"], values: Shaped[Array | np.ndarray, "k"]) -> Shaped[Array, "*n"]:
    """The value whose flag is set, zero if none is; at most one may be set."""
    zero = np.zeros((), values.dtype)
    return jax.lax.reduce(jnp.where(chosen, values, zero), zero, jax.lax.bitwise_or, (chosen.ndim - 1,))


# Hosts


def zone_of(host: Integer[Array, "*n"]) -> Integer[Array, "*n"]:
    """Zone of a host index."""
    return host >> 4


def slot_of(host: Integer[Array, "*n"]) -> Integer[Array, "*n"]:
    """Slot of a host index within its zone."""
    return host & (SLOTS - 1)


def bit(place: Integer[Array | np.ndarray, "*n"]) -> UInt32[Array, "*n"]:
    """The word with one bit."""
    return jnp.uint32(1) << place.astype(jnp.uint32)


def pack(flags: Bool[Array, "*n k"]) -> UInt32[Array, "*n"]:
    """Up to 32 flags as a word, the first one lowest."""
    words = jnp.where(flags, np.uint32(1) << np.arange(flags.shape[-1], dtype=np.uint32), np.uint32(0))
    return jax.lax.reduce(words, np.uint32(0), jax.lax.bitwise_or, (words.ndim - 1,))


def unpack(words: UInt32[Array, "*n"], bits: range = range(SLOTS)) -> Bool[Array, "*n k"]:
    """Some bits of words as flags."""
    return (words[..., None] >> np.array(bits, np.uint32)) & 1 == 1


def pack_users(flags: Bool[Array, "*n 8 10"]) -> UInt32[Array, "*n 8"]:
    """Flags of the users, [zone, user], as sets of hosts."""
    return pack(flags) << MAX_SERVERS


def words_of(host: Integer[Array, "*n"]) -> UInt32[Array, "*n 8"]:
    """Each host as a set of hosts of its own."""
    return jnp.where(zone_of(host)[..., None] == ZONES, bit(slot_of(host))[..., None], np.uint32(0))


def hosts_of(host: Integer[Array, "n"], do: Bool[Array, "n"]) -> UInt32[Array, "8"]:
    """The set of those hosts for which `do` holds."""
    return union(jnp.where(do[:, None], words_of(host), np.uint32(0)), 0)


def holds(hosts: UInt32[Array, "*n 8"], host: Integer[Array, "m"]) -> Bool[Array, "*n m"]:
    """Whether hosts are in a set."""
    return (hosts.at[..., zone_of(host)].get(mode="clip") >> slot_of(host).astype(jnp.uint32)) & 1 == 1


# Targets of red agents


def is_foreign(target: UInt8[Array, "red"]) -> Bool[Array, "red"]:
    """Whether targets are server 0 of a foreign zone."""
    return target >= OWN_TARGETS


def foreign_zone(target: UInt8[Array, "red"]) -> Int32[Array, "red"]:
    """The zone of a foreign target; negative for an own host."""
    return target.astype(jnp.int32) - OWN_TARGETS


def host_of_target(target: UInt8[Array, "red"]) -> Int32[Array, "red"]:
    """Host index of each agent's target."""
    return jnp.where(is_foreign(target), foreign_zone(target) * SLOTS, ZONE_START + target.astype(jnp.int32))


def target_sets(own: UInt32[Array, "*n 8"], foreign: UInt32[Array, "*n 6"]) -> BitSet:
    """Sets of hosts as [*n, red] sets of targets.

    `own` are the hosts as words of zones; bit `zone` of `foreign` stands for server 0 of a zone that the agent does not
    own. The 64 bits of agent 5 are ADM, OFF, PAZ, foreign, 16 each; of the others: own zone, empty, empty, foreign.
    """
    adm, off, paz = (own[..., zone, None] for zone in HQ)
    is_hq = AGENTS == HQ_RED
    low = jnp.where(is_hq, adm | off << SLOTS, own[..., :NUM_RED])
    return BitSet(low, jnp.where(is_hq, paz, np.uint32(0)) | foreign << SLOTS)
