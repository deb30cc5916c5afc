"""The tidy tables of a run folder: their columns, their writing and reading, and the refusal to pool unlike ones.

`evaluation.csv` has a row per episode and `evaluation.json` beside it the protocol; `metrics.csv` a row per run and
update. Tables that are read together must agree in the protocol, and in how their runs were trained.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from envs.cc4.constants import BlueAction
from purecc4.checkpoint import CONFIG

ACTIONS = tuple(action.name.lower() for action in BlueAction)
PARTS = ("lwf", "asf", "ria", "cost")
SUBMITTED = tuple(f"submitted_{action}" for action in ACTIONS)
EXECUTED = tuple(f"executed_{action}" for action in ACTIONS)
KEYS = ("arm", "seed", "env_steps", "red", "episode", "mode")
VALUES = ("return", *PARTS, *SUBMITTED, *EXECUTED, "red_sessions", "root_hosts")
EVALUATION_COLUMNS = KEYS + VALUES
METRICS_COLUMNS = ("arm", "seed", "update", "env_steps", "return", *PARTS)  # the least that metrics.csv holds

MODES = ("sample", "greedy")
SETTINGS = ("eval_seed", "episodes", "num_steps", "mode", "version")  # the least that evaluation.json holds
ABOUT = "about"  # key of evaluation.json for what may differ between tables: run, command, date, device
FREE_TO_CHANGE = ("name", "resume", "distributed", "total_timesteps", "checkpoint_every", "updates_per_call", "track")
"""Training settings that do not change what is learned by some number of env steps."""
MAY_DIFFER = ("arm", "seeds", *FREE_TO_CHANGE)  # in training, of runs that are pooled
BASELINES = ("sleep", "random")  # policies without a checkpoint: seed -1, env_steps 0
BASELINE_SEED = -1
EVALUATION_CSV, EVALUATION_JSON, METRICS_CSV = "evaluation.csv", "evaluation.json", "metrics.csv"


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


class Curve(NamedTuple):
    """Training metrics of one run over its updates: env steps, and mean episode return of the update."""

    env_steps: Float[np.ndarray, "update"]
    returns: Float[np.ndarray, "update"]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whole or not at all; floats keep 8 significant digits."""
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([f"{x:.8g}" if isinstance(x, float) else x for x in row] for row in rows)
    part.replace(path)


def read_evaluation(folders: Sequence[Path]) -> Evaluation:
    """Pool the evaluation tables of run folders.

    Raises ValueError, in one sentence, on no folder, on a missing or damaged table, on unlike settings, on cells with
    too few episodes, and on a policy that two folders hold (a baseline may be in both, with the same results).
    """
    if not folders:
        raise ValueError("name at least one run folder, such as runs/C00-C11.")
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
                raise ValueError(f"{origin[cell]} and {folder} both hold {cell}: evaluate it in one of them only.")
            cells[cell], origin[cell] = values, folder
    return Evaluation(protocols[folders[0]], cells)


def read_metrics(folders: Sequence[Path]) -> dict[tuple[str, int], Curve]:
    """Training curves by (arm, seed) from the folders that have a metrics table; the others are skipped.

    Raises ValueError on a damaged table and on a run that two folders hold.
    """
    curves, origin = {}, {}
    for folder in folders:
        path = folder / METRICS_CSV
        points: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for line, row in _rows(path, METRICS_COLUMNS) if path.exists() else ():
            run = (row["arm"], _whole(row, "seed", path, line))
            points.setdefault(run, []).append(tuple(_number(row, name, path, line) for name in ("env_steps", "return")))
        for run, pairs in points.items():
            if run in curves:
                raise ValueError(f"{origin[run]} and {folder} both trained {run[0]} seed {run[1]}: report one of them.")
            curves[run], origin[run] = Curve(*np.array(sorted(pairs)).T), folder
    return curves


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / EVALUATION_JSON
    if not path.exists() or not (folder / EVALUATION_CSV).exists():
        raise ValueError(f"{folder} has no evaluation table: run  python -m purecc4.evaluate {folder}  first.")
    settings = _read_json(path)
    lacking = [key for key in SETTINGS if not isinstance(settings, dict) or key not in settings]
    if lacking:
        raise ValueError(f"{path} does not say {lacking[0]}: evaluate {folder} again.")
    return {key: value for key, value in settings.items() if key != ABOUT}


def read_config(folder: Path) -> tuple[str, dict[str, Any]]:
    """Algorithm and settings that a run folder was trained with. ValueError if its settings are damaged or foreign."""
    content = _read_json(folder / CONFIG)
    resolved = content.get("resolved") if isinstance(content, dict) else None
    if not isinstance(resolved, dict):
        raise ValueError(f"{folder / CONFIG} does not say how {folder} was trained: it is damaged or foreign.")
    return content.get("algorithm", "ippo"), resolved


def _read_training(folder: Path) -> dict[str, Any]:
    algorithm, resolved = read_config(folder)
    return {"algorithm": algorithm} | {key: value for key, value in resolved.items() if key not in MAY_DIFFER}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is not JSON: it is damaged or foreign.") from None


def refuse_unlike(how: str, settings: dict[Path, dict[str, Any]]) -> None:
    """Raises ValueError, naming the first difference, unless all folders have the same settings."""
    if not settings:
        return
    first, expected = next(iter(settings.items()))
    for folder, found in settings.items():
        for key in (*expected, *found):
            if expected.get(key) != found.get(key):
                raise ValueError(
                    f"{first} and {folder} were {how} differently and are not pooled: "
                    f"{key} is {expected.get(key)} in the first and {found.get(key)} in the second."
                )


def _read_cells(folder: Path, settings: dict) -> dict[Cell, Float[np.ndarray, "env term"]]:
    path = folder / EVALUATION_CSV
    episodes: dict[Cell, dict[int, list[float]]] = {}
    for line, row in _rows(path, EVALUATION_COLUMNS):
        if row["mode"] != settings["mode"]:
            raise ValueError(
                f"{path} line {line} has mode {row['mode']} where {EVALUATION_JSON} says "
                f"{settings['mode']}: unlike rows are not pooled."
            )
        cell = Cell(row["arm"], _whole(row, "seed", path, line), _whole(row, "env_steps", path, line), row["red"])
        by_episode = episodes.setdefault(cell, {})
        episode = _whole(row, "episode", path, line)
        if episode in by_episode:
            raise ValueError(f"{path} line {line} repeats episode {episode} of {cell}.")
        by_episode[episode] = [_number(row, name, path, line) for name in VALUES]
    if not episodes:
        raise ValueError(f"{path} has no rows: evaluate {folder} again.")
    for cell, found in episodes.items():
        if len(found) != settings["episodes"]:
            raise ValueError(
                f"{path} has {len(found)} of {settings['episodes']} episodes of {cell}: evaluate {folder} again."
            )
    return {cell: np.array([found[episode] for episode in sorted(found)]) for cell, found in episodes.items()}


def _rows(path: Path, columns: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a table that must have `columns`."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in columns if name not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(f"{path} lacks the column {lacking[0]}.")
        for row in reader:
            yield reader.line_num, row


def _number(row: dict[str, str], name: str, path: Path, line: int) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(f"{path} line {line} has {row[name]!r} for {name}, which is no finite number.")
    return value


def _whole(row: dict[str, str], name: str, path: Path, line: int) -> int:
    value = _number(row, name, path, line)
    if value != int(value):
        raise ValueError(f"{path} line {line} has {row[name]!r} for {name}, which is no whole number.")
    return int(value)
