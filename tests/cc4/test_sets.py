"""Sets of 0..63 against Python's sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import members

from purecc4.envs.cc4.sets import BitSet

COUNT = 512


@pytest.fixture(scope="module")
def pairs():
    """Random pairs of sets of all densities, the empty and the full one among them; as words and as Python's."""
    rng = np.random.default_rng(0)
    flags = rng.random((2, COUNT, 64)) < np.linspace(0, 1, COUNT)[:, None]
    words = (flags.reshape(2, COUNT, 2, 32).astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(-1)
    sets = [BitSet(*jnp.asarray(one.T.astype(np.uint32))) for one in words]
    return sets, [[set(np.flatnonzero(row)) for row in one] for one in flags]


def python_sets(sets):
    sets = jax.tree.map(np.asarray, sets)
    return [members(sets, i) for i in range(COUNT)]


def test_and_or_not_where(pairs):
    (a, b), (python_a, python_b) = pairs
    even = jnp.arange(COUNT) % 2 == 0
    together = list(zip(python_a, python_b, strict=True))
    assert python_sets(a & b) == [x & y for x, y in together]
    assert python_sets(a | b) == [x | y for x, y in together]
    assert python_sets(~a) == [set(range(64)) - x for x in python_a]
    assert python_sets(a.where(even)) == [x if i % 2 == 0 else set() for i, x in enumerate(python_a)]
    assert python_sets(a.where(even, b)) == [x if i % 2 == 0 else y for i, (x, y) in enumerate(together)]


def test_count_has_and_after_highest(pairs):
    (a, _), (python, _) = pairs
    assert a.count().tolist() == [len(x) for x in python]
    assert a.after_highest().tolist() == [max(x, default=-1) + 1 for x in python]
    for member in (0, 31, 32, 63):
        assert a.contains(jnp.full(COUNT, member)).tolist() == [member in x for x in python]


def test_nth_is_the_member_with_n_smaller_ones(pairs):
    (a, _), (python, _) = pairs
    nth = jax.jit(BitSet.nth)
    for share in (0, 0.3, 0.7, 0.999):
        n = (a.count() * share).astype(jnp.int32)
        found = nth(a, n).tolist()
        assert [f for f, x in zip(found, python, strict=True) if x] == [
            sorted(x)[int(i)] for i, x in zip(n, python, strict=True) if x
        ]


def test_singles_and_spans():
    numbers = jnp.arange(COUNT, dtype=jnp.int32) % 256
    assert python_sets(BitSet.single(numbers)) == [{int(n)} if n < 64 else set() for n in numbers]
    start, length = jnp.arange(COUNT, dtype=jnp.int32) % 64, jnp.arange(COUNT, dtype=jnp.int32) // 64 * 9
    spans = [set(range(int(s), min(64, int(s + n)))) for s, n in zip(start, length, strict=True)]
    assert python_sets(BitSet.span(start, length)) == spans
