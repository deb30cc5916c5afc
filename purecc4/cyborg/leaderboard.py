"""Play every policy of the leaderboard in CybORG, on the same seeds, and print the table.

    purecc4 leaderboard --cyborg ../cage-challenge-4 --cyborg-python ../cyborg-venv/bin/python --fast

Run it in a clone of the repository, which has the networks. Each policy's episodes are kept in a file of its own, and
only missing ones are played.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from purecc4 import limits
from purecc4.cyborg import transfer
from purecc4.errors import UserError
from purecc4.play.tables import OWN_ZONES
from purecc4.report.markdown import table


class Entry(NamedTuple):
    """A policy of the leaderboard."""

    observes: str
    chosen: dict[str, Any]
    """Settings of `purecc4 transfer` that select it; run folders are relative to the repository."""


def _trained(run: str, arm: str, seed: int) -> dict[str, Any]:
    return {"run": Path(run), "arm": arm, "seed": seed}


ENTRIES = {
    "sleep": Entry("nothing", {"policy": "sleep"}),
    "random": Entry("nothing", {"policy": "random"}),
    "ippo C00": Entry("flat", _trained("results/study/C00", "C00", 142)),
    "ippo C11": Entry("flat", _trained("results/study/C11", "C11", 142)),
    "ippo_notebook": Entry("flat", _trained("results/strong", "C00", 142)),
    "sweep": Entry("raw", {"policy": "sweep"}),
    "analyst": Entry("raw", {"policy": "analyst"}),
    "ippo_history": Entry("raw", _trained("results/history", "C00", 42)),
    "pgpe": Entry("raw", _trained("results/champion", "C00", 42)),
}
"""By name. Seeds of trained policies are those that the pages of docs/ report."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Play the leaderboard."""

    cyborg: Path = Path("../cage-challenge-4")
    """Checkout of cage-challenge-4."""
    cyborg_python: str = "python3"
    """Python interpreter that can import CybORG."""
    fast: bool = False
    """Replace CybORG's slow functions at run time, as `purecc4 transfer --fast` does."""
    policies: tuple[str, ...] = tuple(ENTRIES)
    """Rows to play."""
    episodes: int = 100
    """Episodes of each policy in CybORG, and here."""
    eval_seed: int = 20001
    """Seed of the first episode in CybORG, the same for all policies."""
    workers: int = limits.cores()
    """Number of CybORG processes."""
    to: Path = Path("results/leaderboard")
    """Folder of the episodes in CybORG, a CSV file per policy. Use a new one after retraining a network."""


def run(config: Config) -> None:
    """Play all rows and print them as a Markdown table, the best return last."""
    played = {}
    for name, settings in check(config).items():
        tqdm.write(f"{name}:", file=sys.stderr)
        played[name] = transfer.play(settings)
    print(text(played))


def check(config: Config) -> dict[str, transfer.Config]:
    """Settings of each row. Raises UserError for no or an unknown policy, and as `transfer.check` does."""
    if not config.policies:
        raise UserError("--policies needs at least one name.")
    if unknown := [name for name in config.policies if name not in ENTRIES]:
        raise UserError(f"{unknown[0]!r} is not on the leaderboard: choose from {', '.join(ENTRIES)}.")
    shared = {name: getattr(config, name) for name in ("cyborg", "cyborg_python", "fast", "eval_seed", "workers")}
    shared |= {"episodes": config.episodes, "episodes_here": config.episodes}
    rows = {
        name: transfer.Config(**ENTRIES[name].chosen, **shared, to=config.to / f"{name.replace(' ', '_')}.csv")
        for name in config.policies
    }
    for settings in rows.values():
        transfer.check_settings(settings)
    transfer.check_cyborg(config.cyborg)
    transfer.check_python(settings)
    return rows


def text(played: dict[str, tuple[transfer.Table, transfer.Table]]) -> str:
    """Format the table, from the episodes in CybORG and here of each policy."""
    rows = [
        [
            name,
            ENTRIES[name].observes,
            shown(theirs["return"]),
            shown(theirs[OWN_ZONES]),
            shown(theirs["return"] - theirs[OWN_ZONES]),
            shown(ours["return"]),
            str(len(theirs["return"])),
        ]
        for name, (theirs, ours) in sorted(played.items(), key=lambda row: row[1][0]["return"].mean())
    ]
    header = ["policy", "observes", "return", "own zones", "contractor network", "return here", "episodes"]
    return table(header, rows, left=2)


def shown(values: Float[np.ndarray, "episode"]) -> str:
    """Mean and standard error of the mean."""
    return f"{values.mean():.1f} ± {values.std(ddof=1) / len(values) ** 0.5:.1f}"
