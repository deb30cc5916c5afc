"""How fast it is, and how fast it could be: `purecc4 bench`.

Prints one JSON line per figure, `{"figure", "value", "unit", "settings"}`, and a table at the end. Rates are the best
of several repetitions, as anything else on the machine only makes them worse; compile times are of one compilation
without a compile cache. Close other programs, and compare ratios of one run rather than rates of two.
"""

import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from algos import ippo
from envs import cc4
from envs.cc4.constants import NUM_ACTIONS, NUM_BLUE, NUM_OBS
from envs.cc4.draws import place
from purecc4.errors import UserError
from purecc4.play import episodes, policies
from purecc4.sampling import sample
from purecc4.train import devices


@dataclass(frozen=True)
class Config:
    """Time the simulator, training and evaluation on this machine."""

    quick: bool = False
    """Each figure at its smallest size (flag)."""
    figures: tuple[str, ...] = ()
    """Only figures whose name starts with one of these (names; default: all)."""
    repeats: int = 5
    """Repetitions of which the best counts (number)."""
    cyborg: Path | None = None
    """A checkout of the reference simulator to time beside ours (a folder)."""
    cyborg_python: str = "python3"
    """The interpreter that can import it (a command)."""

    @property
    def on_gpu(self) -> bool:
        return jax.default_backend() != "cpu"

    @property
    def num_devices(self) -> int:
        """Devices to share environments between; a core counts as one."""
        return jax.device_count() if self.on_gpu else os.cpu_count() or 1

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes of the simulator (envs)."""
        if self.quick:
            return (48,)
        return (1, 48, 144, 1024, 4096, 16384) if self.on_gpu else (1, 48, 144, 1024)

    @property
    def run_counts(self) -> tuple[int, ...]:
        """Numbers of runs to train at once (runs)."""
        if self.quick:
            return (1,)
        return (1, 3, 27) if self.on_gpu else (1, 3)


class Bench:
    """Prints figures as they come and keeps them for the table."""

    def __init__(self, config: Config):
        self.config, self.lines = config, []
        self.machine: dict[str, float] = {}
        """Figures of `roofline`, if they were measured."""

    def wants(self, *figures: str) -> bool:
        """Whether any of these figures is asked for."""
        return not self.config.figures or any(
            figure.startswith(wanted) for figure in figures for wanted in self.config.figures
        )

    def report(self, figure: str, value: float, unit: str, **settings: Any) -> None:
        """One figure."""
        value = float(f"{value:.4g}")
        self.lines.append((figure, value, unit, settings))
        print(json.dumps({"figure": figure, "value": value, "unit": unit, "settings": settings}), flush=True)

    def best_seconds(self, program: Callable, *args: Any) -> float:
        """The shortest of the repetitions, after one that does not count."""
        jax.block_until_ready(program(*args))
        return min(self._seconds(program, args) for _ in range(1 if self.config.quick else self.config.repeats))

    @staticmethod
    def _seconds(program: Callable, args: tuple) -> float:
        began = time.perf_counter()
        jax.block_until_ready(program(*args))
        return time.perf_counter() - began

    def compile(self, what: str, function: Callable, *args: Any, **settings: Any) -> jax.stages.Compiled:
        """Compile into an empty cache and out of it, and report both times, tracing included."""
        with tempfile.TemporaryDirectory() as folder, _cache_in(folder):
            for cache in ("cold", "warm"):
                jax.clear_caches()
                began = time.perf_counter()
                compiled = jax.jit(function).lower(*args).compile()
                self.report("compile_s", time.perf_counter() - began, "s", what=what, cache=cache, **settings)
        return compiled

    def report_share(self, figure: str, rate: float, limit: str, **settings: Any) -> None:
        """How much of what the machine can do a rate is; nothing if that was not measured."""
        if limit in self.machine:
            self.report(figure, rate / self.machine[limit], "ratio", of=limit, **settings)

    def table(self) -> str:
        """All figures, aligned."""
        rows = [("figure", "value", "unit", "settings")]
        rows += [(f, f"{v:,.6g}", u, ", ".join(f"{k}={x}" for k, x in s.items())) for f, v, u, s in self.lines]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(f"{f:<{widths[0]}}  {v:>{widths[1]}}  {u:<{widths[2]}}  {s}" for f, v, u, s in rows)


@contextlib.contextmanager
def _cache_in(folder: str) -> Iterator[None]:
    """Keep compiled programs there, and no longer."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def steps_of(batch: int, num_steps: int, policy: policies.Policy | None, params: cc4.Params, key) -> PyTree:
    """Play some steps in many environments, with uniform legal actions or a policy.

    Returns sums of rewards and observations of each step, so that nothing of a step is left out.
    """
    key_reset, key_steps, key_act = jax.random.split(key, 3)
    obs, state = jax.vmap(cc4.reset, (0, None))(jax.random.split(key_reset, batch), params)
    keys = jax.random.split(key_steps, (num_steps, batch))
    stops = jnp.cumsum(obs.mask, axis=-1)

    def choose(vector, stops, mask, u):
        if policy is None:
            return (stops <= place(u, stops[:, -1])[:, None]).sum(axis=1)
        return policies.act(policy, (), vector, mask, u)[1]

    def step(carry, chance):
        vector, state = carry
        keys, u = chance
        actions = jax.vmap(choose)(vector, stops, obs.mask, u)
        obs_after, state, reward, _, _ = jax.vmap(cc4.step, (0, 0, 0, None))(keys, state, actions, params)
        return (obs_after.vector, state), (reward.sum(), obs_after.vector.sum(dtype=jnp.int32))

    u = jax.random.uniform(key_act, (num_steps, batch, NUM_BLUE))
    return jax.lax.scan(step, (obs.vector, state), (keys, u))[1]


def env_rates(bench: Bench) -> None:
    """Steps per second of the simulator over batch sizes."""
    params, key = cc4.make_params("fsm"), jax.random.key(0)
    network = ippo.ActorCritic(key, NUM_OBS, NUM_ACTIONS, ippo.Config().hidden, devices.precision("auto"))
    trained = policies.Policy(network, jnp.float32(1))
    for name, policy in (("random", None), ("policy", trained)):
        for batch in bench.config.batches if name == "random" else bench.config.batches[-2:]:
            num_steps = max(20, 20_000 // batch) if not bench.config.on_gpu else 100
            share = min(batch, bench.config.num_devices)
            program = on_devices(share, partial(steps_of, batch // share, num_steps, policy, params))
            seconds = bench.best_seconds(program, jax.random.split(key, share))
            rate = batch * num_steps / seconds
            bench.report("env_steps_per_s", rate, "1/s", batch=batch, actions=name, steps=num_steps)
            _, state = jax.eval_shape(cc4.reset, key, params)
            moved = 2 * bytes_of(state) * rate
            bench.report_share("state_traffic", moved, "copy_bytes_per_s", batch=batch, actions=name)


def on_devices(count: int, function: Callable) -> Callable:
    """A function of one key for a key on each of some devices."""
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
    """Compile times, and what one step and its state are made of."""
    params, key = cc4.make_params("fsm"), jax.random.key(0)
    _, state = jax.eval_shape(cc4.reset, key, params)
    bench.report("state_bytes", bytes_of(state), "bytes/env")
    bench.compile("reset", cc4.reset, key, params)
    step = bench.compile("step", cc4.step, key, state, jnp.zeros(NUM_BLUE, jnp.int32), params)
    text = step.as_text()
    bench.report("hlo_instructions", len(re.findall(r"^\s+(?:ROOT )?%?[\w.-]+ = ", text, re.M)), "1", program="step")
    bench.report("hlo_fusions", len(re.findall(r" fusion\(", text)), "1", program="step")
    if bench.config.on_gpu:
        entry = text[text.index("\nENTRY") :]
        launched = re.findall(r" (?:fusion|custom-call|copy|sort|reduce|scatter|while)\(", entry)
        bench.report("kernels", len(launched), "1/step", program="step of one env")


def bytes_of(tree: PyTree) -> int:
    """Size of arrays or of their shapes."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


class Training:
    """The training program of some runs of arm C11, as `algos/ippo.py` compiles it."""

    def __init__(self, num_runs: int):
        self.config = ippo.Config(seeds=tuple(range(num_runs)))
        self.env = ippo.make_env(self.config)
        on_cpu = jax.default_backend() == "cpu"
        self.sharding = devices.run_sharding(devices.runs_at_a_time(num_runs) if on_cpu else None)
        arm, runner = ippo.make_train(self.config, self.env).start()
        self.arm, self.runner = devices.shard_runs(arm, self.sharding), devices.shard_runs(runner, self.sharding)
        self.steps = num_runs * self.config.steps_per_update

    def over_runs(self, function: Callable) -> Callable:
        """A function of one run for all of them."""
        return ippo.over_runs(function, self.sharding)


def learning(bench: Bench) -> None:
    """Training steps per second, and where the time of an update goes."""
    for num_runs in bench.config.run_counts:
        setup = Training(num_runs)
        program = setup.over_runs(partial(ippo.update, setup.config, setup.env))
        update = bench.compile("training update", program, setup.arm, setup.runner, runs=num_runs)
        seconds = bench.best_seconds(update, setup.arm, setup.runner)
        bench.report("train_steps_per_s", setup.steps / seconds, "1/s", runs=num_runs, arm="C11")
        bench.report("update_s", seconds, "s", part="all", runs=num_runs)
        parts_of_update(bench, setup, num_runs, seconds)


def parts_of_update(bench: Bench, setup: Training, num_runs: int, whole: float) -> None:
    """Seconds of the parts of an update, each as a program of its own."""
    config, env = setup.config, setup.env
    key = jax.random.key(0)

    def rollout(arm, runner):
        return ippo.rollout(config, env, runner.network, arm, key)

    def prepare(traj, runner):
        _, reward = ippo.normalise(runner.reward_stats, traj.reward, config.gamma, config.reward_clip)
        return ippo.gae(jnp.broadcast_to(reward[..., None], traj.value.shape), traj.value, config.gamma, 0.95)

    def learn(runner, traj, mask, advantage):
        columns = traj.vector, traj.action, traj.log_prob, advantage, advantage + traj.value
        samples = ippo.Batch(*(x.reshape(traj.action.size, *x.shape[3:]) for x in columns))
        return ippo.learn(config, runner, samples, mask.reshape(-1, mask.shape[-1]), key)

    play = jax.jit(setup.over_runs(rollout))
    seconds = {"rollout": bench.best_seconds(play, setup.arm, setup.runner)}
    traj, mask = play(setup.arm, setup.runner)
    bench.report("trajectory_bytes", bytes_of(traj) / len(traj.action), "bytes/run", runs=num_runs)
    steps = jax.jit(setup.over_runs(partial(env_alone, config, env, key)))
    seconds["step"] = bench.best_seconds(steps, setup.arm, traj)
    policy = jax.jit(setup.over_runs(partial(policy_alone, key)))
    seconds["policy"] = bench.best_seconds(policy, setup.runner, traj, mask)
    estimate = jax.jit(setup.over_runs(prepare))
    seconds["advantages"] = bench.best_seconds(estimate, traj, setup.runner)
    advantage = estimate(traj, setup.runner)
    fit = jax.jit(setup.over_runs(learn))
    seconds["minibatches"] = bench.best_seconds(fit, setup.runner, traj, mask, advantage)
    for part, value in seconds.items():
        bench.report("update_s", value, "s", part=part, runs=num_runs)
    bench.report("update_to_minibatches", whole / seconds["minibatches"], "ratio", runs=num_runs)
    samples = num_runs * config.steps_per_update * NUM_BLUE * config.update_epochs
    rate = samples * flops_per_sample(setup.runner.network) / seconds["minibatches"]
    bench.report_share("minibatch_arithmetic", rate, "matmul_flops_per_s", runs=num_runs)


def flops_per_sample(networks: ippo.ActorCritic) -> float:
    """Of matrix products, forward and backward; the observation needs no gradient."""
    weights = sum(x[0].size for x in jax.tree.leaves(networks) if x.ndim == 3)
    return 6 * weights - 2 * networks.first.weight[0].size


def env_alone(config: ippo.Config, env: ippo.Env, key: jax.Array, arm: PyTree, traj: ippo.Transition) -> PyTree:
    """The episodes of a rollout with its actions given."""
    key_reset, key_env = jax.random.split(key)
    _, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), arm)

    def step(state, now):
        obs, state, reward, parts = jax.vmap(env.step)(now[0], state, now[1].astype(jnp.int32))
        return state, (obs.vector, reward, parts)

    keys = jax.random.split(key_env, (config.num_steps, config.num_envs))
    return jax.lax.scan(step, state, (keys, traj.action))[1]


def policy_alone(key: jax.Array, runner: ippo.Runner, traj: ippo.Transition, mask: jax.Array) -> PyTree:
    """The decisions of a rollout with its observations given."""
    rows = traj.vector.reshape(len(traj.vector), -1, traj.vector.shape[-1])
    mask = mask.reshape(-1, mask.shape[-1])

    def step(_, now):
        logits, value = runner.network(now[0], mask)
        return None, (sample(logits, now[1]), value)

    return jax.lax.scan(step, None, (rows, jax.random.uniform(key, rows.shape[:2])))[1]


def evaluation(bench: Bench) -> None:
    """Steps per second of evaluating a network against four reds at once."""
    reds, num_episodes = ("fsm", "cia_c", "cia_i", "cia_a"), 4 if bench.config.quick else 90
    network = ippo.ActorCritic(jax.random.key(0), NUM_OBS, NUM_ACTIONS, ippo.Config().hidden, devices.precision("auto"))
    policy, params = policies.Policy(network, jnp.float32(1)), episodes.stack_params(reds, 500)
    seed, numbers = jnp.uint32(1000), jnp.arange(num_episodes)
    seconds = replace_repeats(bench, 1).best_seconds(episodes.build(500), policy, params, seed, numbers)
    steps = len(reds) * num_episodes * 500
    bench.report("evaluation_steps_per_s", steps / seconds, "1/s", reds=len(reds), episodes=num_episodes)


def replace_repeats(bench: Bench, repeats: int) -> Bench:
    """A bench that repeats less often."""
    return Bench(replace(bench.config, repeats=repeats))


def roofline(bench: Bench) -> None:
    """What the machine can do: copying, multiplying, starting a program."""
    size = 1 << (28 if bench.config.on_gpu else 25)
    copy = jax.jit(lambda x: x + 1)
    seconds = bench.best_seconds(copy, jnp.zeros(size // 4, jnp.float32))
    bench.report("copy_bytes_per_s", 2 * size / seconds, "B/s", bytes=size)
    bench.machine["copy_bytes_per_s"] = 2 * size / seconds
    rows = 7500
    weights = [jnp.zeros((NUM_OBS, 256)), jnp.zeros((256, 256)), jnp.zeros((256, NUM_ACTIONS + 1))]
    multiply = jax.jit(lambda x, ws: ((x @ ws[0]) @ ws[1]) @ ws[2])
    seconds = bench.best_seconds(multiply, jnp.zeros((rows, NUM_OBS)), weights)
    flops = 2 * rows * sum(w.size for w in weights)
    bench.report("matmul_flops_per_s", flops / seconds, "1/s", shape=f"{rows} x 210 x 256 x 256 x 243")
    bench.machine["matmul_flops_per_s"] = flops / seconds
    seconds = bench.best_seconds(copy, jnp.zeros(1))
    bench.report("launch_s", seconds, "s", program="one kernel")


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


def reference(bench: Bench) -> None:
    """Steps per second of the reference simulator, sleeping, in one process. Raises UserError if it cannot run."""
    path = bench.config.cyborg
    if path is None:
        return
    command = [bench.config.cyborg_python, "-c", _REFERENCE.format(path=str(path))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"the reference simulator at {path} does not run with {command[0]}: {last}")
    bench.report("reference_steps_per_s", float(done.stdout.split()[-1]), "1/s", batch=1, actions="sleep")


PARTS = {
    roofline: ("copy_bytes_per_s", "matmul_flops_per_s", "launch_s", "state_traffic", "minibatch_arithmetic"),
    program_sizes: ("state_bytes", "compile_s", "hlo_instructions", "hlo_fusions", "kernels"),
    env_rates: ("env_steps_per_s", "state_traffic"),
    learning: (
        *("compile_s", "train_steps_per_s", "update_s", "trajectory_bytes", "update_to_minibatches"),
        "minibatch_arithmetic",
    ),
    evaluation: ("evaluation_steps_per_s",),
    reference: ("reference_steps_per_s",),
}


def run(config: Config) -> None:
    """Measure and print."""
    devices.use_cores(max(os.cpu_count() or 1, 3))
    bench = Bench(config)
    device = jax.devices()[0]
    print(json.dumps({"device": device.device_kind, "devices": jax.device_count(), "jax": jax.__version__}))
    for part, figures in PARTS.items():
        if bench.wants(*figures):
            part(bench)
    print(bench.table())
