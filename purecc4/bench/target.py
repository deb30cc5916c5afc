"""Programs compiled for a GPU you do not have: kernels, memory traffic, memory size and lower bounds of the time.

The programs are the env step, and the update of all runs with its inner loops: a rollout step and a minibatch. Nothing
is run. Kernels are selected without autotuning (`--xla_gpu_autotune_level=0`); on the GPU the choice may differ.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purecc4.algos import ippo
from purecc4.bench import gpu as gpus
from purecc4.bench import hlo
from purecc4.bench.measure import Bench, aligned, cache_in
from purecc4.envs import cc4
from purecc4.envs.cc4.constants import NUM_BLUE
from purecc4.train import devices, runs

NUM_ENVS = 1296
"""Number of environments, equal to the total of all runs."""
ARMS, SEEDS = ("C00", "C11", "miss"), tuple(range(9))
LAUNCH_S = (2e-6, 3e-6)
"""Seconds from one kernel launch to the next: minimum and typical."""
COLUMNS = ("MB moved", "GFLOP", "launches ms", "bytes ms", "FLOPs ms", "memory GB", "compile s")
NOTE = "compiled, not run"


class Part(NamedTuple):
    """A program or part of one: a row of the table."""

    name: str
    cost: hlo.Cost
    compiled: jax.stages.Compiled | None = None
    """None for a part of the preceding program."""
    compile_s: float = 0


def report(bench: Bench, target: str) -> None:
    """Print all figures of all programs, and a table. Raises UserError if compiling for the GPU is impossible."""
    gpu = gpus.read(target)
    compile_for_gpu = gpus.compiler(gpu)
    with cache_in(None):
        parts = [*env_step(compile_for_gpu), *training_update(compile_for_gpu)]
    for part in parts:
        for figure, (value, unit) in figures(part, gpu).items():
            bench.report(figure, value, unit, program=part.name, gpu=gpu.name, note=NOTE)
    print(f"{gpu.name}: {NOTE}\n{table(parts, gpu)}")


def env_step(compile_for_gpu) -> Iterator[Part]:
    """Compile a step of NUM_ENVS environments."""
    params = cc4.make_params("fsm")
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), NUM_ENVS))
    _, state = jax.eval_shape(jax.vmap(cc4.reset, (0, None)), keys, params)
    action = jax.ShapeDtypeStruct((NUM_ENVS, NUM_BLUE), jnp.int32)
    step = jax.jit(jax.vmap(lambda key, state, action: cc4.step(key, state, action, params)), donate_argnums=1)
    began = time.perf_counter()
    compiled = compile_for_gpu(step, keys, state, action)
    seconds = time.perf_counter() - began
    yield Part(f"env step, {NUM_ENVS:,} envs", hlo.Program(compiled.as_text()).cost(), compiled, seconds)


def training_update(compile_for_gpu) -> Iterator[Part]:
    """Compile an update of all runs. Yields it, a step of its rollout and one of its minibatches."""
    config = ippo.Config(arm=ARMS, seeds=SEEDS, precision="bfloat16")
    training = runs.map_over_runs(config, ippo.make_train)
    task, runner = jax.eval_shape(training.start)
    update = jax.jit(jax.vmap(training.update), donate_argnums=1)
    began = time.perf_counter()
    compiled = compile_for_gpu(update, task, runner)
    seconds = time.perf_counter() - began
    program = hlo.Program(compiled.as_text())
    yield Part(f"update, {len(config.runs)} runs", program.cost(), compiled, seconds)
    loops = list(program.loops())
    minibatches = config.update_epochs * config.num_minibatches
    for name, trips in (("rollout step", config.num_steps), ("minibatch", minibatches)):
        costs = [program.cost(loop.body) for loop in loops if loop.trips == trips]
        yield Part(name, max(costs, key=lambda cost: cost.launches))


def figures(part: Part, gpu: gpus.GPU) -> dict[str, tuple[float, str]]:
    """Values and units of the figures of a part."""
    found = {"kernels": (part.cost.launches, "1")}
    found |= {f"kernels_{kind}": (part.cost.kernels[kind], "1") for kind in hlo.KINDS}
    found |= {"bytes_moved": (part.cost.bytes, "bytes"), "flops": (part.cost.flops, "1")}
    found |= {f"bound_{what}_s": (value, "s") for what, value in bounds(part.cost, gpu).items()}
    if part.compiled:
        needed = devices.bytes_needed(part.compiled)
        found |= {"memory_bytes": (needed, "bytes"), "memory_share": (needed / gpu.memory, "ratio")}
        found |= {"compile_s": (part.compile_s, "s")}
    return found


def bounds(cost: hlo.Cost, gpu: gpus.GPU) -> dict[str, float]:
    """Lower bounds in seconds from launches (minimum and typical), memory and arithmetic, each taken alone."""
    least, usual = (cost.launches * seconds for seconds in LAUNCH_S)
    memory, arithmetic = cost.bytes / gpu.bytes_per_s, cost.flops / gpu.flops_per_s
    return {"launches": least, "launches_usual": usual, "bytes": memory, "flops": arithmetic}


def table(parts: list[Part], gpu: gpus.GPU) -> str:
    """Format the parts as a table, each program followed by its parts."""
    head = ["", "kernels", *hlo.KINDS, *COLUMNS]
    rows = [head]
    for part in parts:
        bound = {what: 1000 * value for what, value in bounds(part.cost, gpu).items()}
        launches = f"{bound['launches']:.3g}-{bound['launches_usual']:.3g}"
        memory = f"{devices.bytes_needed(part.compiled) / 1e9:.2f}" if part.compiled else ""
        rows.append([part.name, f"{part.cost.launches:,}", *(f"{part.cost.kernels[kind]:,}" for kind in hlo.KINDS)])
        rows[-1] += [f"{part.cost.bytes / 1e6:,.4g}", f"{part.cost.flops / 1e9:,.4g}", launches]
        rows[-1] += [f"{bound['bytes']:.3g}", f"{bound['flops']:.3g}", memory]
        rows[-1] += [f"{part.compile_s:.1f}" if part.compiled else ""]
    return aligned(rows)
