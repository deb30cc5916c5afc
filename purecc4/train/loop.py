"""The training loop: calls the compiled program, logs, sends and saves. It does not affect what is learned.

An algorithm is one file, `algos/<name>.py`, that defines:

* `Config`, a frozen dataclass derived from `Settings`, with `algorithm = "<name>"` and at least `total_timesteps`,
  `num_envs` and `num_steps`;
* `ActorCritic`, an `eqx.Module` whose leaves are arrays. `evaluate` and `watch` play it by `initial_carry(num_agents)`,
  `logits(carry, obs, mask)` and `update_carry(carry, action)`, which `purecc4.nn.MemorylessPolicy` supplies for
  networks without memory. `init_kwargs` are the arguments of `__init__` except the key; checkpoints keep them;
* `make_train(config, env=None)`, which returns an `Algorithm(init, update, env)` for one run: `init(seed)` gives a
  runner, with `network`, `seed` and `update`, the number of updates done; `update(arm, runner)` gives the next runner
  and the metrics of `run_writer.LOGS`; `env.arms` holds the arms on a leading axis. `make_train` makes the environment
  if none is given; `purecc4.train.runs.make_env(config)` is CC4;
* a last line, `command_line.main(Config, make_train)`.

`purecc4.play.policies.ALGORITHMS` lists the names.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from purecc4.train import devices, guards, progress, run_writer
from purecc4.train import track as tracking
from purecc4.train.runs import MakeTrain, Task, Training, map_over_runs
from purecc4.train.settings import Settings
from purecc4.train.stop import Stop


def train(config: Settings, make_train: MakeTrain, env: Any = None) -> None:
    """Train all runs and leave everything in the run folder; `env` replaces CC4.

    Raises UserError if the folder is taken or in use, the runs do not fit in memory, what was learned is not finite, a
    table of the simulator overflows, a file cannot be written, or the library to track with is not installed. Raises
    Stopped, with all saved, after a signal, and OSError, with all saved, if the output fails.
    """
    if config.track:
        tracking.find(config.track)
    training = map_over_runs(config, make_train, env)
    with run_writer.claim(config):
        progress.announce(config)
        guards.refuse_huge(training.start)
        task, runner = training.start()
        if config.resume:
            runner = run_writer.load_state(config, runner)
        service = config.track if devices.is_main_process() else None
        with Stop() as stop, tracking.live(config.folder, service) as send:
            done = loop(config, training, devices.shard_runs(task), devices.shard_runs(runner), stop, send)
        if done == config.num_updates and devices.is_main_process():
            progress.print_summary(config)
    if done < config.num_updates:
        with stop.printing():
            progress.print_once(
                f"Stopped and saved. Resume with:  python {sys.argv[0]} --resume --name {config.folder.name}"
            )
        stop.obey()


def loop(
    config: Settings, training: Training, task: Task, runner: Any, stop: Stop, send: Callable[[list[dict]], None]
) -> int:
    """Update until all is done or a stop is asked for; show, log, send and save. Returns the updates done."""
    programs, stopping = {}, False
    began = done = run_writer.updates_done(runner)
    with progress.Bar(config, done) as bar:
        while done < config.num_updates and not stopping:
            to_save = config.checkpoint_every - done % config.checkpoint_every
            count = min(config.updates_per_call, to_save, config.num_updates - done)
            if count not in programs:
                compiled = compile_updates(config, training, task, runner, count)
                if not programs:
                    run_writer.open_at(config, runner)
                programs[count] = compiled
            runner, logs, seconds = timed(config, programs[count], task, runner)
            if done == began:
                with stop.printing():
                    progress.announce_rest(seconds / count * (config.num_updates - done))
            with guards.last_good_state(config):
                rows = run_writer.write_metrics(config, done, logs, seconds)
            guards.refuse_non_finite(config, done + count, runner)
            guards.refuse_overflow(config, done, logs)
            send(rows)
            done += count
            with stop.printing():
                bar.advance(count, progress.status(config, logs, seconds))
            stopping = devices.anywhere(stop.asked)
            if done % config.checkpoint_every == 0 or done == config.num_updates or stopping:
                with guards.last_good_state(config):
                    run_writer.save(config, runner)
    return done


def compile_updates(
    config: Settings, training: Training, task: Task, runner: Any, num_updates: int
) -> jax.stages.Compiled:
    """The program (tasks, runners) -> (runners, logs) of some updates. UserError if it does not fit in memory."""
    began = time.perf_counter()
    progress.announce_compiling()
    compiled = training.train.lower(task, runner, num_updates).compile()
    progress.announce_compiled(num_updates, time.perf_counter() - began)
    guards.refuse_too_large(config, compiled, len(runner.update))
    return compiled


def timed(
    config: Settings, program: jax.stages.Compiled, task: Task, runner: Any
) -> tuple[Any, dict[str, np.ndarray], float]:
    """Run a compiled program. Returns the runners, the logs [run, update] of the runs asked for, and seconds."""
    began = time.perf_counter()
    runner, logs = program(task, runner)
    logs = {name: x[: len(config.runs)] for name, x in devices.gather(logs).items()}
    return runner, logs, time.perf_counter() - began
