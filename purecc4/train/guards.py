"""What a training refuses: more than fits in memory, and to go on after numbers that cannot be right."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from purecc4.errors import NotWritten, UserError
from purecc4.train import checkpoint, devices, run_writer
from purecc4.train.settings import Settings


def refuse_too_large(config: Settings, compiled: jax.stages.Compiled, num_runs: int) -> None:
    """UserError, with the number of runs that fit, if a program of `num_runs` runs needs more memory than is free."""
    needed, available = devices.bytes_needed(compiled), devices.bytes_available()
    if needed > available:
        most = available * (num_runs // jax.device_count()) // needed * jax.device_count()
        raise UserError(
            f"{len(config.runs)} runs need {needed / 1e9:.1f} GB on each device, {available / 1e9:.1f} GB are free: "
            f"at most {most} runs fit at once."
        )


def refuse_huge(start: Callable[[], Any]) -> None:
    """UserError if the networks alone need more memory than all devices have. Nothing is made to find out."""
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(start)))
    available = devices.bytes_available() * jax.device_count()
    if needed > available:
        raise UserError(
            f"the networks of all runs need {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are free: "
            "take fewer or smaller ones."
        )


def refuse_non_finite(config: Settings, expected: int, runner: Any) -> None:
    """If a run has fewer than the expected updates behind it, save the networks and raise UserError.

    A run whose loss, gradient, weights or optimiser state are not finite after an update stays as it was before.
    """
    updates = devices.gather(runner.update)[: len(config.runs)]
    run = int(np.argmin(updates))
    if updates[run] == expected:
        return
    with last_good_state(config):
        run_writer.save_networks(config, runner)
    arm, seed = config.runs[run]
    raise UserError(
        f"what was learned by arm {arm} with seed {seed} is not finite in update {updates[run] + 1}: training has "
        f"stopped, the last good networks are in {config.folder / 'checkpoints'}; start again with a smaller "
        "--learning-rate and another --name."
    )


def refuse_overflow(config: Settings, done: int, logs: dict[str, np.ndarray]) -> None:
    """UserError if a table of the simulator was too small in one of the updates after `done`."""
    for run, at in np.argwhere(logs["overflow"] != 0):
        arm, seed = config.runs[run]
        raise UserError(
            f"the episodes of arm {arm} with seed {seed} outgrew a table of the simulator in update {done + at + 1}: "
            f"training has stopped, {config.folder} is as it was saved before; start again with shorter episodes "
            "(--num-steps) and another --name."
        )


@contextmanager
def last_good_state(config: Settings) -> Iterator[None]:
    """Add to the refusal of a file what is safe already, and what to do."""
    try:
        yield
    except NotWritten as error:
        about = checkpoint.read_about(config.folder / checkpoint.STATE)
        raise UserError(
            f"{error} The last good state is {config.folder / checkpoint.STATE}, after update {about.get('update')}: "
            f"make room and go on with --resume --name {config.folder.name}."
        ) from error
