"""What a training writes into its run folder: settings, metrics, networks, and the state to resume from.

All processes of a job call these functions together; only the main one writes.
"""

import dataclasses
import sys
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from purecc4.errors import UserError, user_file
from purecc4.train import checkpoint, definitions, devices, metrics
from purecc4.train.folder import METRICS_CSV, PARTS
from purecc4.train.settings import Settings

LOGS = (
    *("return", *PARTS, "value_loss", "policy_loss", "loss", "entropy", "approx_kl", "clipfrac"),
    *("explained_variance", "grad_norm", "reward_scale", "learning_rate"),
)
"""What an update logs, in the order of the columns of metrics.csv; algos/README.md explains each."""
LIBRARIES = ("jax", "equinox", "optax", "distrax", "purecc4")


def claim(config: Settings) -> None:
    """Make the run folder. UserError if there is something in it already or it cannot be made."""
    if not devices.is_main_process():
        return
    if not config.resume and config.folder.exists() and any(config.folder.iterdir()):
        raise UserError(f"{config.folder} exists already: choose another --name, or go on with it by --resume.")
    with user_file(config.folder):
        config.folder.mkdir(parents=True, exist_ok=True)


def open_at(config: Settings, runner: Any) -> None:
    """Write the settings and the state that training starts from; drop the metrics beyond it."""
    content = {
        "algorithm": config.algorithm,
        "written": sys.argv,
        "resolved": dataclasses.asdict(config) | {"name": config.folder.name, "resume": False, "define": None},
        "derived": {
            "num_updates": config.num_updates,
            "steps_per_update": config.steps_per_update,
            "runs": config.runs,
        },
        "where": {
            "backend": jax.default_backend(),
            "devices": list(map(str, jax.devices())),
            "versions": {library: version(library) for library in LIBRARIES},
        },
    }
    done = updates_done(runner)
    if devices.is_main_process():
        definitions.keep(config.folder, definitions.load(config.define, config.folder))
        checkpoint.write_json(config.folder / checkpoint.CONFIG, content)
        metrics.drop_after(config.folder / METRICS_CSV, done)
    save_state(config, runner)


def updates_done(runner: Any) -> int:
    """How many updates the runs have behind them, all as many."""
    return int(devices.gather(runner.update)[0])


def write_metrics(config: Settings, done: int, logs: dict[str, np.ndarray], seconds: float) -> None:
    """Append a row per run and update. `done` is the number of updates before these."""
    if not devices.is_main_process():
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


def save(config: Settings, runner: Any) -> None:
    """Write the checkpoints and what --resume needs."""
    save_networks(config, runner)
    save_state(config, runner)


def save_networks(config: Settings, runner: Any) -> None:
    """Write the network of each run, loadable alone by `play.policies.load_network`."""
    networks, updates = devices.gather((runner.network, runner.update))
    if not devices.is_main_process():
        return
    for run, (arm, seed) in enumerate(config.runs):
        network = jax.tree.map(lambda x, run=run: x[run], networks)
        env_steps = int(updates[run]) * config.steps_per_update
        about = {"algorithm": config.algorithm, "arm": arm, "seed": seed, "env_steps": env_steps}
        about |= {"num_steps": config.num_steps, "network": network.init_kwargs}
        checkpoint.save(checkpoint.path_of(config.folder, arm, seed, env_steps), network, about)


def save_state(config: Settings, runner: Any) -> None:
    """Write what --resume needs, without the runs that only fill the devices."""
    runner = jax.tree.map(lambda x: x[: len(config.runs)], devices.gather(runner))
    if devices.is_main_process():
        checkpoint.save(config.folder / checkpoint.STATE, runner, {"runs": config.runs})
