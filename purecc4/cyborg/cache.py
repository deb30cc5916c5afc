"""Cache of episodes played in CybORG: `transfer --to FILE` plays only the missing ones.

An episode takes CybORG half a minute, so each one is saved as soon as it ends.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from purecc4.errors import UserError
from purecc4.play.metrics import METRICS
from purecc4.play.tables import CELL, OVERFLOW, VALUES, Cell, read_numbers, write_table

THEIRS = tuple(name for name in VALUES if name not in (OVERFLOW, *METRICS))
"""Values of an episode in CybORG, whose tables cannot overflow. Metrics are of this simulator only."""
COLUMNS = [*CELL, "num_steps", "episode", *THEIRS]
"""`episode` is CybORG's seed."""


class EpisodeCache:
    """Episodes of one policy in one match. Others in the same file are preserved."""

    def __init__(self, path: Path | None, cell: Cell, num_steps: int):
        """Read the file if it exists. Without a path nothing is saved. Raises UserError if it is not a cache."""
        self.path, self.key = path, {**cell._asdict(), "num_steps": num_steps}
        self.rows = _read(path) if path and path.exists() else pd.DataFrame(columns=COLUMNS)

    @property
    def own(self) -> pd.DataFrame:
        """Rows of this policy and match."""
        return self.rows[(self.rows[list(self.key)] == list(self.key.values())).all(axis=1)]

    def add(self, episode: dict[str, int | float]) -> None:
        """Add an episode and save the file. Missing values are 0."""
        row = pd.DataFrame([dict.fromkeys(THEIRS, 0) | episode | self.key], columns=COLUMNS)
        self.rows = pd.concat([self.rows, row], ignore_index=True) if len(self.rows) else row
        if self.path:
            write_table(self.path, self.rows)

    def values(self, seeds: Collection[int]) -> dict[str, Float[np.ndarray, "_"]]:
        """Values of THEIRS by name, over the cached episodes among these seeds."""
        rows = self.own[self.own["episode"].isin(seeds)]
        return {name: rows[name].to_numpy(float) for name in THEIRS}


def _read(path: Path) -> pd.DataFrame:
    try:
        rows = read_numbers(path, COLUMNS)
        for row in np.flatnonzero(rows.duplicated([*CELL, "num_steps", "episode"])):
            raise UserError(f"{path} line {row + 2} repeats episode {rows['episode'][row]}.")
        return rows
    except UserError as error:
        raise UserError(f"{error} --to needs a new file or one written by transfer: give another file.") from None
