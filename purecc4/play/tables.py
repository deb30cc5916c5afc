"""The evaluation table of a run folder: columns, reading, writing and pooling.

`evaluation.csv` (or `evaluation.csv.gz`) has one row per episode; `evaluation.json` holds the protocol. Pooled tables
must have the same protocol and the same training settings. A table may hold sampled and greedy episodes; they are never
averaged together.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from purecc4.envs.cc4.constants import BlueAction
from purecc4.errors import UserError, user_file
from purecc4.files import read_json, write, write_json
from purecc4.play.metrics import METRICS
from purecc4.train import definitions
from purecc4.train.checkpoint import CONFIG
from purecc4.train.progress import counted
from purecc4.train.run_reader import MAY_DIFFER, REWARD_TERMS, read_config, refuse_unlike

ACTIONS = tuple(action.name.lower() for action in BlueAction)
SUBMITTED = tuple(f"submitted_{action}" for action in ACTIONS)
EXECUTED = tuple(f"executed_{action}" for action in ACTIONS)
OVERFLOW = "overflow"  # entries dropped by a full simulator table; missing in older evaluation tables
OWN_ZONES = "own_zones"  # return without the reward terms of the contractor network
LATER = (OWN_ZONES, *METRICS)  # missing in older tables
MISSING = "nan"  # a missing value of LATER
VALUES = ("return", *REWARD_TERMS, *SUBMITTED, *EXECUTED, "red_sessions", "root_hosts", OVERFLOW, *LATER)
EVALUATION_COLUMNS = ("arm", "seed", "env_steps", "red", "episode", "mode", *VALUES)
NUDGE_COLUMNS = ("arm", "seed", "env_steps", "red", "kind", "by", "return_error", *VALUES)
TEXTS, WHOLE = ("arm", "red", "mode", "kind"), ("seed", "env_steps", "num_steps", "episode")  # other columns are floats

Mode = Literal["sampled", "greedy"]
"""Sample actions, or take the likeliest."""
MODES = get_args(Mode)
SETTINGS = {"eval_seed": int, "episodes": int, "num_steps": int, "version": str}  # required keys of evaluation.json
SAME_EPISODES_SINCE = "0.1.0"
"""Oldest version whose evaluation seeds mean the same episodes: `version` of a protocol. Tables of another are not
pooled."""
ABOUT = "about"  # key of evaluation.json for settings that may differ between tables: run, command, date, device

BASELINE_SEED = -1  # `seed` of scripted policies; their env_steps is 0, their mode sampled
EVALUATION_CSV, EVALUATION_JSON, NUDGE_CSV = "evaluation.csv", "evaluation.json", "nudge.csv"
STUDY_REDS = ("fsm", "cia_c", "cia_i", "cia_a")


class Cell(NamedTuple):
    """One policy against one red, in one mode."""

    arm: str
    seed: int
    env_steps: int
    red: str
    mode: str

    def __str__(self) -> str:
        trained = f" seed {self.seed} at {self.env_steps} env steps" if self.seed != BASELINE_SEED else ""
        return f"{self.arm}{trained} against {self.red}" + ", greedy" * (self.mode == "greedy")


CELL = list(Cell._fields)

MOST_OVERFLOWED = 0.05
"""Share of the episodes of a cell that may overflow a simulator table. They count as they are."""


class Evaluation(NamedTuple):
    """Pooled evaluation tables: the shared protocol, and one row per episode with EVALUATION_COLUMNS."""

    settings: dict[str, Any]
    rows: pd.DataFrame

    @property
    def cells(self) -> dict[Cell, pd.DataFrame]:
        """Episodes per policy and red, in the order of the table."""
        return {Cell(*key): rows for key, rows in self.rows.groupby(CELL, sort=False)}

    def joined(self, rows: pd.DataFrame) -> "Evaluation":
        """Append episodes. Episodes of cells that the table already has are ignored."""
        both = pd.concat([self.rows, rows]) if len(self.rows) else rows
        return self._replace(rows=both.drop_duplicates([*CELL, "episode"], ignore_index=True))

    @property
    def outgrown(self) -> str:
        """A message about episodes that overflowed a simulator table; empty if there are none."""
        rows = self.rows[self.rows[OVERFLOW] != 0]
        return outgrew(len(rows), f" (first: {Cell(*rows.iloc[0][CELL])})") if len(rows) else ""

    def faithful(self) -> "Evaluation":
        """Return self. Raises UserError if too many episodes of a cell overflowed a simulator table."""
        shares = (self.rows[OVERFLOW] != 0).groupby([self.rows[name] for name in CELL]).mean()
        if len(shares) and shares.max() > MOST_OVERFLOWED:
            raise UserError(self.outgrown)
        return self


def outgrew(count: int, which: str = "") -> str:
    """Message about episodes that overflowed a simulator table."""
    return (
        f"{counted(count, 'episode')}{which} overflowed a simulator table, so the rest of the episode is invalid: "
        "reduce --num-steps."
    )


def table_of(folder: Path) -> Path:
    """Path of the evaluation table of a run folder: the compressed one if it is the only one."""
    plain, compressed = folder / EVALUATION_CSV, folder / f"{EVALUATION_CSV}.gz"
    return compressed if compressed.exists() and not plain.exists() else plain


def read_evaluation(folders: Sequence[Path]) -> Evaluation:
    """Pool the evaluation tables of run folders.

    Raises UserError for no folder, a missing or damaged table, different settings, an arm or a red that two folders
    define differently, incomplete cells, and a policy in two folders (scripted policies may repeat with the same
    results).
    """
    if not folders:
        raise UserError("give at least one run folder, such as runs/C00-C11.")
    protocols = {folder: _read_settings(folder) for folder in folders}
    refuse_unlike("evaluated", protocols)
    refuse_unlike("trained", {folder: _read_training(folder) for folder in folders if (folder / CONFIG).exists()})
    definitions.load(None, *folders)
    rows = {folder: _read_episodes(folder, protocol["episodes"]) for folder, protocol in protocols.items()}
    return Evaluation(protocols[folders[0]], _pool(rows))


def write_evaluation(folder: Path, evaluation: Evaluation, about: dict[str, Any]) -> None:
    """Write a table and its protocol, each atomically."""
    write_json(folder / EVALUATION_JSON, evaluation.settings | {ABOUT: about})
    write_table(folder / EVALUATION_CSV, evaluation.rows)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV atomically. Missing values are MISSING, so that a row that was cut off is noticed."""
    write(path, to_csv(table, MISSING))


def to_csv(table: pd.DataFrame, missing: str = "") -> bytes:
    """Format a table as CSV without its index. Floats keep 8 significant digits."""
    return table.to_csv(index=False, float_format="%.8g", na_rep=missing).encode()


def _read_settings(folder: Path) -> dict[str, Any]:
    path, table = folder / EVALUATION_JSON, table_of(folder)
    if not table.exists():
        raise UserError(f"{folder} has no evaluation table: run `purecc4 evaluate {folder}` first.")
    if not path.exists():
        raise UserError(f"{path}, the protocol of {table.name}, is missing: delete {table.name} and evaluate again.")
    settings = read_json(path)
    for key, kind in SETTINGS.items():
        if not isinstance(settings, dict) or not isinstance(settings.get(key), kind):
            raise UserError(f"{path} lacks {key} ({kind.__name__}): delete {table.name} and evaluate again.")
    return {key: value for key, value in settings.items() if key != ABOUT}


def _read_training(folder: Path) -> dict[str, Any]:
    algorithm, resolved = read_config(folder)
    return {"algorithm": algorithm} | {key: value for key, value in resolved.items() if key not in MAY_DIFFER}


def _read_episodes(folder: Path, episodes: int) -> pd.DataFrame:
    path = table_of(folder)
    rows = read_numbers(path, EVALUATION_COLUMNS)[list(EVALUATION_COLUMNS)]
    if rows.empty:
        raise UserError(f"{path} has no rows: delete it and evaluate again.")
    for line, mode in enumerate(rows["mode"], start=2):
        if mode not in MODES:
            raise UserError(f"{path} line {line} has mode {mode}; known modes are {', '.join(MODES)}.")
    for row in np.flatnonzero(rows.duplicated([*CELL, "episode"])):
        raise UserError(
            f"{path} line {row + 2} repeats episode {rows['episode'][row]} of {Cell(*rows.loc[row, CELL])}."
        )
    for key, count in rows.groupby(CELL, sort=False).size().items():
        if count != episodes:
            raise UserError(f"{path} has {count} of {episodes} episodes of {Cell(*key)}: delete it and evaluate again.")
    return rows


def read_numbers(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table and check its numbers: integers in the columns of WHOLE, finite floats in all others.

    Older tables without the column `overflow` get it with 0. Columns of LATER and their values may be missing, which
    is NaN. Raises UserError, with file and line, for another missing column or an invalid number.
    """
    try:
        with user_file(path):
            rows = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False)
    except (ValueError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged: {str(error).strip()}.") from None
    if len(rows) and not isinstance(rows.index, pd.RangeIndex):  # pandas made an index of the first field
        raise UserError(f"{path} is damaged: its rows have more fields than its header.")
    if OVERFLOW in columns and OVERFLOW not in rows:
        rows[OVERFLOW] = 0
    for name in [name for name in LATER if name in columns and name not in rows]:
        rows[name] = MISSING
    lacking = [name for name in columns if name not in rows]
    if lacking:
        raise UserError(f"{path} lacks the column {lacking[0]}.")
    for name in columns:
        if name not in TEXTS:
            rows[name] = _numbers(rows[name], path, whole=name in WHOLE)
    return rows


def _numbers(column: pd.Series, path: Path, whole: bool) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    missing = (column == MISSING) & (column.name in LATER)
    for bad, kind in ((~np.isfinite(numbers) & ~missing, "a finite"), (whole & (numbers % 1 != 0), "a whole")):
        for row in np.flatnonzero(bad):
            text = str(column[row])
            raise UserError(f"{path} line {row + 2} has {text!r} for {column.name}, which is not {kind} number.")
    return numbers.astype(int) if whole else numbers


def _pool(tables: dict[Path, pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables. Raises UserError if two hold the same policy, except a script with equal episodes."""
    rows = pd.concat(tables, names=["folder"]).reset_index("folder")
    again = rows.duplicated([*CELL, "episode"])
    old = [name for name in EVALUATION_COLUMNS if name not in LATER]
    equal = (rows["seed"] == BASELINE_SEED) & rows.duplicated(old)
    for row in np.flatnonzero(again & ~equal):
        cell, second = rows[CELL].iloc[row], rows["folder"].iloc[row]
        first = rows["folder"][(rows[CELL] == cell).all(axis=1)].iloc[0]
        raise UserError(f"{first} and {second} both hold {Cell(*cell)}: keep it in one of them.")
    return rows[~again].drop(columns="folder").reset_index(drop=True)
