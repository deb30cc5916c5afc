"""Products in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np

from purecc4 import nn


def test_bfloat16_rounds_the_factors_and_their_gradients_alone():
    """Against float32 products of rounded factors; a gradient is rounded before it is multiplied, and not after."""
    random = np.random.default_rng(0)
    x, w, g = (random.normal(size=shape).astype(np.float32) for shape in ((3, 11, 8), (5, 8), (3, 11, 5)))

    @jax.jit
    def product_and_gradients(x, w, g):
        out, pull = jax.vjp(lambda x, w: nn.product(x, w, "bfloat16"), x, w)
        return out, *pull(g)

    out, for_x, for_w = product_and_gradients(x, w, g)
    x, w, g = (value.astype(jnp.bfloat16).astype(np.float32) for value in (x, w, g))
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, x @ w.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(for_x, g @ w, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(for_w, np.einsum("sbo,sbi->oi", g, x), rtol=1e-5, atol=1e-5)
