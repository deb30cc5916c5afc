"""Linear layers with a choice of precision, and the base class of policies without memory."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray, Shaped, UInt8


class MemorylessPolicy(eqx.Module):
    """Base of networks whose agents act on the current observation alone.

    A subclass defines `__call__(obs, mask)`, whose first result are the logits.
    """

    def initial_carry(self, num_agents: int) -> tuple[()]:
        """Carry at the start of an episode: empty."""
        return ()

    def logits(
        self, carry: tuple[()], obs: UInt8[Array, "agent obs"], mask: Bool[Array, "agent action"]
    ) -> tuple[tuple[()], Float[Array, "agent action"]]:
        """The carry, and the logits of the actions; masked ones have the lowest float."""
        return carry, self(obs, mask)[0]

    def update_carry(self, carry: tuple[()], action: Int32[Array, "agent"]) -> tuple[()]:
        """Update the carry after acting (no-op)."""
        return carry


def orthogonal(key: PRNGKeyArray, num_in: int, num_out: int, scale: float) -> eqx.nn.Linear:
    """Linear layer, initialised with an orthogonal weight matrix of gain `scale` and zero bias."""
    key_layer, key_weight = jax.random.split(key)
    layer = eqx.nn.Linear(num_in, num_out, key=key_layer)
    weight = jax.nn.initializers.orthogonal(scale)(key_weight, (num_out, num_in))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (weight, jnp.zeros(num_out)))


def linear(layer: eqx.nn.Linear, x: Float[Array, "*row in"], precision: str = "float32") -> Float[Array, "*row out"]:
    """Apply a layer to the last axis."""
    return product(x, layer.weight, precision) + layer.bias


def product(x: Shaped[Array, "*row in"], w: Float[Array, "out in"], precision: str) -> Float[Array, "*row out"]:
    """x @ w.T, with inputs rounded to bfloat16 if `precision` says so."""
    if precision == "bfloat16":
        return bfloat16_product(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], len(w))
    return x @ w.T


@jax.custom_vjp
def bfloat16_product(x: Shaped[Array, "row in"], w: Float32[Array, "out in"]) -> Float32[Array, "row out"]:
    """x @ w.T with bfloat16 inputs and float32 accumulation, in the forward and the backward pass."""
    return multiply(x, w, (1, 1))


def multiply(a: Shaped[Array, "a b"], b: Shaped[Array, "c d"], axes: tuple[int, int]) -> Float32[Array, "e f"]:
    """Contract one axis of each matrix, with bfloat16 inputs and float32 accumulation."""
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jax.lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())), preferred_element_type=jnp.float32)


def product_forward(x, w):
    return bfloat16_product(x, w), (x, w)


def product_backward(factors, gradient):
    """Gradients of both factors.

    On a CPU the weight gradient is computed in five parts: XLA folds a single `x.T` into a product that takes 1.5 times
    as long.
    """
    x, w = factors

    def in_parts(x, gradient, parts):
        columns = jnp.array_split(x.T, parts, axis=1), jnp.array_split(gradient, parts)
        return sum(multiply(*part, (1, 0)) for part in zip(*columns, strict=True)).T

    for_w = jax.lax.platform_dependent(x, gradient, cpu=partial(in_parts, parts=5), default=partial(in_parts, parts=1))
    return multiply(gradient, w, (1, 0)).astype(x.dtype), for_w


bfloat16_product.defvjp(product_forward, product_backward)
