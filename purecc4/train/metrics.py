"""The table `metrics.csv` of a run folder, a row per run and update: how it is written and read."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from purecc4.errors import UserError, user_file
from purecc4.train.folder import METRICS_CSV, PARTS, number_in, read_rows, whole_in, write_csv

METRICS_COLUMNS = ("arm", "seed", "update", "env_steps", "return", *PARTS)  # the least that metrics.csv holds


class Curve(NamedTuple):
    """Training metrics of one run over its updates: env steps, and mean episode return of the update."""

    env_steps: Float[np.ndarray, "update"]
    returns: Float[np.ndarray, "update"]


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows, all with the same columns in the same order; an empty or new file gets their names first."""
    with user_file(path), path.open("a", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


def drop_after(path: Path, update: int) -> None:
    """Drop the rows of updates later than `update`, and what a killed process left of a row."""
    if not path.exists() or not path.stat().st_size:
        return
    with user_file(path), path.open(newline="") as file:
        names, *rows = csv.reader(file)
    column = names.index("update")
    write_csv(path, names, [row for row in rows if len(row) == len(names) and int(row[column]) <= update])


def read_metrics(folders: Sequence[Path]) -> dict[tuple[str, int], Curve]:
    """Training curves by (arm, seed) from the folders that have a metrics table; the others are skipped.

    Raises UserError on a damaged table and on a run that two folders hold.
    """
    curves, origin = {}, {}
    for folder in folders:
        path = folder / METRICS_CSV
        points: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for line, row in read_rows(path, METRICS_COLUMNS) if path.exists() else ():
            run = (row["arm"], whole_in(row, "seed", path, line))
            pair = tuple(number_in(row, name, path, line) for name in ("env_steps", "return"))
            points.setdefault(run, []).append(pair)
        for run, pairs in points.items():
            if run in curves:
                raise UserError(f"{origin[run]} and {folder} both trained {run[0]} seed {run[1]}: report one of them.")
            curves[run], origin[run] = Curve(*np.array(sorted(pairs)).T), folder
    return curves
