"""Is a policy at its best? `purecc4 nudge runs/NAME` plays it with one kind of action made likelier or rarer.

A constant is added to the logits of all actions of that kind, Restore say; what the mask forbids stays forbidden. If
the return is better on one side of 0, the policy is not even a local optimum of it: training left a step untaken, and
arms that differ in how often they restore may differ in nothing else. The episodes are those of `evaluate`, so the rows
with 0 give its means.
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
from purecc4.errors import UserError
from purecc4.play.episodes import build, check_numbers, stack_params
from purecc4.play.policies import Biased, trained
from purecc4.play.selection import choose
from purecc4.play.tables import ACTIONS, NUDGE_COLUMNS, NUDGE_CSV, OVERFLOW, VALUES, outgrew, write_table
from purecc4.train import definitions, devices


@dataclass(frozen=True)
class Config:
    """Play checkpoints with the logits of one kind of action shifted, and write the means beside them."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, which also gets the table `nudge.csv`; an earlier one is replaced."""
    kind: Literal[ACTIONS] = "restore"
    """Kind of action."""
    by: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0)
    """What is added to its logits."""
    arm: tuple[str, ...] = ()
    """Arms that the checkpoints were trained with; default: all."""
    seeds: tuple[int, ...] = ()
    """Seeds that they were trained with; default: all."""
    env_steps: tuple[int | Literal["last", "all"], ...] = ("last",)
    """Which checkpoints of every run, in env steps, or one of the words."""
    reds: tuple[str, ...] = ("fsm",)
    """Red agents to play against."""
    episodes: int = 90
    """Episodes of each policy against each red."""
    eval_seed: int = 1000
    """Seed of the episodes, which are the same for all policies and reds."""
    num_steps: int = 500
    """Length of an episode, in env steps."""


def nudge(config: Config) -> pd.DataFrame:
    """Means over the episodes of each policy, shift and red, with the standard error of the return.

    Raises UserError, with one sentence, for bad settings and missing checkpoints.
    """
    check_numbers(config.episodes, config.eval_seed, least=2)
    if not config.by or not config.reds or not np.isfinite(config.by).all():
        raise UserError("nothing to play: name at least one red, and finite numbers after --by.")
    params = stack_params(config.reds, config.num_steps, definitions.load(None, config.run))
    seed, numbers, rows = jnp.uint32(config.eval_seed), jnp.arange(config.episodes), []
    for arm, trained_with, env_steps, path in choose(config.run, config.arm, config.seeds, config.env_steps):
        policy = trained(path)
        for by in config.by:
            nudged = replace(policy, network=Biased(policy.network, config.kind, jnp.float32(by)))
            values = np.asarray(build(config.num_steps)(nudged, params, seed, numbers), np.float64)
            for red, episodes in zip(config.reds, values, strict=True):
                error = episodes[:, 0].std(ddof=1) / config.episodes**0.5
                rows.append((arm, trained_with, env_steps, red, config.kind, by, error, *episodes.mean(axis=0)))
            if outgrown := int((values[:, :, VALUES.index(OVERFLOW)] > 0).sum()):
                print(outgrew(outgrown), "They count in the next line.", file=sys.stderr)
            returns = "".join(
                f"  {red} {mean:9.1f}" for red, mean in zip(config.reds, values[:, :, 0].mean(1), strict=True)
            )
            print(f"{arm} seed {trained_with} at {env_steps:,}, {config.kind} {by:+g}{returns}", flush=True)
    return pd.DataFrame(rows, columns=NUDGE_COLUMNS)


def run(config: Config) -> None:
    """Write the table and print where it is."""
    devices.use_compile_cache()
    devices.use_cores(config.episodes)
    with files.locked(config.run, "evaluation"):
        write_table(config.run / NUDGE_CSV, nudge(config))
    print(config.run / NUDGE_CSV)
