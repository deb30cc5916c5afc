"""Around an algorithm: the settings that all share, the game that is trained in, files, devices, the loop that watches.

Nothing here changes what is learned. A file of `algos/` brings what does, as an `Algorithm`, and ends with `main`.
"""

import csv
import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import NamedSharding
from jaxtyping import PyTree
from tqdm import tqdm

from envs import cc4
from purecc4 import arms, command
from purecc4.errors import UserError, user_file, user_values
from purecc4.train import checkpoint, devices, metrics
from purecc4.train import track as tracking
from purecc4.train.folder import FREE_TO_CHANGE, METRICS_CSV, PARTS, read_config

LOGS = (
    *("return", *PARTS, "value_loss", "policy_loss", "loss", "entropy", "approx_kl", "clipfrac"),
    *("explained_variance", "grad_norm", "reward_scale", "learning_rate"),
)
"""What an update logs, in the order of the columns of metrics.csv; algos/README.md says what each is."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every algorithm can be told on its command line."""

    arm: tuple[str, ...] = ("C11",)
    """Arms to train, any number of them (names; `purecc4 arms` lists them)."""
    seeds: tuple[int, ...] = (42, 142, 242)
    """Seeds to train each arm with; equal seeds of different arms share their random numbers (integers)."""
    total_timesteps: int = 10_000_000
    """Length of each run (env steps; one step moves all five agents). Rounded down to whole updates."""
    name: str | None = None
    """Folder under runs/ for the results (a name; default: the arms joined by '-')."""
    resume: bool = False
    """Go on from the last saved state of the run folder; its settings are taken over (flag)."""
    checkpoint_every: int = 50
    """Distance of the checkpoints (updates; one more is written at the end)."""
    updates_per_call: int = 1
    """Updates in one call of the compiled program, between two looks at the progress; changes no result (updates)."""
    track: tracking.Service | None = None
    """Send the metrics there when training is done, one run per arm and seed (word)."""
    distributed: bool = False
    """Share the runs with the other processes of this job, each started with the same command (flag)."""
    num_envs: int = 48
    """Environments of each run (envs)."""
    num_steps: int = 500
    """Length of an episode and of a rollout (env steps)."""
    precision: devices.Precision = "auto"
    """Of the factors of matrix products; sums and all else are float32 (auto: bfloat16 where the machine has it)."""

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        return self.total_timesteps // self.steps_per_update

    @property
    def folder(self) -> Path:
        return Path("runs") / (self.name or "-".join(self.arm))

    @property
    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed) of each run, all seeds of the first arm first."""
        return [(arm, seed) for arm in self.arm for seed in self.seeds]

    def check(self) -> None:
        """Raises UserError, with one sentence, for settings that make no sense."""
        for field in dataclasses.fields(self):
            if field.type is int and getattr(self, field.name) < 1:
                raise UserError(f"{field.name} must be at least 1.")
        if not self.num_updates:
            raise UserError(f"total_timesteps must be at least {self.steps_per_update}, the env steps of one update.")
        for name, values in (("arm", self.arm), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise UserError(f"{name} needs one or more values, each once.")
        if not all(0 <= seed < 2**32 for seed in self.seeds):
            raise UserError("seeds must be from 0 to 4294967295.")
        if self.folder.parent != Path("runs"):
            raise UserError(f"name must be the name of a folder, without a path: {self.folder.name!r}.")


class Env(NamedTuple):
    """What an algorithm needs to know of an environment, each function for one environment."""

    reset: Callable[..., Any]
    """(key, arm) -> (observation with .vector [blue obs] and .mask [blue action], state)"""
    step: Callable[..., Any]
    """(key, state, actions [blue]) -> (observation, state, reward, {part of the reward: its value})"""


class Algorithm(NamedTuple):
    """What a file of `algos/` offers, all for one run (one arm with one seed)."""

    name: str
    """Of the file, without its ending. Its class `ActorCritic` is the network; see `policies` for what that can do."""
    config: type[Settings]
    """Settings, with a docstring for each."""
    init: Callable[..., Any]
    """(config, observation of `Env`, of which only the shapes count, seed []) -> runner before its first update, which
    has .network, .seed and .update (updates done)."""
    update: Callable[..., Any]
    """(config, env, arm, runner) -> (runner, {one of LOGS: its value []}); if loss or grad_norm is not finite, the
    runner as it was."""


def main(algorithm: Algorithm) -> None:
    """Command line of an algorithm."""
    command.run(f"{algorithm.name}.py", partial(run, algorithm))


def run(algorithm: Algorithm) -> None:
    """Train as the command line says."""
    devices.use_compile_cache()
    config = parse(algorithm, sys.argv[1:])
    if config.distributed:
        devices.join_job()
    else:
        devices.use_cores(len(config.runs))
    config = dataclasses.replace(config, precision=devices.precision(config.precision))
    with user_values():
        env = cc4_env(config.num_steps)
    train(algorithm, config, env, arms.build(config.arm))


def cc4_env(num_steps: int) -> Env:
    """CAGE Challenge 4 against the finite state red, episodes drawn by the arm."""
    params = cc4.make_params("fsm", num_steps=num_steps)

    def step(key, state, action):
        obs, state, reward, _, info = cc4.step(key, state, action, params)
        return obs, state, reward, {part: getattr(info.rewards, part) for part in PARTS}

    return Env(lambda key, arm: cc4.start(arms.sample(key, arm, params)), step)


def parse(algorithm: Algorithm, args: list[str]) -> Settings:
    """Settings from the command line; with --resume, what the run was started with fills the gaps.

    Raises UserError, with one sentence, for settings that make no sense or that a resumed run cannot change.
    """
    config = tyro.cli(algorithm.config, args=args)
    if config.resume:
        saved = saved_config(algorithm, config.folder)
        default = dataclasses.replace(saved, name=config.name, resume=True)
        config = tyro.cli(algorithm.config, args=args, default=default)
        for field in dataclasses.fields(config):
            now, then = getattr(config, field.name), getattr(saved, field.name)
            if field.name not in FREE_TO_CHANGE and now != then:
                raise UserError(f"{config.folder} was started with {field.name} = {then}; leave it out to resume.")
    config.check()
    return config


def saved_config(algorithm: Algorithm, folder: Path) -> Settings:
    """Settings that a run folder was started with. UserError if it is none of this algorithm and version."""
    if not (folder / checkpoint.CONFIG).exists():
        raise UserError(f"there is nothing to resume in {folder}: start it without --resume.")
    started, fields = read_config(folder)
    same = set(fields) == {field.name for field in dataclasses.fields(algorithm.config)}
    if started != algorithm.name or not same:
        raise UserError(f"{folder} was started by {started}.py, maybe of another version, which alone can resume it.")
    return algorithm.config(**{name: tuple(x) if isinstance(x, list) else x for name, x in fields.items()})


def train(algorithm: Algorithm, config: Settings, env: Env, arm: PyTree) -> None:
    """Train all runs, with the arms stacked in `arm`, and leave everything in the run folder.

    Raises UserError if the folder is taken, the runs do not fit in memory, a loss is not finite, or the library to
    track with is not installed.
    """
    if config.track:
        tracking.find(config.track)
    claim_folder(config)
    say(
        f"{jax.default_backend().upper()}, {len(jax.devices())} device(s): {len(config.runs)} runs of "
        f"{config.num_updates} updates, {config.steps_per_update:,} env steps each."
    )
    if jax.default_backend() == "cpu":
        say("*** NO GPU: training on the CPU, which is slow. How long it will take is said after one update. ***")
    arm = jax.tree.map(lambda x: jnp.repeat(x, len(config.seeds), 0), arm)
    runner = start(algorithm, config, env, arm)
    sharding = devices.run_sharding()
    arm, runner = devices.spread(arm, sharding), devices.spread(runner, sharding)
    with Stop() as stop:
        done = loop(algorithm, config, env, sharding, arm, runner, stop)
    if done < config.num_updates:
        say(f"Stopped and saved. Go on with:  python {sys.argv[0]} --resume --name {config.folder.name}")
    elif devices.leads():
        print_summary(config)
        if config.track:
            tracking.send(config.folder, config.track)


def say(text: str) -> None:
    """Print a line, once in the whole job."""
    if devices.leads():
        tqdm.write(text)


def claim_folder(config: Settings) -> None:
    """Make the run folder. UserError if there is something in it already or it cannot be made."""
    if not devices.leads():
        return
    if not config.resume and config.folder.exists() and any(config.folder.iterdir()):
        raise UserError(f"{config.folder} exists already: choose another --name, or go on with it by --resume.")
    with user_file(config.folder):
        config.folder.mkdir(parents=True, exist_ok=True)


def start(algorithm: Algorithm, config: Settings, env: Env, arm: PyTree) -> Any:
    """All runs before their first update or, with `resume`, as they were saved last."""
    one = jax.tree.map(lambda x: x[0], arm)
    obs, _ = jax.eval_shape(env.reset, jax.random.key(0), one)
    seeds = jnp.array([seed for _, seed in config.runs], jnp.uint32)
    runner = jax.jit(partial(jax.lax.map, partial(algorithm.init, config, obs)))(seeds)
    return checkpoint.load(config.folder / checkpoint.STATE, runner) if config.resume else runner


def several(algorithm: Algorithm, config: Settings, env: Env, num_updates: int) -> Callable[..., Any]:
    """(arm, runner) -> (runner, logs [update]): several updates of one run."""

    def updates(arm, runner):
        return jax.lax.scan(lambda runner, _: algorithm.update(config, env, arm, runner), runner, length=num_updates)

    return updates


def loop(
    algorithm: Algorithm, config: Settings, env: Env, sharding: NamedSharding, arm: PyTree, runner: Any, stop: "Stop"
) -> int:
    """Update until all is done or a stop is asked for; show, log and save. Returns the updates done."""
    programs, stopping = {}, False
    began = done = updates_done(runner)
    bar = tqdm(total=config.num_updates, initial=began, unit="update", dynamic_ncols=True, disable=not devices.leads())
    with bar:
        while done < config.num_updates and not stopping:
            to_save = config.checkpoint_every - done % config.checkpoint_every
            count = min(config.updates_per_call, to_save, config.num_updates - done)
            if count not in programs:
                compiled = compile_updates(algorithm, config, env, sharding, arm, runner, count)
                if not programs:
                    open_folder(algorithm, config, runner)
                programs[count] = compiled
                bar.unpause()
            runner, logs, seconds = call(config, programs[count], arm, runner)
            if done == began and jax.default_backend() == "cpu":
                hours = seconds / count * (config.num_updates - done) / 3600
                say(f"*** ON THE CPU this takes about {hours:.2f} hours. ***")
            write_metrics(config, done, logs, seconds)
            refuse_non_finite(algorithm, config, done, logs, runner)
            done += count
            bar.set_postfix_str(progress(config, logs, seconds), refresh=False)
            bar.update(count)
            stopping = devices.anywhere(stop.asked)
            if done % config.checkpoint_every == 0 or done == config.num_updates or stopping:
                save(algorithm, config, runner)
    return done


def updates_done(runner: Any) -> int:
    """How many updates the runs have behind them, all as many."""
    return int(devices.gather(runner.update)[0])


def compile_updates(
    algorithm: Algorithm, config: Settings, env: Env, sharding: NamedSharding, arm: PyTree, runner: Any, count: int
) -> jax.stages.Compiled:
    """The compiled program (arm, runner) -> (runner, logs) of several updates of all runs; the runner is donated.

    Raises UserError if it does not fit in memory.
    """
    began = time.perf_counter()
    program = devices.over_runs(several(algorithm, config, env, count), sharding)
    compiled = jax.jit(program, donate_argnums=1).lower(arm, runner).compile()
    say(f"Compiled {count} update(s) per call in {time.perf_counter() - began:.1f} s.")
    needed, available = devices.bytes_needed(compiled), devices.bytes_available()
    if needed > available:
        runs = len(runner.update) // sharding.num_devices
        most = available * runs // needed * sharding.num_devices
        raise UserError(
            f"{len(config.runs)} runs need {needed / 1e9:.1f} GB on each device, {available / 1e9:.1f} GB are free: "
            f"at most {most} runs fit at once."
        )
    return compiled


def call(
    config: Settings, program: jax.stages.Compiled, arm: PyTree, runner: Any
) -> tuple[Any, dict[str, np.ndarray], float]:
    """Run a compiled program. Returns the runner, the logs [run, update] of the runs asked for, and seconds."""
    began = time.perf_counter()
    runner, logs = program(arm, runner)
    logs = {name: x[: len(config.runs)] for name, x in devices.gather(logs).items()}
    return runner, logs, time.perf_counter() - began


def open_folder(algorithm: Algorithm, config: Settings, runner: Any) -> None:
    """Write the settings and the state that training starts from; drop the metrics beyond it."""
    versions = {package: version(package) for package in ("jax", "equinox", "optax", "distrax", "purecc4")}
    content = {
        "algorithm": algorithm.name,
        "written": sys.argv,
        "resolved": dataclasses.asdict(config) | {"name": config.folder.name, "resume": False},
        "derived": {
            "num_updates": config.num_updates,
            "steps_per_update": config.steps_per_update,
            "runs": config.runs,
        },
        "where": {"backend": jax.default_backend(), "devices": list(map(str, jax.devices())), "versions": versions},
    }
    done = updates_done(runner)
    if devices.leads():
        checkpoint.write_json(config.folder / checkpoint.CONFIG, content)
        metrics.drop_after(config.folder / METRICS_CSV, done)
    save_state(config, runner)


def write_metrics(config: Settings, done: int, logs: dict[str, np.ndarray], seconds: float) -> None:
    """Append a row per run and update."""
    if not devices.leads():
        return
    num_updates = len(next(iter(logs.values()))[0])
    sps = len(config.runs) * num_updates * config.steps_per_update / seconds
    rows = []
    for i in range(num_updates):
        for run, (arm, seed) in enumerate(config.runs):
            update = done + i + 1
            place = {"arm": arm, "seed": seed, "update": update, "env_steps": update * config.steps_per_update}
            values = {name: float(f"{logs[name][run, i]:.7g}") for name in LOGS}
            rows.append(place | values | {"sps": sps})
    metrics.append(config.folder / METRICS_CSV, rows)


def refuse_non_finite(
    algorithm: Algorithm, config: Settings, done: int, logs: dict[str, np.ndarray], runner: Any
) -> None:
    """If a loss or gradient is not finite, save the networks from before and raise UserError."""
    bad = ~np.isfinite(logs["loss"] + logs["grad_norm"])
    if not bad.any():
        return
    run, at = np.argwhere(bad)[np.argmin(np.argwhere(bad)[:, 1])]
    save_networks(algorithm, config, runner)
    arm, seed = config.runs[run]
    raise UserError(
        f"the loss of arm {arm} with seed {seed} is not finite in update {done + at + 1}: training has stopped, "
        f"the last good networks are in {config.folder / 'checkpoints'}; try a smaller --learning-rate."
    )


def progress(config: Settings, logs: dict[str, np.ndarray], seconds: float) -> str:
    """Steps per second over all runs, and the mean return of each arm, bank multipliers included."""
    steps = logs["return"].size * config.steps_per_update / seconds
    returns = logs["return"][:, -1].reshape(len(config.arm), -1).mean(1)
    return ", ".join([f"{steps:,.0f} steps/s", *(f"{arm} {x:.0f}" for arm, x in zip(config.arm, returns, strict=True))])


def save(algorithm: Algorithm, config: Settings, runner: Any) -> None:
    """Write the checkpoints and what `resume` needs."""
    save_networks(algorithm, config, runner)
    save_state(config, runner)


def save_networks(algorithm: Algorithm, config: Settings, runner: Any) -> None:
    """Write the network of each run, loadable alone by `play.policies.load_network`."""
    networks, updates = devices.gather((runner.network, runner.update))
    if not devices.leads():
        return
    for run, (arm, seed) in enumerate(config.runs):
        network = jax.tree.map(lambda x, run=run: x[run], networks)
        env_steps = int(updates[run]) * config.steps_per_update
        about = {"algorithm": algorithm.name, "arm": arm, "seed": seed, "env_steps": env_steps}
        about |= {"num_steps": config.num_steps, "network": network.sizes}
        checkpoint.save(checkpoint.path_of(config.folder, arm, seed, env_steps), network, about)


def save_state(config: Settings, runner: Any) -> None:
    """Write what `resume` needs, without the runs that only fill the devices."""
    runner = jax.tree.map(lambda x: x[: len(config.runs)], devices.gather(runner))
    if devices.leads():
        checkpoint.save(config.folder / checkpoint.STATE, runner, {"runs": config.runs})


class Stop:
    """`asked` becomes true at the first Ctrl-C or request to terminate; the second one is obeyed at once."""

    def __init__(self):
        self.asked = False

    def __enter__(self) -> "Stop":
        self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def ask(self, *_) -> None:
        """Handle a signal."""
        say("Stopping after this call of the program; once more to stop at once, without saving.")
        self.asked = True
        self.__exit__()


def print_summary(config: Settings) -> None:
    """A line per arm: mean over its seeds of the training episodes' return, first and last update, and its parts."""
    with (config.folder / METRICS_CSV).open(newline="") as file:
        rows = list(csv.DictReader(file))
    updates = "1", str(config.num_updates)
    print(f"{'arm':<14}{'update':>7}{'return':>10}" + "".join(f"{part.upper():>10}" for part in PARTS))
    for arm in config.arm:
        for update in updates:
            chosen = [row for row in rows if row["arm"] == arm and row["update"] == update]
            means = [np.mean([float(row[name]) for row in chosen]) for name in ("return", *PARTS)]
            print(f"{arm:<14}{update:>7}" + "".join(f"{x:>10.1f}" for x in means))
    print("Mean over seeds; returns contain the multipliers of the arm's banks, so compare arms by evaluation only.")
