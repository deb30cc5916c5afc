"""The table `metrics.csv` of a run folder, a row per run and update: how it is written and read."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from purecc4 import files
from purecc4.errors import UserError, user_file
from purecc4.train.run_reader import METRICS_CSV, REWARD_TERMS, number_in, read_rows, whole_in

METRICS_COLUMNS = ("arm", "seed", "update", "env_steps", "return", *REWARD_TERMS)  # the least that metrics.csv holds


class Curve(NamedTuple):
    """Training metrics of one run over its updates: env steps, and mean episode return of the update."""

    env_steps: Float[np.ndarray, "update"]
    returns: Float[np.ndarray, "update"]


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows, all with the same columns in the same order; an empty or new file gets their names first."""
    names = [] if path.exists() and path.stat().st_size else [list(rows[0])]
    files.append(path, files.csv_text([*names, *(list(row.values()) for row in rows)]))


def cut_after(path: Path, update: int, runs: Sequence[tuple[str, int]], columns: Sequence[str]) -> None:
    """Drop the rows of updates later than `update`, and what a killed process left of a row.

    A column of `columns` that an older version did not write stays empty. Raises UserError, naming the file, if it is
    damaged or lacks a row of an earlier update.
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
    """Whether a row has as many fields as the table has columns; half of one may be what a killed process left."""
    return None not in row and None not in row.values()


def _check_once(path: Path, arm: str, seed: int, update: int, count: int) -> None:
    if count != 1:
        raise UserError(
            f"{path} holds update {update} of arm {arm} with seed {seed} {count} times instead of once: "
            "it was changed, put the file back that training wrote."
        )


def read_metrics(folders: Sequence[Path]) -> dict[tuple[str, int], Curve]:
    """Training curves by (arm, seed) from the folders that have a metrics table; the others are skipped.

    Raises UserError on a damaged or empty table, on updates that repeat or are missing, and on a run that two folders
    hold.
    """
    curves, origin = {}, {}
    for folder in folders:
        path = folder / METRICS_CSV
        points: dict[tuple[str, int], list[tuple[float, ...]]] = {}
        for line, row in read_rows(path, METRICS_COLUMNS) if path.exists() else ():
            if not _is_whole(row):
                raise UserError(f"{path} line {line} has too few or too many fields: go on with --resume to mend it.")
            run, update = (row["arm"], whole_in(row, "seed", path, line)), whole_in(row, "update", path, line)
            if update < 1:
                raise UserError(f"{path} line {line} has update {update}, but the first is 1: it was changed.")
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
