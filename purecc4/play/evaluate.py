"""Evaluate trained policies against every red: `purecc4 evaluate runs/NAME` writes `evaluation.csv` and `.json`.

Episodes are of the base game or of others by name, without banks; against a red in another game the column `red` is
RED@GAME. Against the CIA reds the operational zones have three servers each
and host roles are sampled. All policies and reds play the same episodes (`episodes`). A checkpoint is an argument of
the compiled program, so further checkpoints need no compilation. Cells that the table already has are skipped.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tyro
from jaxtyping import Float
from tabulate import tabulate

from purecc4 import files
from purecc4.arms.define import Definitions
from purecc4.errors import UserError
from purecc4.play.episodes import build, check_numbers, stack_params
from purecc4.play.metrics import METRICS
from purecc4.play.policies import Policy, scripted, trained
from purecc4.play.selection import choose
from purecc4.play.tables import (
    BASELINE_SEED,
    CELL,
    EVALUATION_COLUMNS,
    MODES,
    MOST_OVERFLOWED,
    OWN_ZONES,
    SAME_EPISODES_SINCE,
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
from purecc4.train.progress import duration


@dataclass(frozen=True)
class Config:
    """Evaluate checkpoints of a run folder and scripted policies in the canonical game."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, where the table is written. With `--env-steps none` it may be new."""
    arm: tuple[str, ...] = ()
    """Training arms (default: all)."""
    seeds: tuple[int, ...] = ()
    """Training seeds (default: all)."""
    env_steps: tuple[int | Literal["last", "all", "none"], ...] = ("last",)
    """Checkpoints by env steps, or `last`, `all` or `none`."""
    policies: tuple[str, ...] = ()
    """Scripted policies to evaluate as well, such as sleep and random."""
    reds: tuple[str, ...] = ()
    """Red agents to play against in every game (default: fsm, cia_c, cia_i and cia_a in the base game, each other
    game's own red)."""
    games: tuple[str, ...] = ("base",)
    """Games to play, one of those listed by `purecc4 arms` or defined in `--define`."""
    episodes: int = 90
    """Episodes per policy and red."""
    eval_seed: int = 1000
    """Seed of the episodes, shared by all policies and reds."""
    mode: Mode = "sampled"
    """Sample actions, or take the likeliest. Scripted policies ignore it."""
    num_steps: int = 500
    """Episode length in env steps."""
    define: Path | None = None
    """TOML file with your own reds and games, in addition to those saved in the run folder."""
    metrics: bool = False
    """Print the operational metrics of the selected policies as well; the table always has them."""

    @property
    def settings(self) -> dict[str, Any]:
        """The protocol. Tables are only pooled if theirs are equal."""
        return {
            "eval_seed": self.eval_seed,
            "episodes": self.episodes,
            "num_steps": self.num_steps,
            "version": SAME_EPISODES_SINCE,
        }


class Player(NamedTuple):
    """A policy to evaluate."""

    cell: Cell
    """The cell of the policy. Its `red` is still empty."""
    path: Path | None
    """Checkpoint, or None for a scripted policy."""


def find_players(config: Config) -> list[Player]:
    """List the selected scripts and checkpoints. Raises UserError for an unknown script or a missing checkpoint."""
    for name in config.policies:
        scripted(name)
    players = [Player(Cell(name, BASELINE_SEED, 0, "", MODES[0]), None) for name in dict.fromkeys(config.policies)]
    if config.env_steps == ("none",):
        return players
    chosen = choose(config.run, config.arm, config.seeds, config.env_steps)
    return players + [Player(Cell(arm, seed, at, "", config.mode), path) for arm, seed, at, path in chosen]


def read_earlier(config: Config) -> Evaluation:
    """Read the existing table of the folder. Raises UserError if its protocol differs."""
    settings, path = config.settings, table_of(config.run)
    if not path.exists():
        return Evaluation(settings, pd.DataFrame(columns=EVALUATION_COLUMNS))
    earlier = read_evaluation([config.run])
    for name in {**settings, **earlier.settings}:
        before, now = earlier.settings.get(name), settings.get(name)
        if before != now:
            raise UserError(
                f"{config.run} holds an evaluation with {name} {before}; rows with {name} {now} cannot join it: "
                f"use {before}, or delete {path} first."
            )
    return earlier


def about(config: Config) -> dict[str, Any]:
    """Provenance of the table: run folder, command, date, device and JAX version."""
    return {
        "run": str(config.run),
        "command": ["purecc4", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": str(jax.devices()[0].device_kind),
        "jax": jax.__version__,
    }


def rows_of(cell: Cell, reds: Sequence[str], values: Float[np.ndarray, "red env term"]) -> pd.DataFrame:
    """Format the episodes of one policy against several reds as rows of the table."""
    frames = [
        pd.DataFrame(episodes, columns=VALUES).assign(**cell._replace(red=red)._asdict(), episode=range(len(episodes)))
        for red, episodes in zip(reds, values.astype(float), strict=True)
    ]
    return pd.concat(frames)[list(EVALUATION_COLUMNS)]


def policy_of(player: Player) -> Policy:
    """Load the policy of a player."""
    return trained(player.path, player.cell.mode == "greedy") if player.path else scripted(player.cell.arm)


def evaluate(config: Config) -> Evaluation:
    """Play the missing cells of the folder's table, saving it after every policy. Returns the whole table.

    Raises UserError for invalid settings, missing checkpoints and a table with a different protocol.
    """
    check_numbers(config.episodes, config.eval_seed)
    own = definitions.load(config.define, config.run)
    players, matches = find_players(config), matches_of(config, own)
    if not players or not matches:
        raise UserError("nothing to play: give at least one game, and checkpoints or --policies sleep random.")
    stack_params(matches, config.num_steps, own)
    with files.locked(config.run, "evaluation"):
        return fill(config, players, matches, own)


def matches_of(config: Config, own: Definitions) -> list[str]:
    """Every red in every game, as the tables name them. Raises UserError as `Definitions.match` does."""

    def reds(game: str) -> Sequence[str | None]:
        return config.reds or (STUDY_REDS if game == "base" else (None,))

    return list(dict.fromkeys(own.match(red, game) for game in config.games for red in reds(game)))


def fill(config: Config, players: Sequence[Player], matches: Sequence[str], own: Definitions) -> Evaluation:
    """Play the missing cells of the table. The caller holds the lock of the folder."""
    table = read_earlier(config)
    known = set(table.rows[CELL].itertuples(index=False, name=None))

    def lacks(player: Player, red: str) -> bool:
        return player.cell._replace(red=red) not in known

    reds = [red for red in matches if any(lacks(player, red) for player in players)]
    missing = [player for player in players if any(lacks(player, red) for red in reds)]
    print(f"Policies to play: {len(missing)} of {len(players)}; the table has the others.", flush=True)
    if not missing:
        return table
    print(announcement(config, reds), flush=True)
    definitions.keep(config.run, own)
    return play_all(config, table, missing, own, reds)


def play_all(
    config: Config, table: Evaluation, players: Sequence[Player], own: Definitions, reds: Sequence[str]
) -> Evaluation:
    """Play every policy against every red. Saves the table after each policy."""
    began = time.perf_counter()
    program = build(config.num_steps)
    seed, numbers = jnp.uint32(config.eval_seed), jnp.arange(config.episodes)
    for index, player in enumerate(players):
        policy = policy_of(player)
        params = stack_params(reds, config.num_steps, own, policy.observation)
        values = jax.device_get(program(policy, params, seed, numbers))
        table = table.joined(rows_of(player.cell, reds, values))
        write_evaluation(config.run, table, about(config))
        print(summary(player.cell, reds, values), flush=True)
        if index == 0 and len(players) > 1:
            print(estimate(time.perf_counter() - began, len(players) - 1), flush=True)
    steps = len(players) * len(reds) * config.episodes * config.num_steps
    print(f"{steps:,} env steps in {time.perf_counter() - began:.0f} s, compilation included.")
    return table


def announcement(config: Config, reds: Sequence[str]) -> str:
    """Line that names the episodes of an evaluation."""
    last = f" to {config.episodes - 1}" if config.episodes > 1 else ""
    return (
        f"Episode{'s' * (config.episodes > 1)} 0{last} of evaluation seed {config.eval_seed}, {config.num_steps} steps "
        f"each, against {', '.join(reds)}; actions {config.mode}. "
        "Mean return (in own zones) ± standard error:"
    )


def estimate(seconds: float, left: int) -> str:
    """Line with the time left for `left` policies, as the first took `seconds`. Only that one may have compiled."""
    first, rest = duration(seconds), duration(seconds * left)
    return f"The first policy took {first}, compilation included: at most about {rest} left."


def summary(cell: Cell, reds: Sequence[str], values: Float[np.ndarray, "red env term"]) -> str:
    """Line with a policy's mean return against each red, in brackets that of the own zones, each ± standard error."""
    own = VALUES.index(OWN_ZONES)
    means = [
        f"  {red} {plus_minus(episodes[:, 0])} ({plus_minus(episodes[:, own])})"
        for red, episodes in zip(reds, values, strict=True)
    ]
    return f"{name_of(cell):<36}" + "".join(means)


def name_of(cell: Cell) -> str:
    """Name of a policy, without the red."""
    name = cell.arm if cell.seed == BASELINE_SEED else f"{cell.arm} seed {cell.seed} at {cell.env_steps:,}"
    return name + ", greedy" * (cell.mode == "greedy")


def plus_minus(values: Float[np.ndarray, "env"]) -> str:
    """Mean ± standard error; the mean alone for a single value."""
    error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{error}"


def metrics_table(table: Evaluation, config: Config) -> str:
    """Format the mean of METRICS over episodes, for the selected policies and reds."""
    reds = matches_of(config, definitions.load(config.define, config.run))
    selected = {player.cell._replace(red=red) for player in find_players(config) for red in reds}
    rows = [
        [name_of(cell), cell.red, *episodes[list(METRICS)].mean()]
        for cell, episodes in table.cells.items()
        if cell in selected
    ]
    header = ["", "red", *(name.replace("_", " ") for name in METRICS)]
    return tabulate(rows, header, floatfmt=["", "", ".3f", *[".1f"] * (len(METRICS) - 1)])


def run(config: Config) -> None:
    """Fill the table and print its path."""
    devices.use_compile_cache()
    devices.use_cores(config.episodes)
    try:
        table = evaluate(config)
    except KeyboardInterrupt:
        print("Stopped. The finished policies are in the table; the same command resumes.", file=sys.stderr)
        raise
    if table.outgrown:
        print(
            table.outgrown,
            f"The table keeps these rows; report and compare take up to {MOST_OVERFLOWED:.0%} of a policy and red.",
            file=sys.stderr,
        )
    if config.metrics:
        print(metrics_table(table, config))
    print(table_of(config.run))
