"""Sets of small integers 0..63 as two 32-bit words: session ids of an agent, or positions of its targets."""

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


class Set(eqx.Module):
    """An array of sets; operators work set by set."""

    low: UInt32[Array, "*n"]
    high: UInt32[Array, "*n"]

    @staticmethod
    def single(index: Integer[Array | np.ndarray, "*n"]) -> Set:
        """{index}; the empty set where index is above 63."""
        index = index.astype(jnp.uint32)
        return Set(_bit(index), _bit(index - 32))

    @staticmethod
    def span(start: Integer[Array, "*n"], length: Integer[Array, "*n"]) -> Set:
        """{start, ..., start + length - 1}."""
        start, stop = start.astype(jnp.int32), (start + length).astype(jnp.int32)
        return Set(
            _bits_below(stop) & ~_bits_below(start),
            _bits_below(stop - 32) & ~_bits_below(start - 32),
        )

    def __and__(self, other: Set) -> Set:
        return Set(self.low & other.low, self.high & other.high)

    def __or__(self, other: Set) -> Set:
        return Set(self.low | other.low, self.high | other.high)

    def __invert__(self) -> Set:
        return Set(~self.low, ~self.high)

    def where(self, condition: Bool[Array, "..."]) -> Set:
        """Empty where the condition is false."""
        return Set(jnp.where(condition, self.low, 0), jnp.where(condition, self.high, 0))

    def has(self, index: Integer[Array | np.ndarray, "..."]) -> Bool[Array, "..."]:
        member = self & Set.single(index)
        return (member.low | member.high) != 0

    def count(self) -> Int32[Array, "*n"]:
        return (jax.lax.population_count(self.low) + jax.lax.population_count(self.high)).astype(jnp.int32)

    def after_highest(self) -> Int32[Array, "*n"]:
        """The highest member plus 1; 0 for the empty set."""
        low, high = (32 - jax.lax.clz(word).astype(jnp.int32) for word in (self.low, self.high))
        return jnp.where(self.high > 0, 32 + high, low)

    def nth(self, n: Int32[Array, "*n"]) -> Int32[Array, "*n"]:
        """The member with n smaller ones; anything if there are not that many."""
        below = jax.lax.population_count(self.low).astype(jnp.int32)
        in_high = n >= below
        word, n = jnp.where(in_high, self.high, self.low), jnp.where(in_high, n - below, n)
        position = jnp.where(in_high, 32, 0)
        for width in (16, 8, 4, 2, 1):
            below = jax.lax.population_count(word & ((1 << width) - 1)).astype(jnp.int32)
            up = n >= below
            word, n = jnp.where(up, word >> width, word), jnp.where(up, n - below, n)
            position = jnp.where(up, position + width, position)
        return position
