"""What a training shows while it runs and at its end. In a job of several processes, only the main one prints."""

import jax
import numpy as np
from tqdm import tqdm

from purecc4.train import devices
from purecc4.train.metrics import METRICS_COLUMNS
from purecc4.train.run_reader import METRICS_CSV, REWARD_TERMS, read_rows
from purecc4.train.settings import Settings


def print_once(text: str) -> None:
    """Print a line above the progress bar, once in the whole job."""
    if devices.is_main_process():
        tqdm.write(text)


def announce(config: Settings) -> None:
    """Print the size of the training and where it runs."""
    print_once(
        f"{jax.default_backend().upper()}, {len(jax.devices())} device(s): {len(config.runs)} runs of "
        f"{config.num_updates} updates, {config.steps_per_update:,} env steps each."
    )
    if jax.default_backend() == "cpu":
        print_once("*** NO GPU: training on the CPU, which is slow. The first update shows how long it will take. ***")


def announce_hours(seconds: float) -> None:
    """On a CPU, print how long the rest of the training takes."""
    if jax.default_backend() == "cpu":
        print_once(f"*** ON THE CPU this takes about {seconds / 3600:.2f} hours. ***")


def bar(config: Settings, done: int) -> tqdm:
    """A progress bar over the updates."""
    hidden = not devices.is_main_process()
    return tqdm(total=config.num_updates, initial=done, unit="update", dynamic_ncols=True, disable=hidden)


def status(config: Settings, logs: dict[str, np.ndarray], seconds: float) -> str:
    """Steps per second over all runs, and the mean return of each arm, bank multipliers included."""
    steps = logs["return"].size * config.steps_per_update / seconds
    returns = logs["return"][:, -1].reshape(len(config.arm), -1).mean(1)
    return ", ".join([f"{steps:,.0f} steps/s", *(f"{arm} {x:.0f}" for arm, x in zip(config.arm, returns, strict=True))])


def print_summary(config: Settings) -> None:
    """A line per arm: mean over its seeds of the training episodes' return, first and last update, and its parts."""
    rows = [row for _, row in read_rows(config.folder / METRICS_CSV, METRICS_COLUMNS)]
    updates = "1", str(config.num_updates)
    print(f"{'arm':<14}{'update':>7}{'return':>10}" + "".join(f"{part.upper():>10}" for part in REWARD_TERMS))
    for arm in config.arm:
        for update in updates:
            chosen = [row for row in rows if row["arm"] == arm and row["update"] == update]
            means = [np.mean([float(row[name]) for row in chosen]) for name in ("return", *REWARD_TERMS)]
            print(f"{arm:<14}{update:>7}" + "".join(f"{x:>10.1f}" for x in means))
    print("Mean over seeds; returns contain the multipliers of the arm's banks, so compare arms by evaluation only.")
