"""Play trained policies against every red: `purecc4 evaluate runs/NAME` writes `evaluation.csv` and `.json`.

The game is the canonical one, without banks; against the CIA reds the operational zones have three servers each and
roles are drawn. All policies and reds meet the same episodes (`episodes`). Checkpoints are arguments of one compiled
program, so that a further one compiles nothing. What the table already has is not played again.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Float

from envs import cc4
from purecc4.errors import UserError, user_file, user_values
from purecc4.play.episodes import build, stack_params
from purecc4.play.policies import Policy, scripted, trained
from purecc4.play.tables import (
    ABOUT,
    BASELINE_SEED,
    EVALUATION_COLUMNS,
    EVALUATION_CSV,
    EVALUATION_JSON,
    MODES,
    STUDY_REDS,
    Cell,
    Evaluation,
    read_evaluation,
)
from purecc4.train import checkpoint, devices
from purecc4.train.folder import write_csv


@dataclass(frozen=True)
class Config:
    """Evaluate the checkpoints of a run folder, and policies that need none, in the canonical game."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, which also gets the table; with --checkpoints none it may be new (a path)."""
    reds: tuple[str, ...] = STUDY_REDS
    """Red agents to play against (names; discovery and sleep, too)."""
    episodes: int = 90
    """Episodes of each policy against each red (episodes)."""
    seed: int = 1000
    """Evaluation seed: which episodes these are (an integer)."""
    greedy: bool = False
    """Take the likeliest action instead of sampling; not for the policy `random` (flag)."""
    checkpoints: tuple[str, ...] = ("final",)
    """Of every run: final, all, none, or these (env steps)."""
    policies: tuple[str, ...] = ()
    """Policies without a checkpoint to play too: sleep, random (names)."""
    num_steps: int = 500
    """Length of an episode (env steps)."""

    @property
    def settings(self) -> dict[str, Any]:
        """The protocol, which is equal in all tables that may be compared."""
        return {
            "eval_seed": self.seed,
            "episodes": self.episodes,
            "num_steps": self.num_steps,
            "mode": MODES[self.greedy],
            "version": version("purecc4"),
        }


class Player(NamedTuple):
    """A policy to be evaluated; `red` of its cell is still empty."""

    cell: Cell
    path: Path | None
    """Of the checkpoint; None for a scripted policy."""


def find_players(config: Config) -> list[Player]:
    """Checkpoints and scripted policies asked for. Raises UserError if there are none, or a run lacks one of them."""
    for name in config.policies:
        scripted(name)
    players = [Player(Cell(name, BASELINE_SEED, 0, ""), None) for name in dict.fromkeys(config.policies)]
    if config.checkpoints == ("none",):
        return players
    if not config.run.is_dir():
        raise UserError(f"there is no run folder {config.run}: train first, or play without by --checkpoints none.")
    runs = [
        (path.parent.name, int(path.name))
        for path in (config.run / "checkpoints").glob("*/*")
        if path.name.isdecimal()
    ]
    if not runs:
        raise UserError(f"{config.run} has no checkpoints: train first, or play without by --checkpoints none.")
    for arm, seed in sorted(runs):
        for env_steps in chosen_steps(config, arm, seed):
            path = checkpoint.path_of(config.run, arm, seed, env_steps)
            players.append(Player(Cell(arm, seed, env_steps, ""), path))
    return players


def chosen_steps(config: Config, arm: str, seed: int) -> list[int]:
    """Env steps of the checkpoints asked for of one run. Raises UserError if it lacks one."""
    saved = checkpoint.env_steps_saved(config.run, arm, seed)
    if config.checkpoints == ("final",):
        return saved[-1:]
    if config.checkpoints == ("all",):
        return saved
    for text in config.checkpoints:
        if not text.isdecimal():
            raise UserError(f"--checkpoints takes final, all, none or env steps, but not {text!r} among others.")
        if int(text) not in saved:
            known = ", ".join(map(str, saved))
            raise UserError(f"{arm} seed {seed} has no checkpoint at {text} env steps, only at {known}.")
    return sorted(map(int, set(config.checkpoints)))


def read_earlier(config: Config) -> Evaluation:
    """The table that the folder already has. Raises UserError if it was played by another protocol."""
    settings = config.settings
    if not all((config.run / name).exists() for name in (EVALUATION_CSV, EVALUATION_JSON)):
        return Evaluation(settings, {})
    earlier = read_evaluation([config.run])
    for name in {**settings, **earlier.settings}:
        before, now = earlier.settings.get(name), settings.get(name)
        if before != now:
            raise UserError(
                f"{config.run} holds an evaluation with {name} {before}, which rows with {name} {now} cannot join: "
                f"ask for {before}, or delete {config.run / EVALUATION_CSV} first."
            )
    return earlier


def write(config: Config, evaluation: Evaluation) -> None:
    """Write the table and its protocol, each whole or not at all."""
    about = {
        "run": str(config.run),
        "command": ["purecc4", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": str(jax.devices()[0].device_kind),
        "jax": jax.__version__,
    }
    with user_file(config.run):
        config.run.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(config.run / EVALUATION_JSON, evaluation.settings | {ABOUT: about})
    rows = (
        (*cell, episode, evaluation.settings["mode"], *map(float, values))
        for cell, table in evaluation.cells.items()
        for episode, values in enumerate(table)
    )
    write_csv(config.run / EVALUATION_CSV, EVALUATION_COLUMNS, rows)


def policies_of(players: Sequence[Player], greedy: bool) -> Iterator[Policy]:
    """Load the policies one by one; the scripted ones get a network like the checkpoints', to share their program."""
    paths = [player.path for player in players if player.path]
    like = trained(paths[0]).network if paths else None
    for player in players:
        yield trained(player.path, greedy) if player.path else scripted(player.cell.arm, like)


def evaluate(config: Config) -> Evaluation:
    """Play what is missing in the folder's table, writing it after every policy. Returns the whole table.

    Raises UserError, with one sentence, for bad settings, missing checkpoints and a table of another protocol.
    """
    if config.episodes < 1 or not 0 <= config.seed < 2**32:
        raise UserError("--episodes must be at least 1, and --seed from 0 to 4294967295.")
    with user_values():
        for red in config.reds:
            cc4.make_params(red, config.num_steps)
    players, table = find_players(config), read_earlier(config)
    if not players or not config.reds:
        raise UserError("nothing to play: name at least one red, and checkpoints or --policies sleep random.")

    def lacks(player: Player, red: str) -> bool:
        return player.cell._replace(red=red) not in table.cells

    reds = [red for red in dict.fromkeys(config.reds) if any(lacks(player, red) for player in players)]
    missing = [player for player in players if any(lacks(player, red) for red in reds)]
    print(f"{len(missing)} of {len(players)} policies are not in the table yet.")
    if missing:
        play_all(config, table, missing, reds)
    return table


def play_all(config: Config, table: Evaluation, players: Sequence[Player], reds: Sequence[str]) -> None:
    """Play every policy against every red; the table gets their episodes and is written after each policy."""
    began = time.perf_counter()
    program, params = build(config.num_steps), stack_params(reds, config.num_steps)
    seed, numbers = jnp.uint32(config.seed), jnp.arange(config.episodes)
    for player, policy in zip(players, policies_of(players, config.greedy), strict=True):
        values, overflow = jax.device_get(program(policy, params, seed, numbers))
        if overflow.any():
            print(f"NOTE: {(overflow > 0).sum()} episodes outgrew a table of the simulator and are slightly off.")
        table.cells.update(zip((player.cell._replace(red=red) for red in reds), values.astype(float), strict=True))
        write(config, table)
        print(summary(player.cell, reds, values), flush=True)
    steps = len(players) * len(reds) * config.episodes * config.num_steps
    print(f"{steps:,} steps in {time.perf_counter() - began:.0f} s, compile included.")


def summary(cell: Cell, reds: Sequence[str], values: Float[np.ndarray, "red env term"]) -> str:
    """A line with a policy's mean return against each red."""
    means = "".join(f"  {red} {mean:9.1f}" for red, mean in zip(reds, values[:, :, 0].mean(axis=1), strict=True))
    name = cell.arm if cell.seed == BASELINE_SEED else f"{cell.arm} seed {cell.seed} at {cell.env_steps:,}"
    return f"{name:<36}{means}"


def run(config: Config) -> None:
    """Fill the table and print where it is."""
    devices.use_compile_cache()
    devices.use_cores(config.episodes)
    try:
        evaluate(config)
    except KeyboardInterrupt:
        raise UserError(
            "stopped; the table holds every policy that was done, and the same command goes on."
        ) from None
    print(config.run / EVALUATION_CSV)
