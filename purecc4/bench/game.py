"""Benchmarks of the simulator."""

import re
import statistics
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from purecc4 import limits
from purecc4.algos import ippo
from purecc4.bench import hlo
from purecc4.bench.measure import Bench, bytes_of
from purecc4.envs import cc4
from purecc4.envs.cc4.constants import NUM_ACTIONS, NUM_BLUE, NUM_OBS
from purecc4.envs.cc4.draws import sample_index
from purecc4.play import policies
from purecc4.train import devices


def batches(bench: Bench) -> tuple[int, ...]:
    """Batch sizes to benchmark."""
    if bench.quick:
        return (48,)
    return (1, 48, 144, 1024, 4096, 16384) if bench.on_gpu else (1, 48, 144, 1024)


def env_rates(bench: Bench) -> None:
    """Measure steps per second of the simulator over batch sizes."""
    params, key = cc4.make_params("fsm"), jax.random.key(0)
    num_devices = jax.device_count() if bench.on_gpu else limits.cores()
    network = ippo.ActorCritic(key, NUM_OBS, NUM_ACTIONS, ippo.Config().hidden, devices.precision("auto"))
    trained = policies.Policy(network, jnp.float32(1))
    for name, policy in (("random", None), ("policy", trained)):
        for batch in batches(bench) if name == "random" else batches(bench)[-2:]:
            num_steps = max(20, 20_000 // batch) if not bench.on_gpu else 100
            share = min(batch, num_devices)
            program = on_devices(share, partial(steps_of, batch // share, num_steps, policy, params))
            seconds = bench.time(program, jax.random.split(key, share))
            bench.report_rate("env_steps", batch * num_steps, seconds, batch=batch, actions=name, steps=num_steps)
            _, state = jax.eval_shape(cc4.reset, key, params)
            moved = 2 * bytes_of(state) * batch * num_steps / seconds.wall
            bench.report_share("state_traffic", moved, "copy_bytes_per_s", batch=batch, actions=name)


def raw_speed(bench: Bench) -> None:
    """Measure how fast steps with raw observations are, relative to flat ones: median of turns that alternate."""
    batch, num_steps, device = 256, 80, jax.random.split(jax.random.key(0), 1)
    flat, raw = (
        on_devices(1, partial(steps_of, batch, num_steps, None, cc4.make_params("fsm", observation=kind)))
        for kind in ("flat", "raw")
    )
    turns = [bench.time(flat, device, repeats=1).wall / bench.time(raw, device, repeats=1).wall for _ in range(11)]
    bench.report("raw_to_flat", statistics.median(turns), "ratio", batch=batch, actions="random")


def steps_of(batch: int, num_steps: int, policy: policies.Policy | None, params: cc4.Params, key) -> PyTree:
    """Play steps in a batch of environments with uniform legal actions or a policy.

    Returns sums of rewards and observations per step, so that the compiler cannot remove any part of a step.
    """
    key_reset, key_steps, key_act = jax.random.split(key, 3)
    obs, state = jax.vmap(cc4.reset, (0, None))(jax.random.split(key_reset, batch), params)
    keys = jax.random.split(key_steps, (num_steps, batch))
    stops = jnp.cumsum(obs.mask, axis=-1)

    def choose(vector, stops, mask, u):
        if policy is None:
            return (stops <= sample_index(u, stops[:, -1])[:, None]).sum(axis=1)
        return policies.act(policy, (), vector, mask, u)[1]

    def step(carry, chance):
        vector, state = carry
        keys, u = chance
        actions = jax.vmap(choose)(vector, stops, obs.mask, u)
        obs_after, state, reward, _, _ = jax.vmap(cc4.step, (0, 0, 0, None))(keys, state, actions, params)
        seen = jax.tree.map(lambda x: x.sum(dtype=jnp.int32), (obs_after.flat, obs_after.raw))
        return (obs_after.flat, state), (reward.sum(), seen)

    u = jax.random.uniform(key_act, (num_steps, batch, NUM_BLUE))
    return jax.lax.scan(step, (obs.flat, state), (keys, u))[1]


def on_devices(count: int, function: Callable) -> Callable:
    """Map a function of one key over one key per device."""
    mesh = devices.run_sharding(count).mesh
    one = jax.shard_map(
        lambda keys: jax.tree.map(lambda x: x[None], function(keys[0])),
        mesh=mesh,
        in_specs=PartitionSpec("run"),
        out_specs=PartitionSpec("run"),
        check_vma=False,
    )
    return jax.jit(one)


def program_sizes(bench: Bench) -> None:
    """Measure compile times, the size of the state, and the instructions and kernels of a step."""
    params, key = cc4.make_params("fsm"), jax.random.key(0)
    _, state = jax.eval_shape(cc4.reset, key, params)
    bench.report("state_bytes", bytes_of(state), "bytes/env")
    bench.compile("reset", cc4.reset, key, params)
    step = bench.compile("step", cc4.step, key, state, jnp.zeros(NUM_BLUE, jnp.int32), params)
    text = step.as_text()
    bench.report("hlo_instructions", len(re.findall(r"^\s+(?:ROOT )?%?[\w.-]+ = ", text, re.M)), "1", program="step")
    bench.report("hlo_fusions", len(re.findall(r" fusion\(", text)), "1", program="step")
    if bench.on_gpu:
        bench.report("kernels", hlo.Program(text).cost().launches, "1/step", program="step of one env")
