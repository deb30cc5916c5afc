"""Report on evaluated run folders: `purecc4 report runs/NAME...`.

Reads the evaluation table, `evaluation.json`, `metrics.csv` and `nudge.csv` of the run folders. Writes `report.md`,
the figures as PNG and SVG, and the tables as CSV.
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
    """Report on evaluated run folders as one study: verdicts, intervals, ablation, actions and curves."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Evaluated run folders, such as results/study/*. Files and reports among them are ignored."""
    control: str = "C00"
    """Control arm."""
    env_steps: int | Literal["last"] = "last"
    """Checkpoint in env steps (default: the last that all runs share)."""
    to: Path | None = None
    """Output folder (default: report/ in the first run folder)."""


def write_report(config: Config) -> Path:
    """Write the report. Returns its folder. Invalid input leaves an earlier report unchanged."""
    runs = run_folders(config.runs)
    found = find(runs, config.control, config.env_steps)
    to = config.to or runs[0] / "report"
    files = figures.draw(figures.drawings_of(found))
    drawn = {name.partition(".")[0] for name in files}
    files |= {f"{name}.csv": to_csv(table) for name, table in found.tables.items()}
    files[PAGE] = text(found, runs, drawn).encode(errors="replace")
    figures.write_files(to, files)
    return to


def run(config: Config) -> None:
    """Write the report and print the path of its page."""
    print(write_report(config) / PAGE)
