"""Bit sets of the integers 0 to 63, as two 32-bit words. Members are session ids or targets of one red agent."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, Integer, UInt32


def _bit(index: Integer[Array | np.ndarray, "*n"]) -> UInt32[Array, "*n"]:
    return jnp.uint32(1) << index.astype(jnp.uint32)


def _bits_below(index: Int32[Array, "*n"]) -> UInt32[Array, "*n"]:
    return _bit(jnp.clip(index, 0, 32)) - 1


class BitSet(eqx.Module):
    """An array of sets. Operators and methods apply elementwise."""

    low: UInt32[Array, "*n"]
    high: UInt32[Array, "*n"]

    @staticmethod
    def single(index: Integer[Array | np.ndarray, "*n"]) -> BitSet:
        """{index}, or the empty set if index is above 63."""
        index = index.astype(jnp.uint32)
        return BitSet(_bit(index), _bit(index - 32))

    @staticmethod
    def of_word(word: UInt32[Array, "*n"]) -> BitSet:
        """The set whose members, all below 32, are the bits of `word`."""
        return BitSet(word, jnp.zeros_like(word))

    @staticmethod
    def span(start: Integer[Array, "*n"], length: Integer[Array, "*n"]) -> BitSet:
        """{start, ..., start + length - 1}, cut off at 63."""
        stop = (start + length).astype(jnp.int32)
        start = start.astype(jnp.int32)
        return BitSet(
            _bits_below(stop) & ~_bits_below(start),
            _bits_below(stop - 32) & ~_bits_below(start - 32),
        )

    def __and__(self, other: BitSet) -> BitSet:
        return BitSet(self.low & other.low, self.high & other.high)

    def __or__(self, other: BitSet) -> BitSet:
        return BitSet(self.low | other.low, self.high | other.high)

    def __invert__(self) -> BitSet:
        return BitSet(~self.low, ~self.high)

    def where(self, condition: Bool[Array, "..."], otherwise: BitSet | None = None) -> BitSet:
        """These sets if the condition holds, else `otherwise` (default: the empty set)."""
        low, high = (0, 0) if otherwise is None else (otherwise.low, otherwise.high)
        return BitSet(jnp.where(condition, self.low, low), jnp.where(condition, self.high, high))

    def contains(self, index: Integer[Array | np.ndarray, "..."]) -> Bool[Array, "..."]:
        """True if index is a member; False above 63."""
        member = self & BitSet.single(index)
        return (member.low | member.high) != 0

    def count(self) -> Int32[Array, "*n"]:
        """Number of members."""
        return (jax.lax.population_count(self.low) + jax.lax.population_count(self.high)).astype(jnp.int32)

    def after_highest(self) -> Int32[Array, "*n"]:
        """The highest member plus 1; 0 for the empty set."""
        low, high = (32 - jax.lax.clz(word).astype(jnp.int32) for word in (self.low, self.high))
        return jnp.where(self.high > 0, 32 + high, low)

    def nth(self, n: Int32[Array, "*n"]) -> Int32[Array, "*n"]:
        """The n-th member, counted from 0 in ascending order; undefined if there are at most n.

        A binary search: skip the lower half of the remaining bits if it has at most n members.
        """
        num_lower = jax.lax.population_count(self.low).astype(jnp.int32)
        skip = n >= num_lower
        left = jnp.where(skip, self.high, self.low)
        member = jnp.where(skip, 32, 0)
        n = jnp.where(skip, n - num_lower, n)
        for half in (16, 8, 4, 2, 1):
            num_lower = jax.lax.population_count(left & ((1 << half) - 1)).astype(jnp.int32)
            skip = n >= num_lower
            left = jnp.where(skip, left >> half, left)
            member = jnp.where(skip, member + half, member)
            n = jnp.where(skip, n - num_lower, n)
        return member
