"""Benchmark of the parts of a minibatch of `algos/ippo.py`.

Each part is the 64 minibatches of an update as a program of its own, which changes the weights so that nothing can be
computed before the loop.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int32

from purecc4 import minibatches
from purecc4.algos import ippo
from purecc4.arms.env import ArmEnv
from purecc4.bench.measure import Bench
from purecc4.nn import product

Groups = list[tuple[ippo.Batch, Bool[Array, "_ _"]]]
Part = Callable[[ippo.ActorCritic, Groups], Float[Array, ""]]


def gather(network: ippo.ActorCritic, groups: Groups) -> Float[Array, ""]:
    """Sums over the samples of a minibatch, so that each is read."""
    total = sum(jnp.sum(x, dtype=jnp.float32) for group in groups for x in jax.tree.leaves(group))
    return total * network.critic.bias[0]


def products(network: ippo.ActorCritic, groups: Groups) -> Float[Array, ""]:
    """The network's matrix products alone, and half their squared sum."""
    total = jnp.float32(0)
    for batch, mask in groups:
        x = batch.obs.astype(jnp.float32)
        heads = jnp.concatenate([network.actor.weight[: mask.shape[1]], network.critic.weight])
        for weight in (network.first.weight[:, : x.shape[1]], network.second.weight, heads):
            x = product(x, weight, network.precision)
        total += 0.5 * jnp.sum(x**2)
    return total


def whole_network(network: ippo.ActorCritic, groups: Groups) -> Float[Array, ""]:
    """The network, and half the squared sum of its results."""
    return sum(0.5 * jnp.sum(x**2) for batch, mask in groups for x in network(batch.obs, jnp.ones_like(mask)))


def whole_loss(network: ippo.ActorCritic, groups: Groups, config: ippo.Config) -> Float[Array, ""]:
    """The loss of PPO."""
    return ippo.ppo_loss(network, groups, config)[0]


def loop(
    part: Part,
    env: ArmEnv,
    network: ippo.ActorCritic,
    order: Int32[Array, "minibatch sample"],
    batch: ippo.Batch,
    mask: Bool[Array, "env blue action"],
) -> Float[Array, "weight"]:
    """Gradients of one part in all minibatches. Returns the last weights."""
    weights, unravel = ravel_pytree(network)

    def minibatch(weights, index):
        groups = minibatches.split(batch, mask, index, env.one_zone)
        return weights - 1e-9 * jax.grad(lambda w: part(unravel(w), list(groups)))(weights), None

    return jax.lax.scan(minibatch, weights, order)[0]


def optimiser(config: ippo.Config, network: ippo.ActorCritic, num: int) -> Float[Array, "weight"]:
    """Clipping and Adam, as often as there are minibatches. Returns the last weights."""
    weights, _ = ravel_pytree(network)
    adam = ippo.make_optimiser(config)

    def minibatch(carry, _):
        weights, state = carry
        grads = weights * jnp.minimum(1, config.max_grad_norm / (jnp.linalg.norm(weights) + 1e-8))
        updates, state = adam.update(grads, state)
        return (weights + updates, state), None

    return jax.lax.scan(minibatch, (weights, adam.init(weights)), length=num)[0][0]


def parts(
    bench: Bench,
    setup: Any,
    num_runs: int,
    traj: ippo.Transition,
    mask: Bool[Array, "run env blue action"],
    advantage: Float[Array, "run step env blue"],
) -> None:
    """Time the parts of a `learning.TrainingSetup`, whose runs have played `traj`.

    `shuffle` is in `gather`, that in `products`, those in `network`, and that in `loss`.
    """
    config, env = setup.config, setup.env
    num_blue, num = mask.shape[-2], config.update_epochs * config.num_minibatches

    def order():
        size = config.steps_per_update * num_blue
        return minibatches.shuffle(jax.random.key(0), config.update_epochs, config.num_minibatches, size, num_blue)

    def program(part, runner, traj, mask, advantage):
        columns = traj.obs, traj.action, traj.log_prob, advantage, advantage + traj.value
        batch = ippo.Batch(*(x.reshape(traj.action.size, *x.shape[3:]) for x in columns))
        return loop(part, env, runner.network, order(), batch, mask)

    def report(name, program, *args):
        seconds = bench.time(jax.jit(setup.over_runs(program)), setup.runner, *args).wall
        bench.report("minibatches_s", seconds, "s", part=name, runs=num_runs)

    report("shuffle", lambda runner: order() + runner.update)
    report("optimiser", lambda runner: optimiser(config, runner.network, num))
    loss = partial(whole_loss, config=config)
    for name, part in {"gather": gather, "products": products, "network": whole_network, "loss": loss}.items():
        report(name, partial(program, part), traj, mask, advantage)
