"""From evaluation tables to the verdict: `purecc4 report runs/NAME...`.

Reads the evaluation table, `evaluation.json`, `metrics.csv` and `nudge.csv` of the run folders; writes `report.md`,
each figure as PNG and SVG, and each table as CSV.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from purecc4.play.tables import to_csv
from purecc4.report import figures
from purecc4.report.findings import PAGE, find, run_folders
from purecc4.report.markdown import text


@dataclass(frozen=True)
class Config:
    """Report on evaluated run folders as one study: verdicts, intervals, ablation, actions, curves."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders that hold an evaluation table, such as results/study/*; files and reports among them do not count."""
    control: str = "C00"
    """Arm that all others are compared with."""
    env_steps: int | Literal["last"] = "last"
    """Checkpoint to compare, in env steps; by default the last that all runs share."""
    to: Path | None = None
    """Folder to write; default: report/ in the first run folder."""


def write_report(config: Config) -> Path:
    """Write the report's files and return the folder; on bad input nothing of an earlier report has changed."""
    runs = run_folders(config.runs)
    found = find(runs, config.control, config.env_steps)
    to = config.to or runs[0] / "report"
    files = figures.draw(figures.drawings_of(found))
    drawn = {name.partition(".")[0] for name in files}
    files |= {f"{name}.csv": to_csv(table) for name, table in found.tables.items()}
    files[PAGE] = text(found, runs, drawn).encode()
    figures.write_files(to, files)
    return to


def run(config: Config) -> None:
    """Write the report and print where its page is."""
    print(write_report(config) / PAGE)
