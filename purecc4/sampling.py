"""Sampling actions from logits, in training and in evaluation."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32


def sample(
    logits: Float[Array, "sample action"], u: Float[Array, "sample"]
) -> tuple[Int32[Array, "sample"], Float[Array, "sample"]]:
    """Sample one action per row by inverse transform of a uniform number on [0, 1).

    Returns the actions and their log-probabilities in nats. An action whose probability rounds to zero is never
    sampled. `distrax.Categorical.sample` needs a random number for each of the 242 actions and normalises the logits
    again, which takes longer than a step of the environment.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    stops = jnp.cumsum(jnp.exp(shifted), axis=-1)
    total = stops[:, -1]
    action = (stops <= (u * total)[:, None]).sum(axis=-1, dtype=jnp.int32)
    return action, jnp.take_along_axis(shifted, action[:, None], axis=-1)[:, 0] - jnp.log(total)
