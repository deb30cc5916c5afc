"""Messages and the progress bar of a training. In a job of several processes, only the main one prints."""

from contextlib import suppress

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


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 2 runs."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """A time in the largest unit that gives at least 2, in whole units; hours with one decimal."""
    if seconds < 120:
        return counted(max(1, round(seconds)), "second")
    if seconds < 2 * 3600:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def announce(config: Settings) -> None:
    """Print the size of the training and the devices that it runs on."""
    backend = jax.default_backend()
    where = "CPU (no GPU found)" if backend == "cpu" else backend.upper()
    print_once(
        f"{where}, {counted(len(jax.devices()), 'device')}: {counted(len(config.runs), 'run')} of "
        f"{counted(config.num_updates, 'update')}, {counted(config.steps_per_update, 'env step')} each."
    )


def announce_compiling() -> None:
    print_once("Compiling, which takes a minute or more the first time ...")


def announce_compiled(num_updates: int, seconds: float) -> None:
    print_once(f"Compiled {counted(num_updates, 'update')} per call in {seconds:.1f} s.")


def announce_rest(seconds: float) -> None:
    """Print how long the rest of the training takes."""
    print_once(f"About {duration(seconds)} to go.")


class Bar:
    """Progress over updates. It appears after the first of them, when the program is compiled."""

    def __init__(self, config: Settings, done: int):
        self.total, self.done = config.num_updates, done
        self.bar: tqdm | None = None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            with suppress(OSError):  # the training has stopped already because of it
                self.bar.close()

    def advance(self, count: int, status: str) -> None:
        """Show `count` more updates, and the status text behind the bar."""
        self.done += count
        if self.bar is None:
            hidden = not devices.is_main_process()
            settings = {"unit": "update", "dynamic_ncols": True, "disable": hidden, "postfix": status}
            self.bar = tqdm(total=self.total, initial=self.done, **settings)
        else:
            self.bar.set_postfix_str(status, refresh=False)
            self.bar.update(count)


def status(config: Settings, logs: dict[str, np.ndarray], seconds: float) -> str:
    """Env steps per second over all runs, and the mean return of each arm, multipliers of its banks included.

    In a sweep it is the range over the values of the arm.
    """
    steps = logs["return"].size * config.steps_per_update / seconds
    returns = logs["return"][:, -1].reshape(len(config.arm), -1, len(config.seeds)).mean(2)
    shown = [f"{x.min():.0f} to {x.max():.0f}" if config.swept else f"{x[0]:.0f}" for x in returns]
    return ", ".join([f"{steps:,.0f} steps/s", *map(" ".join, zip(config.arm, shown, strict=True))])


def print_summary(config: Settings) -> None:
    """Print, for each variant, the mean return of its seeds and its terms, in the first and the last update."""
    rows = [row for _, row in read_rows(config.folder / METRICS_CSV, METRICS_COLUMNS)]
    updates = "1", str(config.num_updates)
    labels = [variant.label for variant in config.variants]
    width = max(14, *(len(label) + 2 for label in labels))
    print(f"{'arm':<{width}}{'update':>7}{'return':>10}" + "".join(f"{term.upper():>10}" for term in REWARD_TERMS))
    for label in labels:
        for update in updates:
            chosen = [row for row in rows if row["arm"] == label and row["update"] == update]
            means = [np.mean([float(row[name]) for row in chosen]) for name in ("return", *REWARD_TERMS)]
            print(f"{label:<{width}}{update:>7}" + "".join(f"{x:>10.1f}" for x in means))
    print("Means over seeds. Returns include the multipliers of the arm's banks: compare arms by `purecc4 evaluate`.")
