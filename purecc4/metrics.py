"""The table `metrics.csv` of a run folder while it is being written: a row per run and update. `tables` reads it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from purecc4.tables import write_csv


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows, all with the same columns in the same order; an empty or new file gets their names first."""
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


def drop_after(path: Path, update: int) -> None:
    """Drop the rows of updates later than `update`, and what a killed process left of a row."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open(newline="") as file:
        names, *rows = csv.reader(file)
    column = names.index("update")
    write_csv(path, names, [row for row in rows if len(row) == len(names) and int(row[column]) <= update])
