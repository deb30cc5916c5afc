"""Play trained policies against every red: `purecc4 evaluate runs/NAME` writes `evaluation.csv` and `.json`.

The game is the canonical one, without banks; against the CIA reds the operational zones have three servers each and
roles are drawn. All policies and reds meet the same episodes (`episodes`). Checkpoints are arguments of one compiled
program, so that one more needs no compilation. What the table already has is not played again.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tyro
from jaxtyping import Float

from purecc4 import files
from purecc4.arms.define import Definitions
from purecc4.envs import cc4
from purecc4.errors import UserError
from purecc4.play.episodes import build, check_numbers, stack_params
from purecc4.play.policies import Policy, scripted, trained
from purecc4.play.selection import choose
from purecc4.play.tables import (
    BASELINE_SEED,
    CELL,
    EVALUATION_COLUMNS,
    MODES,
    STUDY_REDS,
    VALUES,
    Cell,
    Evaluation,
    Mode,
    read_evaluation,
    table_of,
    write_evaluation,
)
from purecc4.train import definitions, devices


@dataclass(frozen=True)
class Config:
    """Evaluate the checkpoints of a run folder, and scripted policies, in the canonical game."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, which also gets the table; with --env-steps none it may be new."""
    arm: tuple[str, ...] = ()
    """Arms that the checkpoints were trained with; default: all."""
    seeds: tuple[int, ...] = ()
    """Seeds that they were trained with; default: all."""
    env_steps: tuple[int | Literal["last", "all", "none"], ...] = ("last",)
    """Which checkpoints of every run, in env steps, or one of the words."""
    policies: tuple[str, ...] = ()
    """Scripted policies to play too, such as sleep and random."""
    reds: tuple[str, ...] = STUDY_REDS
    """Red agents to play against."""
    episodes: int = 90
    """Episodes of each policy against each red."""
    eval_seed: int = 1000
    """Seed of the episodes, which are the same for all policies and reds."""
    mode: Mode = "sampled"
    """Sample actions by their probability, or take the likeliest. Scripted policies ignore it."""
    num_steps: int = 500
    """Length of an episode, in env steps."""
    define: Path | None = None
    """TOML file of reds of your own, beside those that the run folder keeps."""

    @property
    def settings(self) -> dict[str, Any]:
        """The protocol, which is equal in all tables that may be compared."""
        return {
            "eval_seed": self.eval_seed,
            "episodes": self.episodes,
            "num_steps": self.num_steps,
            "version": version("purecc4"),
        }


class Player(NamedTuple):
    """A policy to be evaluated; `red` of its cell is still empty."""

    cell: Cell
    path: Path | None
    """Of the checkpoint; None for a scripted policy."""


def find_players(config: Config) -> list[Player]:
    """Scripted policies and checkpoints asked for. Raises UserError if there are none, or a run lacks one of them."""
    for name in config.policies:
        scripted(name)
    players = [Player(Cell(name, BASELINE_SEED, 0, "", MODES[0]), None) for name in dict.fromkeys(config.policies)]
    if config.env_steps == ("none",):
        return players
    chosen = choose(config.run, config.arm, config.seeds, config.env_steps)
    return players + [Player(Cell(arm, seed, at, "", config.mode), path) for arm, seed, at, path in chosen]


def read_earlier(config: Config) -> Evaluation:
    """The table that the folder already has. Raises UserError if it was played by another protocol."""
    settings, path = config.settings, table_of(config.run)
    if not path.exists():
        return Evaluation(settings, pd.DataFrame(columns=EVALUATION_COLUMNS))
    earlier = read_evaluation([config.run])
    for name in {**settings, **earlier.settings}:
        before, now = earlier.settings.get(name), settings.get(name)
        if before != now:
            raise UserError(
                f"{config.run} holds an evaluation with {name} {before}, which rows with {name} {now} cannot join: "
                f"ask for {before}, or delete {path} first."
            )
    return earlier


def about(config: Config) -> dict[str, Any]:
    """How and where the table was made."""
    return {
        "run": str(config.run),
        "command": ["purecc4", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": str(jax.devices()[0].device_kind),
        "jax": jax.__version__,
    }


def rows_of(cell: Cell, reds: Sequence[str], values: Float[np.ndarray, "red env term"]) -> pd.DataFrame:
    """Rows of the table for the episodes of one policy against several reds."""
    frames = [
        pd.DataFrame(episodes, columns=VALUES).assign(**cell._replace(red=red)._asdict(), episode=range(len(episodes)))
        for red, episodes in zip(reds, values.astype(float), strict=True)
    ]
    return pd.concat(frames)[list(EVALUATION_COLUMNS)]


def policy_of(player: Player) -> Policy:
    """Load a policy."""
    return trained(player.path, player.cell.mode == "greedy") if player.path else scripted(player.cell.arm)


def evaluate(config: Config) -> Evaluation:
    """Play what is missing in the folder's table, writing it after every policy. Returns the whole table.

    Raises UserError, with one sentence, for bad settings, missing checkpoints and a table of another protocol.
    """
    check_numbers(config.episodes, config.eval_seed)
    own = definitions.load(config.define, config.run)
    players = find_players(config)
    if not players or not config.reds:
        raise UserError("nothing to play: name at least one red, and checkpoints or --policies sleep random.")
    stack_params(config.reds, config.num_steps, own)
    with files.locked(config.run, "evaluation"):
        return fill(config, players, own)


def fill(config: Config, players: Sequence[Player], own: Definitions) -> Evaluation:
    """Play what is missing in the table of a folder that is locked."""
    table = read_earlier(config)
    known = set(table.rows[CELL].itertuples(index=False, name=None))

    def lacks(player: Player, red: str) -> bool:
        return player.cell._replace(red=red) not in known

    reds = [red for red in dict.fromkeys(config.reds) if any(lacks(player, red) for player in players)]
    missing = [player for player in players if any(lacks(player, red) for red in reds)]
    print(f"{len(missing)} of {len(players)} policies are not in the table yet.")
    if not missing:
        return table
    definitions.keep(config.run, own)
    return play_all(config, table, missing, stack_params(reds, config.num_steps, own), reds)


def play_all(
    config: Config, table: Evaluation, players: Sequence[Player], params: cc4.Params, reds: Sequence[str]
) -> Evaluation:
    """Play every policy against every red, whose parameters are stacked. Writes the table after each policy."""
    began = time.perf_counter()
    program = build(config.num_steps)
    seed, numbers = jnp.uint32(config.eval_seed), jnp.arange(config.episodes)
    for player in players:
        values = jax.device_get(program(policy_of(player), params, seed, numbers))
        table = table.joined(rows_of(player.cell, reds, values))
        write_evaluation(config.run, table, about(config))
        print(summary(player.cell, reds, values), flush=True)
    steps = len(players) * len(reds) * config.episodes * config.num_steps
    print(f"{steps:,} steps in {time.perf_counter() - began:.0f} s, compile included.")
    return table


def summary(cell: Cell, reds: Sequence[str], values: Float[np.ndarray, "red env term"]) -> str:
    """A line with a policy's mean return against each red."""
    means = "".join(f"  {red} {mean:9.1f}" for red, mean in zip(reds, values[:, :, 0].mean(axis=1), strict=True))
    name = cell.arm if cell.seed == BASELINE_SEED else f"{cell.arm} seed {cell.seed} at {cell.env_steps:,}"
    return f"{name + ', greedy' * (cell.mode == 'greedy'):<36}{means}"


def run(config: Config) -> None:
    """Fill the table and print where it is."""
    devices.use_compile_cache()
    devices.use_cores(config.episodes)
    try:
        table = evaluate(config)
    except KeyboardInterrupt:
        print("Stopped; the table holds every policy that was done, and the same command goes on.", file=sys.stderr)
        raise
    if table.outgrown:
        print(table.outgrown, "Their rows stay in the table; report and compare refuse it.", file=sys.stderr)
    print(table_of(config.run))
