"""What a training refuses: more runs than fit in memory, and to go on after a loss that is not finite."""

from typing import Any

import jax
import numpy as np

from purecc4.errors import UserError
from purecc4.train import devices, run_folder
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


def refuse_non_finite(config: Settings, done: int, logs: dict[str, np.ndarray], runner: Any) -> None:
    """If a loss or gradient is not finite, save the networks from before and raise UserError."""
    bad = ~np.isfinite(logs["loss"] + logs["grad_norm"])
    if not bad.any():
        return
    run, at = np.argwhere(bad)[np.argmin(np.argwhere(bad)[:, 1])]
    run_folder.save_networks(config, runner)
    arm, seed = config.runs[run]
    raise UserError(
        f"the loss of arm {arm} with seed {seed} is not finite in update {done + at + 1}: training has stopped, "
        f"the last good networks are in {config.folder / 'checkpoints'}; try a smaller --learning-rate."
    )
