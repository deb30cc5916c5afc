"""Peak rates of this machine, and the speed of CybORG on it."""

import itertools
import subprocess
from functools import partial, reduce
from pathlib import Path

import jax
import jax.numpy as jnp

from purecc4 import nn
from purecc4.bench.measure import Bench
from purecc4.envs.cc4.constants import NUM_ACTIONS, NUM_OBS
from purecc4.errors import UserError, user_file
from purecc4.train import devices


def peaks(bench: Bench) -> None:
    """Measure memory bandwidth, matrix products of training, and program launch time."""
    size = 1 << (28 if bench.on_gpu else 25)
    copy = jax.jit(lambda x: x + 1)
    seconds = bench.time(copy, jnp.zeros(size // 4, jnp.float32)).wall
    bench.report("copy_bytes_per_s", 2 * size / seconds, "B/s", bytes=size)
    bench.machine["copy_bytes_per_s"] = 2 * size / seconds
    rows, precision, widths = 7500, devices.precision("auto"), (NUM_OBS, 256, 256, NUM_ACTIONS + 1)
    weights = [jnp.zeros((out, width)) for width, out in itertools.pairwise(widths)]
    multiply = jax.jit(lambda x, ws: reduce(partial(nn.product, precision=precision), ws, x))
    seconds = bench.time(multiply, jnp.zeros((rows, NUM_OBS)), weights).wall
    flops, shape = 2 * rows * sum(w.size for w in weights), " x ".join(map(str, (rows, *widths)))
    bench.report("matmul_flops_per_s", flops / seconds, "1/s", shape=shape, precision=precision)
    bench.machine["matmul_flops_per_s"] = flops / seconds
    bench.report("launch_s", bench.time(copy, jnp.zeros(1)).wall, "s", program="one kernel")


_REFERENCE = """
import sys, time
sys.path.insert(0, {path!r})
from CybORG import CybORG
from CybORG.Simulator.Scenarios import EnterpriseScenarioGenerator
from CybORG.Agents import SleepAgent, EnterpriseGreenAgent, FiniteStateRedAgent
from CybORG.Agents.Wrappers import BlueFlatWrapper
generator = EnterpriseScenarioGenerator(
    blue_agent_class=SleepAgent, green_agent_class=EnterpriseGreenAgent, red_agent_class=FiniteStateRedAgent, steps=500
)
env = BlueFlatWrapper(CybORG(generator, "sim", seed=0), pad_spaces=True)
env.reset()
began = time.perf_counter()
for _ in range(200):
    env.step({{}})
print(200 / (time.perf_counter() - began))
"""


def reference(bench: Bench, cyborg: Path | None, python: str) -> None:
    """Measure CybORG's steps per second with sleeping blue agents in one process. Raises UserError if it cannot run."""
    if cyborg is None:
        return
    command = [python, "-c", _REFERENCE.format(path=str(cyborg))]
    with user_file(Path(python)):
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"CybORG at {cyborg} does not run with {python}: {last}")
    bench.report("reference_steps_per_s", float(done.stdout.split()[-1]), "1/s", batch=1, actions="sleep")
