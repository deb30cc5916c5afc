"""Sweep a logit bias on one action type to test for local optimality: `purecc4 nudge runs/NAME`.

A constant is added to the logits of all legal actions of one type, such as Restore. If a bias other than 0 gives a
higher return, the policy is not a local optimum in this direction. Two arms may then differ only in how often they take
that action. The episodes are those of `evaluate`, so the rows with bias 0 reproduce its means.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import pandas as pd
import tyro

from purecc4 import files
from purecc4.envs.cc4.checks import is_float32
from purecc4.errors import UserError
from purecc4.play.episodes import build, check_numbers, stack_params
from purecc4.play.policies import Biased, trained
from purecc4.play.selection import choose
from purecc4.play.tables import ACTIONS, NUDGE_COLUMNS, NUDGE_CSV, OVERFLOW, VALUES, outgrew, write_table
from purecc4.train import definitions, devices


@dataclass(frozen=True)
class Config:
    """Sweep a logit bias on one action type of trained checkpoints and write the mean returns to the run folder."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder. Its `nudge.csv` is replaced."""
    kind: Literal[ACTIONS] = "restore"
    """Action type to bias."""
    by: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0)
    """Biases to add to the logits of that type."""
    arm: tuple[str, ...] = ()
    """Training arms (default: all)."""
    seeds: tuple[int, ...] = ()
    """Training seeds (default: all)."""
    env_steps: tuple[int | Literal["last", "all"], ...] = ("last",)
    """Checkpoints by env steps, or `last` or `all`."""
    reds: tuple[str, ...] = ("fsm",)
    """Red agents to play against."""
    episodes: int = 90
    """Episodes per policy, bias and red."""
    eval_seed: int = 1000
    """Seed of the episodes, shared by all policies and reds."""
    num_steps: int = 500
    """Episode length in env steps."""


def nudge(config: Config) -> pd.DataFrame:
    """Mean over episodes per policy, bias and red, with the standard error of the return (NUDGE_COLUMNS).

    Raises UserError for invalid settings and missing checkpoints.
    """
    check_numbers(config.episodes, config.eval_seed, least=2)
    if not config.by or not config.reds or not all(map(is_float32, config.by)):
        raise UserError("nothing to play: give at least one red, and float32 numbers after --by.")
    params = stack_params(config.reds, config.num_steps, definitions.load(None, config.run))
    seed, numbers, rows = jnp.uint32(config.eval_seed), jnp.arange(config.episodes), []
    for arm, trained_with, env_steps, path in choose(config.run, config.arm, config.seeds, config.env_steps):
        policy = trained(path)
        for by in config.by:
            biased = replace(policy, network=Biased(policy.network, config.kind, jnp.float32(by)))
            values = np.asarray(build(config.num_steps)(biased, params, seed, numbers), np.float64)
            for red, episodes in zip(config.reds, values, strict=True):
                error = episodes[:, 0].std(ddof=1) / config.episodes**0.5
                rows.append((arm, trained_with, env_steps, red, config.kind, by, error, *pd.DataFrame(episodes).mean()))
            if outgrown := int((values[:, :, VALUES.index(OVERFLOW)] > 0).sum()):
                print(outgrew(outgrown), "The next line includes them.", file=sys.stderr)
            returns = "".join(
                f"  {red} {mean:9.1f}" for red, mean in zip(config.reds, values[:, :, 0].mean(1), strict=True)
            )
            print(f"{arm} seed {trained_with} at {env_steps:,}, {config.kind} {by:+g}{returns}", flush=True)
    return pd.DataFrame(rows, columns=NUDGE_COLUMNS)


def run(config: Config) -> None:
    """Write the table and print its path."""
    devices.use_compile_cache()
    devices.use_cores(config.episodes)
    with files.locked(config.run, "evaluation"):
        write_table(config.run / NUDGE_CSV, nudge(config))
    print(config.run / NUDGE_CSV)
