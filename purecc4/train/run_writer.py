"""Writing a run folder during training: settings, metrics, networks, and the state to resume from.

All processes of a job call these functions together; only the main one writes.
"""

import dataclasses
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from purecc4 import files
from purecc4.errors import UserError, user_file
from purecc4.train import checkpoint, definitions, devices, metrics
from purecc4.train.run_reader import ID_DIGITS, METRICS_CSV, REWARD_TERMS, VARIANTS, read_id
from purecc4.train.settings import Settings

LOGS = (
    *("return", *REWARD_TERMS, "value_loss", "policy_loss", "loss", "entropy", "approx_kl", "clipfrac"),
    *("explained_variance", "grad_norm", "reward_scale", "learning_rate", "overflow"),
)
"""Metrics of an update, in the order of the columns of metrics.csv; docs/cli.md explains each."""
BEFORE_STATE = (checkpoint.CONFIG, definitions.DEFINITIONS)
"""Files that are written before the first state."""
LIBRARIES = ("jax", "equinox", "optax", "distrax", "purecc4")


@contextmanager
def claim(config: Settings) -> Iterator[None]:
    """Create the run folder and hold its lock. A folder without a first state counts as not started.

    Raises UserError if another process holds the lock, or a new run finds other files in the folder.
    """
    if not devices.is_main_process():
        yield
        return
    if not (config.folder / checkpoint.STATE).exists():
        refuse_started(config)
    with files.locked(config.folder, "training"):
        refuse_started(config)
        yield


def refuse_started(config: Settings) -> None:
    """Raises UserError if the folder of a new run holds files other than those of a start without a state."""
    if not config.resume and left(config):
        raise UserError(f"{config.folder} exists already: choose another --name, or resume it with --resume.")


def left(config: Settings) -> list[str]:
    """Files in the run folder other than those of a start without a state."""
    with user_file(config.folder):
        there = [path.name for path in config.folder.iterdir()] if config.folder.exists() else []
    return [x for x in there if x not in BEFORE_STATE and not x.startswith(".") and not x.endswith(files.PART)]


def load_state(config: Settings, like: Any) -> Any:
    """Runners to resume from. Raises UserError if the file is damaged, of other runs, or past the requested end."""
    path = config.folder / checkpoint.STATE
    if not path.exists() and left(config):
        raise UserError(f"{config.folder} cannot be resumed: {path} is missing.")
    if not path.exists():
        raise UserError(f"there is nothing to resume in {config.folder}: start without --resume.")
    same_runs = checkpoint.read_about(path).get("runs") == [list(run) for run in config.runs]
    runner = checkpoint.load(path, like) if same_runs else like
    if not same_runs or not np.array_equal(runner.seed, like.seed):
        raise UserError(
            f"{path} holds other runs than {config.folder / checkpoint.CONFIG}: restore the original files."
        )
    done = int(np.max(runner.update))
    if np.min(runner.update) != done or done > config.num_updates:
        raise UserError(
            f"{config.folder} has trained for {done * config.steps_per_update} env steps, more than total_timesteps = "
            f"{config.total_timesteps}: increase it."
        )
    return runner


def open_at(config: Settings, runner: Any) -> None:
    """Write the settings and the initial state, and drop later metrics."""
    columns = ("arm", "seed", "update", "env_steps", *LOGS, "sps")
    content = {
        "id": read_id(config.folder) if config.resume else secrets.token_hex(ID_DIGITS // 2),
        "algorithm": config.algorithm,
        "written": sys.argv,
        "resolved": dataclasses.asdict(config) | {"name": config.folder.name, "resume": False, "define": None},
        "derived": {
            "num_updates": config.num_updates,
            "steps_per_update": config.steps_per_update,
            "runs": config.runs,
            **({VARIANTS: {variant.label: variant.about for variant in config.variants}} if config.swept else {}),
        },
        "where": {
            "backend": jax.default_backend(),
            "devices": list(map(str, jax.devices())),
            "versions": {library: version(library) for library in LIBRARIES},
        },
    }
    done = updates_done(runner)
    if devices.is_main_process():
        metrics.cut_after(config.folder / METRICS_CSV, done, config.runs, columns)
        definitions.keep(config.folder, definitions.trained(config.define, config.folder))
        files.write_json(config.folder / checkpoint.CONFIG, content)
    save_state(config, runner)


def updates_done(runner: Any) -> int:
    """Completed updates, the same number for all runs."""
    return int(devices.gather(runner.update)[0])


def write_metrics(
    config: Settings, done: int, logs: dict[str, np.ndarray], seconds: float
) -> list[dict[str, str | int | float]]:
    """Append a row per run and update, `done` being the number of earlier updates. Returns the rows.

    Other processes than the main one write and return nothing.
    """
    if not devices.is_main_process():
        return []
    num_updates = len(next(iter(logs.values()))[0])
    sps = len(config.runs) * num_updates * config.steps_per_update / seconds
    rows = []
    for i in range(num_updates):
        for run, (label, seed) in enumerate(config.runs):
            update = done + i + 1
            place = {"arm": label, "seed": seed, "update": update, "env_steps": update * config.steps_per_update}
            values = {name: float(f"{logs[name][run, i]:.7g}") for name in LOGS}
            rows.append(place | values | {"sps": sps})
    metrics.append(config.folder / METRICS_CSV, rows)
    return rows


def save(config: Settings, runner: Any) -> None:
    """Write the checkpoints and the state for --resume."""
    save_networks(config, runner)
    save_state(config, runner)


def save_networks(config: Settings, runner: Any) -> None:
    """Write the network of each run to a file of its own, which `play.policies.load_network` reads."""
    networks, updates = devices.gather((runner.network, runner.update))
    if not devices.is_main_process():
        return
    for run, (label, seed) in enumerate(config.runs):
        network = jax.tree.map(lambda x, run=run: x[run], networks)
        env_steps = int(updates[run]) * config.steps_per_update
        about = {"algorithm": config.algorithm, "arm": label, "seed": seed, "env_steps": env_steps}
        about |= {"num_steps": config.num_steps, "network": network.init_kwargs}
        checkpoint.save(checkpoint.path_of(config.folder, label, seed, env_steps), network, about)


def save_state(config: Settings, runner: Any) -> None:
    """Write the state for --resume, without the runs that pad the devices."""
    runner = jax.tree.map(lambda x: x[: len(config.runs)], devices.gather(runner))
    if devices.is_main_process():
        about = {"algorithm": config.algorithm, "update": int(runner.update[0]), "runs": config.runs}
        checkpoint.save(config.folder / checkpoint.STATE, runner, about)
