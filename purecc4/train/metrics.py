"""Writing and reading `metrics.csv`, the table of a run folder with a row per run and update."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from purecc4 import files
from purecc4.errors import UserError, user_file
from purecc4.train.run_reader import METRICS_CSV, REWARD_TERMS, number_in, read_rows, whole_in

METRICS_COLUMNS = ("arm", "seed", "update", "env_steps", "return", *REWARD_TERMS)
"""Columns that every version of metrics.csv has."""


class Curve(NamedTuple):
    """Training curve of one run: env steps and mean episode return of each update."""

    env_steps: Float[np.ndarray, "update"]
    returns: Float[np.ndarray, "update"]


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows, all with the same columns in the same order. A new file starts with the column names."""
    names = [] if path.exists() and path.stat().st_size else [list(rows[0])]
    files.append(path, files.csv_text([*names, *(list(row.values()) for row in rows)]))


def cut_after(path: Path, update: int, runs: Sequence[tuple[str, int]], columns: Sequence[str]) -> None:
    """Drop the rows of updates later than `update`, and the incomplete row that a killed process may leave.

    Columns that an older version did not write stay empty. Raises UserError if the file is damaged or lacks a row of an
    earlier update.
    """
    if not update:
        with user_file(path):
            path.unlink(missing_ok=True)
        return
    kept = [
        row
        for line, row in (read_rows(path, METRICS_COLUMNS) if path.exists() else ())
        if _is_whole(row) and whole_in(row, "update", path, line) <= update
    ]
    found = Counter((row["arm"], row["seed"], row["update"]) for row in kept)
    for number in range(1, update + 1):
        for arm, seed in runs:
            _check_once(path, arm, seed, number, found[arm, str(seed), str(number)])
    if path.exists():
        files.write_csv(path, columns, [[row.get(name, "") for name in columns] for row in kept])


def _is_whole(row: dict[str | None, str | None]) -> bool:
    """True if a row has as many fields as the table has columns. A killed process may leave half a row."""
    return None not in row and None not in row.values()


def _check_once(path: Path, arm: str, seed: int, update: int, count: int) -> None:
    if count != 1:
        raise UserError(
            f"{path} holds update {update} of arm {arm} with seed {seed} {count} times instead of once: "
            "restore the file that the training wrote."
        )


def read_metrics(folders: Sequence[Path]) -> dict[tuple[str, int], Curve]:
    """Training curves by (arm, seed). Folders without a metrics table are skipped.

    Raises UserError for a damaged or empty table, duplicated or missing updates, and a run that two folders hold.
    """
    curves, origin = {}, {}
    for folder in folders:
        path = folder / METRICS_CSV
        points: dict[tuple[str, int], list[tuple[float, ...]]] = {}
        for line, row in read_rows(path, METRICS_COLUMNS) if path.exists() else ():
            if not _is_whole(row):
                raise UserError(f"{path} line {line} has too few or too many fields: repair it with --resume.")
            run, update = (row["arm"], whole_in(row, "seed", path, line)), whole_in(row, "update", path, line)
            if update < 1:
                raise UserError(f"{path} line {line} has update {update}, but updates count from 1: restore the file.")
            points.setdefault(run, []).append(
                (update, *(number_in(row, x, path, line) for x in ("env_steps", "return")))
            )
        if path.exists() and not points:
            raise UserError(f"{path} has no rows: train for at least one update first.")
        last = max((max(rows)[0] for rows in points.values()), default=0)
        for run, rows in points.items():
            if run in curves:
                raise UserError(f"{origin[run]} and {folder} both trained {run[0]} seed {run[1]}: report one of them.")
            found = Counter(update for update, *_ in rows)
            for number in range(1, int(last) + 1):
                _check_once(path, *run, number, found[number])
            curves[run], origin[run] = Curve(*np.array(sorted(rows)).T[1:]), folder
    return curves
