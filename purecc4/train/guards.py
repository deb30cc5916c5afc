"""Checks that stop a training: too little memory, non-finite results, an overflow of the simulator."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from purecc4.errors import NotWritten, UserError
from purecc4.train import checkpoint, devices, run_writer
from purecc4.train.settings import Settings

MAX_DROPPED = 0.5
"""Entries per episode, on average over an update, that the simulator's tables may lose in a training.

Episodes that lose one are inexact from there on. A few do not harm what is learned.
"""


def refuse_too_large(config: Settings, compiled: jax.stages.Compiled, num_runs: int) -> None:
    """Raises UserError, with the number of runs that fit, if a program needs more memory than is free."""
    needed, available = devices.bytes_needed(compiled), devices.bytes_available()
    if needed > available:
        most = available * (num_runs // jax.device_count()) // needed * jax.device_count()
        raise UserError(
            f"{len(config.runs)} runs need {needed / 1e9:.1f} GB on each device, but only {available / 1e9:.1f} GB are "
            f"free: at most {most} runs fit at once."
        )


def refuse_huge(start: Callable[[], Any]) -> None:
    """Raises UserError if the networks alone need more memory than is free. Allocates nothing."""
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(start)))
    available = devices.bytes_available() * jax.device_count()
    if needed > available:
        raise UserError(
            f"the networks of all runs need {needed / 1e9:.1f} GB, but {available / 1e9:.1f} GB are free: "
            "train fewer runs or smaller networks."
        )


def refuse_non_finite(config: Settings, expected: int, runner: Any) -> None:
    """Raises UserError, after saving the networks, if a run has completed fewer updates than expected.

    An update whose loss, gradient, weights or optimiser state are not finite leaves its run unchanged.
    """
    updates = devices.gather(runner.update)[: len(config.runs)]
    run = int(np.argmin(updates))
    if updates[run] == expected:
        return
    with last_good_state(config):
        run_writer.save_networks(config, runner)
    label, seed = config.runs[run]
    raise UserError(
        f"arm {label} with seed {seed} is not finite in update {updates[run] + 1}: training has stopped. The last good "
        f"networks are in {config.folder / 'checkpoints'}; start again with a smaller --learning-rate and another "
        "--name."
    )


def refuse_overflow(config: Settings, done: int, logs: dict[str, np.ndarray]) -> None:
    """Raises UserError if the tables of the simulator overflowed too often in one of the updates after `done`."""
    for run, at in np.argwhere(logs["overflow"] > MAX_DROPPED):
        label, seed = config.runs[run]
        raise UserError(
            f"arm {label} with seed {seed} overflowed tables of the simulator in update {done + at + 1}, with "
            f"{logs['overflow'][run, at]:.2g} lost entries per episode: training has stopped. {config.folder} holds "
            "the state last saved; start again with shorter episodes (--num-steps) and another --name."
        )


@contextmanager
def last_good_state(config: Settings) -> Iterator[None]:
    """Add the last saved state and the way to resume to the error of a file that cannot be written."""
    try:
        yield
    except NotWritten as error:
        about = checkpoint.read_about(config.folder / checkpoint.STATE)
        raise UserError(
            f"{error} The last good state is {config.folder / checkpoint.STATE}, after update {about.get('update')}: "
            f"free some space and resume with --resume --name {config.folder.name}."
        ) from error
