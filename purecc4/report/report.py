"""From evaluation tables to the verdict: `purecc4 report runs/NAME...`.

Reads `evaluation.csv`, `evaluation.json` and `metrics.csv` of the run folders; writes `report.md`, each figure as PNG
and SVG, and each table as CSV.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from purecc4.errors import user_file
from purecc4.play.tables import ACTIONS, EXECUTED, SUBMITTED, VALUES
from purecc4.report import figures
from purecc4.report.findings import Findings, find
from purecc4.report.prose import text
from purecc4.report.published import SideBySide
from purecc4.report.statistics import Estimate, estimate
from purecc4.report.study import values_of
from purecc4.train.folder import write_csv


@dataclass(frozen=True)
class Config:
    """Report on evaluated run folders, pooled: verdicts, intervals, ablation, actions, curves, published numbers."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders that hold an evaluation table (purecc4 evaluate)."""
    control: str = "C00"
    """Arm that all others are compared with."""
    env_steps: int | None = None
    """Checkpoint to compare, in env steps; default: the latest that all runs share."""
    to: Path | None = None
    """Folder to write; default: report/ in the first run folder."""


def write_report(config: Config) -> Path:
    """Write the report's files and return the folder; on an error nothing of an earlier report has changed."""
    found = find(config.runs, config.control, config.env_steps)
    to = config.to or config.runs[0] / "report"
    with user_file(to):
        to.mkdir(parents=True, exist_ok=True)
    with user_file(to), tempfile.TemporaryDirectory(dir=to, prefix=".writing-") as scratch:
        folder = Path(scratch)
        drawn = figures.draw(folder, figures.drawings_of(found))
        write_tables(folder, found)
        (folder / "report.md").write_text(text(found, config.runs, drawn), encoding="utf-8")
        for file in sorted(folder.iterdir()):
            os.replace(file, to / file.name)
    return to


def write_tables(folder: Path, found: Findings) -> None:
    """The report's numbers as CSV: cells, returns, deltas, effects, actions, published."""
    study = found.study
    cells = [(*key, *map(float, values)) for key, values in study.means.items()]
    write_csv(folder / "cells.csv", ("arm", "seed", "red", *VALUES), cells)
    returns = [(row.arm, row.red, *row.found, row.above_sleep) for row in found.returns]
    write_csv(folder / "returns.csv", ("arm", "red", *Estimate._fields, "above_sleep"), returns)
    columns = ("arm", "red", *Estimate._fields, "verdict", "sign_flip", "iqm", "iqm_low", "iqm_high")
    deltas = [
        (r.arm, r.red, *r.found, r.verdict, r.sign_flip, *r.iqm, *(r.per_seed.get(s, "") for s in study.seeds))
        for r in found.deltas
    ]
    write_csv(folder / "deltas.csv", (*columns, *(f"seed_{seed}" for seed in study.seeds)), deltas)
    effects = [
        (row.name, red, *estimate(values_of(seeds))) for row in found.effects for red, seeds in row.per_seed.items()
    ]
    write_csv(folder / "effects.csv", ("name", "red", *Estimate._fields), effects)
    actions = [
        (arm, seed, red, kind, *map(float, shares))
        for arm in (*study.arms, *study.baselines)
        for red in study.views
        for kind, names in (("submitted", SUBMITTED), ("executed", EXECUTED))
        for seed, shares in study.shares(arm, red, names).items()
    ]
    write_csv(folder / "actions.csv", ("arm", "seed", "red", "kind", *ACTIONS), actions)
    write_csv(folder / "published.csv", SideBySide._fields, found.compared)


def run(config: Config) -> None:
    """Write the report and print where its page is."""
    print(write_report(config) / "report.md")
