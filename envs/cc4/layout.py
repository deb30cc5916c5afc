"""Packed layouts of hosts and red targets, and reductions along short axes. Every layout is defined here, once.

*Hosts.* A set of hosts is one uint32 word per zone; bit `slot` of word `zone` is host `16 * zone + slot`. A
rule about all 128 hosts takes a few operations on eight words.

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
USER_SLOTS = range(MAX_SERVERS, SLOTS)


# Short axes


def union(sets: Shaped[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """Bitwise or along a short axis: the union of sets, or the `any` of flags.

    Unrolled, because XLA then fuses it with neighbouring operations: a step takes 3 % less CPU time than with a
    reduction.
    """
    return reduce(jnp.bitwise_or, [jax.lax.index_in_dim(sets, k, axis, False) for k in range(sets.shape[axis])])


def select(chosen: Bool[Array, "*n k"], values: Shaped[Array | np.ndarray, "k"]) -> Shaped[Array, "*n"]:
    """The value at the flag that is set, or zero if none is. At most one flag may be set."""
    zero = np.zeros((), values.dtype)
    return jax.lax.reduce(jnp.where(chosen, values, zero), zero, jax.lax.bitwise_or, (chosen.ndim - 1,))


def once(flags: Bool[Array, "k *n"]) -> Bool[Array, "k *n"]:
    """The same flags, packed into words and unpacked.

    A CPU computes a reduction once, but fused operations again for every use: a step takes 13 % less CPU time.
    """
    return jnp.moveaxis(unpack(pack(jnp.moveaxis(flags, 0, -1)), range(len(flags))), -1, 0)


# Hosts


def zone_of(host: Integer[Array, "*n"]) -> Integer[Array, "*n"]:
    """Zone of a host index."""
    return host >> 4


def slot_of(host: Integer[Array, "*n"]) -> Integer[Array, "*n"]:
    """Slot of a host index within its zone."""
    return host & (SLOTS - 1)


def bit(index: Integer[Array | np.ndarray, "*n"]) -> UInt32[Array, "*n"]:
    """A word with only bit `index` set."""
    return jnp.uint32(1) << index.astype(jnp.uint32)


def pack(flags: Bool[Array, "*n k"]) -> UInt32[Array, "*n"]:
    """Pack up to 32 flags into a word, lowest bit first."""
    words = jnp.where(flags, np.uint32(1) << np.arange(flags.shape[-1], dtype=np.uint32), np.uint32(0))
    return jax.lax.reduce(words, np.uint32(0), jax.lax.bitwise_or, (words.ndim - 1,))


def unpack(words: UInt32[Array, "*n"], bits: range = range(SLOTS)) -> Bool[Array, "*n k"]:
    """Unpack some bits of words into flags."""
    return (words[..., None] >> np.array(bits, np.uint32)) & 1 == 1


def pack_users(flags: Bool[Array, "*n 8 10"]) -> UInt32[Array, "*n 8"]:
    """Pack flags of users, [zone, user], into a set of hosts."""
    return pack(flags) << MAX_SERVERS


def words_of(host: Integer[Array, "*n"]) -> UInt32[Array, "*n 8"]:
    """For each host, the set that contains only this host."""
    return jnp.where(zone_of(host)[..., None] == ZONES, bit(slot_of(host))[..., None], np.uint32(0))


def hosts_of(host: Integer[Array, "n"], do: Bool[Array, "n"]) -> UInt32[Array, "8"]:
    """The set of the hosts for which `do` is true."""
    return union(jnp.where(do[:, None], words_of(host), np.uint32(0)), 0)


def sets_of(host: Integer[Array, "k"], flags: Bool[Array, "n k"]) -> UInt32[Array, "n 8"]:
    """For each row of flags the set of those hosts whose flag is set; computed once, as a reduction."""
    words = jnp.where(flags[:, None], words_of(host).T, np.uint32(0))
    return jax.lax.reduce(words, np.uint32(0), jax.lax.bitwise_or, (2,))


def holds(hosts: UInt32[Array, "*n 8"], host: Integer[Array, "m"]) -> Bool[Array, "*n m"]:
    """True for hosts that are in the set."""
    return (hosts.at[..., zone_of(host)].get(mode="clip") >> slot_of(host).astype(jnp.uint32)) & 1 == 1


# Targets of red agents


def is_foreign(target: UInt8[Array, "red"]) -> Bool[Array, "red"]:
    """True for targets that are server 0 of a foreign zone."""
    return target >= OWN_TARGETS


def foreign_zone(target: UInt8[Array, "red"]) -> Int32[Array, "red"]:
    """The zone of a foreign target; negative for an own host."""
    return target.astype(jnp.int32) - OWN_TARGETS


def host_of_target(target: UInt8[Array, "red"]) -> Int32[Array, "red"]:
    """Host index of each agent's target."""
    return jnp.where(is_foreign(target), foreign_zone(target) * SLOTS, ZONE_START + target.astype(jnp.int32))


def target_sets(own: UInt32[Array, "*n 8"], foreign: UInt32[Array, "*n 6"]) -> BitSet:
    """Convert sets of hosts to sets of targets, [*n, red].

    `own` are the hosts, one word per zone; bit `zone` of `foreign` is server 0 of a zone that the agent does not
    own. The 64 bits of agent 5 are ADM, OFF, PAZ, foreign, 16 each; of the others: own zone, empty, empty, foreign.
    """
    adm, off, paz = (own[..., zone, None] for zone in HQ)
    is_hq = AGENTS == HQ_RED
    low = jnp.where(is_hq, adm | off << SLOTS, own[..., :NUM_RED])
    return BitSet(low, jnp.where(is_hq, paz, np.uint32(0)) | foreign << SLOTS)
