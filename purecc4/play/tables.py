"""The evaluation table of a run folder: its columns, its reading, and the refusal to pool unlike ones.

`evaluation.csv` has a row per episode and `evaluation.json` beside it the protocol. Tables that are read together must
agree in the protocol, and in how their runs were trained.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from envs.cc4.constants import BlueAction
from purecc4.errors import UserError
from purecc4.train.checkpoint import CONFIG
from purecc4.train.folder import (
    MAY_DIFFER,
    PARTS,
    number_in,
    read_config,
    read_json,
    read_rows,
    refuse_unlike,
    whole_in,
)

ACTIONS = tuple(action.name.lower() for action in BlueAction)
SUBMITTED = tuple(f"submitted_{action}" for action in ACTIONS)
EXECUTED = tuple(f"executed_{action}" for action in ACTIONS)
KEYS = ("arm", "seed", "env_steps", "red", "episode", "mode")
VALUES = ("return", *PARTS, *SUBMITTED, *EXECUTED, "red_sessions", "root_hosts")
EVALUATION_COLUMNS = KEYS + VALUES

MODES = ("sample", "greedy")
SETTINGS = ("eval_seed", "episodes", "num_steps", "mode", "version")  # the least that evaluation.json holds
ABOUT = "about"  # key of evaluation.json for what may differ between tables: run, command, date, device
BASELINES = ("sleep", "random")  # policies without a checkpoint: seed -1, env_steps 0
BASELINE_SEED = -1
EVALUATION_CSV, EVALUATION_JSON = "evaluation.csv", "evaluation.json"
STUDY_REDS = ("fsm", "cia_c", "cia_i", "cia_a")


class Cell(NamedTuple):
    """One policy against one red."""

    arm: str
    seed: int
    env_steps: int
    red: str

    def __str__(self) -> str:
        policy = self.arm if self.arm in BASELINES else f"{self.arm} seed {self.seed} at {self.env_steps} env steps"
        return f"{policy} against {self.red}"


class Evaluation(NamedTuple):
    """Pooled evaluation tables: the protocol they share, and per cell the values [env=episode, term=VALUES]."""

    settings: dict[str, Any]
    cells: dict[Cell, Float[np.ndarray, "env term"]]


def read_evaluation(folders: Sequence[Path]) -> Evaluation:
    """Pool the evaluation tables of run folders.

    Raises UserError, in one sentence, on no folder, on a missing or damaged table, on unlike settings, on cells with
    too few episodes, and on a policy that two folders hold (a baseline may be in both, with the same results).
    """
    if not folders:
        raise UserError("name at least one run folder, such as runs/C00-C11.")
    protocols, trainings, cells, origin = {}, {}, {}, {}
    for folder in folders:
        protocols[folder] = _read_settings(folder)
        if (folder / CONFIG).exists():
            trainings[folder] = _read_training(folder)
    refuse_unlike("evaluated", protocols)
    refuse_unlike("trained", trainings)
    for folder in folders:
        for cell, values in _read_cells(folder, protocols[folder]).items():
            if cell in cells and not (cell.arm in BASELINES and np.array_equal(cells[cell], values)):
                raise UserError(f"{origin[cell]} and {folder} both hold {cell}: evaluate it in one of them only.")
            cells[cell], origin[cell] = values, folder
    return Evaluation(protocols[folders[0]], cells)


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / EVALUATION_JSON
    if not path.exists() or not (folder / EVALUATION_CSV).exists():
        raise UserError(f"{folder} has no evaluation table: run  purecc4 evaluate {folder}  first.")
    settings = read_json(path)
    lacking = [key for key in SETTINGS if not isinstance(settings, dict) or key not in settings]
    if lacking:
        raise UserError(f"{path} does not say {lacking[0]}: evaluate {folder} again.")
    return {key: value for key, value in settings.items() if key != ABOUT}


def _read_training(folder: Path) -> dict[str, Any]:
    algorithm, resolved = read_config(folder)
    return {"algorithm": algorithm} | {key: value for key, value in resolved.items() if key not in MAY_DIFFER}


def _read_cells(folder: Path, settings: dict) -> dict[Cell, Float[np.ndarray, "env term"]]:
    path = folder / EVALUATION_CSV
    episodes: dict[Cell, dict[int, list[float]]] = {}
    for line, row in read_rows(path, EVALUATION_COLUMNS):
        if row["mode"] != settings["mode"]:
            raise UserError(
                f"{path} line {line} has mode {row['mode']} where {EVALUATION_JSON} says "
                f"{settings['mode']}: unlike rows are not pooled."
            )
        cell = Cell(row["arm"], whole_in(row, "seed", path, line), whole_in(row, "env_steps", path, line), row["red"])
        by_episode = episodes.setdefault(cell, {})
        episode = whole_in(row, "episode", path, line)
        if episode in by_episode:
            raise UserError(f"{path} line {line} repeats episode {episode} of {cell}.")
        by_episode[episode] = [number_in(row, name, path, line) for name in VALUES]
    if not episodes:
        raise UserError(f"{path} has no rows: evaluate {folder} again.")
    for cell, found in episodes.items():
        if len(found) != settings["episodes"]:
            raise UserError(
                f"{path} has {len(found)} of {settings['episodes']} episodes of {cell}: evaluate {folder} again."
            )
    return {cell: np.array([found[episode] for episode in sorted(found)]) for cell, found in episodes.items()}
