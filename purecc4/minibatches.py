"""Minibatches: which samples go into each, and cutting the rows of agents with short observations.

Blue agents 0 to 3 own one zone, agent 4 owns three, and observations and masks have agent 4's length. Cutting the rows
of the others to their own length saves 30 % of the arithmetic; the gradient, a sum over samples, is the same.
"""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, PRNGKeyArray

from purecc4.errors import UserError


def check(num_minibatches: int, samples: int, per_sample: int = 1) -> None:
    """Raises UserError unless the samples of an update divide evenly, into minibatches that can be learned from.

    `per_sample` is the number of advantages in a sample. A minibatch of one advantage has no gradient, as advantages
    are normalised in each minibatch.
    """
    if samples % num_minibatches:
        raise UserError(f"num_minibatches = {num_minibatches} does not divide the {samples} samples of an update.")
    if samples // num_minibatches * per_sample < 2:
        raise UserError(
            f"num_minibatches = {num_minibatches} leaves one sample in a minibatch, whose normalised advantage is 0: "
            f"use at most {samples // 2} minibatches."
        )


def shuffle(
    key: PRNGKeyArray, num_epochs: int, num_minibatches: int, size: int, num_blue: int
) -> Int32[Array, "minibatch sample"]:
    """Sample indices of all minibatches of an update: each epoch is one permutation of all samples.

    In each minibatch the samples of the last agent come first. Sample i is of agent i mod num_blue.
    """
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(num_epochs))
    order = jax.vmap(partial(permutation, size=size))(keys).reshape(num_epochs * num_minibatches, -1)
    return jnp.sort(jnp.where(order % num_blue == num_blue - 1, order, order + size)) % size


def permutation(key: PRNGKeyArray, size: int) -> Int32[Array, "size"]:
    """`jax.random.permutation(key, size)`, in a third of the time on a CPU, where XLA is slow to sort pairs.

    Each round sorts by random words. A word and its place are one 64-bit number here.
    """
    order = jnp.arange(size)
    for _ in range(math.ceil(3 * math.log(size) / math.log(2**32 - 1))):
        key, key_sort = jax.random.split(key)
        words = jax.random.bits(key_sort, (size,))
        with jax.enable_x64(True):
            pairs = (words.astype(jnp.uint64) << 32) | jnp.arange(size, dtype=jnp.uint64)
            places = jax.lax.sort(pairs, is_stable=False).astype(jnp.uint32)
        order = order[places]
    return order


def long_rows(rows: int, num_blue: int) -> int:
    """Rows of a minibatch kept at full length, enough for the samples of the last agent.

    Their number is random: this is the mean plus eight standard deviations, exceeded once in 1e15 minibatches.
    """
    return min(rows, math.ceil(rows / num_blue + 8 * (rows * (num_blue - 1)) ** 0.5 / num_blue))


def split(
    samples: Any, mask: Bool[Array, "env blue action"], index: Int32[Array, "sample"], short: tuple[int, int]
) -> tuple[tuple[Any, Bool[Array, "_ _"]], tuple[Any, Bool[Array, "_ _"]]]:
    """A minibatch in two groups of (samples, masks): full length first, then rows cut to `short` (obs, actions).

    `samples` has a field `obs`. `index` is a row of `shuffle`. Sample i has mask i mod (env x blue).
    """
    num_blue = mask.shape[1]
    mask = mask.reshape(-1, mask.shape[-1])
    long = long_rows(len(index), num_blue)

    def group(index, num_obs, num_actions):
        cut = dataclasses.replace(samples, obs=samples.obs[:, :num_obs])
        return jax.tree.map(lambda x: x[index], cut), mask[index % len(mask), :num_actions]

    return group(index[:long], None, None), group(index[long:], *short)
