"""Episodes that CybORG played, as a table that grows: `transfer --to FILE` plays only those that it lacks.

An episode takes CybORG half a minute, so each is written as soon as it is there.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from purecc4.errors import UserError
from purecc4.play.tables import CELL, OVERFLOW, VALUES, Cell, read_numbers, write_table

THEIRS = tuple(name for name in VALUES if name != OVERFLOW)
"""What is known of an episode in CybORG, whose tables have no bounds."""
COLUMNS = [*CELL, "num_steps", "episode", *THEIRS]
"""`episode` is CybORG's seed."""


class EpisodeCache:
    """The episodes of one policy against one red; the file may hold others, which stay."""

    def __init__(self, path: Path | None, cell: Cell, num_steps: int):
        """Raises UserError if the file is there but is no such table. Without a path nothing is written."""
        self.path, self.key = path, {**cell._asdict(), "num_steps": num_steps}
        self.rows = _read(path) if path and path.exists() else pd.DataFrame(columns=COLUMNS)

    @property
    def own(self) -> pd.DataFrame:
        """Rows of this policy."""
        return self.rows[(self.rows[list(self.key)] == list(self.key.values())).all(axis=1)]

    def add(self, episode: dict[str, int | float]) -> None:
        """One more episode; what its line lacks is 0."""
        row = pd.DataFrame([dict.fromkeys(THEIRS, 0) | episode | self.key], columns=COLUMNS)
        self.rows = pd.concat([self.rows, row], ignore_index=True) if len(self.rows) else row
        if self.path:
            write_table(self.path, self.rows)

    def values(self, seeds: Collection[int]) -> dict[str, Float[np.ndarray, "_"]]:
        """THEIRS by name, a value for each of these seeds that was played."""
        rows = self.own[self.own["episode"].isin(seeds)]
        return {name: rows[name].to_numpy(float) for name in THEIRS}


def _read(path: Path) -> pd.DataFrame:
    try:
        return read_numbers(path, COLUMNS)
    except UserError as error:
        raise UserError(f"{error} --to needs a table of CybORG's episodes: give it another file.") from None
