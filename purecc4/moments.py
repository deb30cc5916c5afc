"""Running mean and variance, for algorithms that divide rewards by a running deviation."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32


class RunningMeanVar(eqx.Module):
    """Running moments of the discounted return, initialised as in the study."""

    mean: Float32[Array, ""] = eqx.field(default_factory=lambda: jnp.float32(0))
    var: Float32[Array, ""] = eqx.field(default_factory=lambda: jnp.float32(1))
    count: Float32[Array, ""] = eqx.field(default_factory=lambda: jnp.float32(1e-4))


def merge(stats: RunningMeanVar, values: Float[Array, "env"]) -> RunningMeanVar:
    """Add values to running moments (parallel variance, Chan et al. 1979).

    After 2^20 steps the count stops and old values fade: float32 cannot resolve smaller weights.
    """
    limit = 2.0**20 * values.size  # a float: 2,048 environments would overflow an int32
    old_count = jnp.minimum(stats.count, limit)
    count = old_count + values.size
    delta = values.mean() - stats.mean
    squares = stats.var * old_count + values.var() * values.size + delta**2 * old_count * values.size / count
    drift = (values.var() + delta**2 * old_count / count - stats.var) * values.size / count
    var = jnp.where(stats.count < limit, squares / count, stats.var + drift)
    return RunningMeanVar(stats.mean + delta * values.size / count, var, count)
