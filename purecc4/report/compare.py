"""Run folders side by side at equal env steps, of any algorithms: `purecc4 compare runs/A runs/B...`.

Prints a row for each arm of each folder and draws the learning curves. Evaluated returns stand beside those of training
where there are any; they must come from one protocol. Unlike `report`, nothing is pooled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from purecc4.errors import UserError, user_file
from purecc4.play import tables
from purecc4.report.figures import RED_STYLES, draw, legend, panels
from purecc4.report.statistics import estimate
from purecc4.train import folder, metrics
from purecc4.train.checkpoint import CONFIG

FIGURE = "learning_curves"


@dataclass(frozen=True)
class Config:
    """Compare run folders at equal env steps: training, evaluation if there is one, learning curves."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, of any algorithms (paths)."""
    to: Path | None = None
    """Folder for the figure; default: compare/ in the first run folder (a path)."""


class Group(NamedTuple):
    """An arm in a run folder."""

    run: Path
    algorithm: str
    arm: str
    curves: dict[int, metrics.Curve]
    """By seed."""
    returns: dict[tables.Cell, float]
    """Evaluated, mean over episodes; empty where there is no evaluation."""


def read(runs: Sequence[Path]) -> list[Group]:
    """The arms of all folders, in order. Raises UserError, in one sentence, on what cannot be compared."""
    if not runs or len(set(runs)) < len(runs):
        raise UserError("name one or more run folders, each once, such as runs/ippo runs/mappo.")
    for run in runs:
        if not (run / CONFIG).exists() or not (run / folder.METRICS_CSV).exists():
            raise UserError(f"{run} is no run folder: give one that a script of algos/ has written.")
    evaluations = {run: tables.read_evaluation([run]) for run in runs if (run / tables.EVALUATION_CSV).exists()}
    folder.refuse_unlike("evaluated", {run: evaluation.settings for run, evaluation in evaluations.items()})
    groups = []
    for run in runs:
        (algorithm, _), curves = folder.read_config(run), metrics.read_metrics([run])
        if not curves:
            raise UserError(f"{run / folder.METRICS_CSV} has no rows: train for at least one update first.")
        cells = evaluations[run].cells if run in evaluations else {}
        returns = {cell: float(values[:, tables.VALUES.index("return")].mean()) for cell, values in cells.items()}
        for arm in dict.fromkeys(arm for arm, _ in curves):
            of_arm = {seed: curve for (name, seed), curve in curves.items() if name == arm}
            groups.append(Group(run, algorithm, arm, of_arm, {c: x for c, x in returns.items() if c.arm == arm}))
    return groups


def latest(which: str, steps: Iterable[Iterable[float | int]]) -> int:
    """The largest number of env steps that is in all of them. UserError if there is none."""
    common = set.intersection(*map(set, steps))
    if not common:
        raise UserError(f"the runs have no {which} at equal env steps.")
    return int(max(common))


def table(groups: Sequence[Group]) -> str:
    """A row for each group, under what was compared. UserError if they share no env steps."""
    trained = latest("training return", (curve.env_steps for group in groups for curve in group.curves.values()))
    played = {}
    for group in groups:
        for cell in group.returns:
            played.setdefault((group.run, cell._replace(env_steps=0)), []).append(cell.env_steps)
    evaluated = latest("evaluated checkpoints", played.values()) if played else None
    reds = list(dict.fromkeys(cell.red for group in groups for cell in group.returns))
    rows = [["run", "algorithm", "arm", "seeds", "env steps", "training", *reds]]
    for run, algorithm, arm, curves, returns in groups:
        total = max(int(curve.env_steps[-1]) for curve in curves.values())
        columns = [[curve.returns[curve.env_steps == trained][0] for curve in curves.values()]]
        columns += [[x for c, x in returns.items() if (c.red, c.env_steps) == (red, evaluated)] for red in reds]
        shown = [mean_over_seeds(values, len(curves)) for values in columns]
        rows.append([str(run), algorithm, arm, str(len(curves)), f"{total:,}", *shown])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    about = f"Return per episode in training at {trained:,} env steps (comparable within an arm only)"
    about += f", evaluated by red at {evaluated:,}" if played else ", not evaluated"
    return "\n".join([f"{about}; mean over seeds ± standard error.", "", *lines])


def mean_over_seeds(values: Sequence[float], seeds: int) -> str:
    """Mean and standard error, and how many seeds there are where it is not all of them."""
    if not values:
        return "-"
    found = estimate(values)
    error = f" ± {found.stderr:.0f}" if found.n > 1 else ""
    return f"{found.mean:.0f}{error}" + (f" (n={found.n})" if found.n != seeds else "")


def learning_curves(groups: Sequence[Group]) -> Figure:
    """Training return, a panel per arm and a line per folder: mean over its seeds, and lowest to highest as a band."""
    arms, runs = (list(dict.fromkeys(names)) for names in zip(*((g.arm, g.run) for g in groups), strict=True))
    figure, axes = panels(len(arms), 3, (3.4, 2.6), sharex=True, sharey=False)
    styles, handles = dict(zip(runs, cycle(RED_STYLES), strict=False)), {}
    for group in groups:
        axis, (marker, style, grey) = axes[arms.index(group.arm)], styles[group.run]
        length = min(len(curve.returns) for curve in group.curves.values())
        steps = next(iter(group.curves.values())).env_steps[:length] / 1e6
        returns = np.stack([curve.returns[:length] for curve in group.curves.values()])
        axis.fill_between(steps, returns.min(0), returns.max(0), color="0.5", alpha=0.25, linewidth=0)
        look = {"marker": marker, "linestyle": style, "color": grey, "mfc": "white", "markersize": 4, "linewidth": 1}
        (drawn,) = axis.plot(steps, returns.mean(0), **look, markevery=max(1, length // 8))
        drawn.set_label(f"{group.run} ({group.algorithm})")
        handles[group.run] = drawn
        axis.set_title(group.arm)
        axis.grid(color="0.92")
    figure.supxlabel("million env steps", fontsize=9)
    figure.supylabel("training return per episode", fontsize=9)
    legend(figure, [*handles.values(), Patch(color="0.8", label="lowest to highest seed")], 2)
    return figure


def run(config: Config) -> None:
    """Draw the learning curves and print the table."""
    groups = read(config.runs)
    text, to = table(groups), config.to or config.runs[0] / "compare"
    with user_file(to):
        to.mkdir(parents=True, exist_ok=True)
        draw(to, {FIGURE: partial(learning_curves, groups)})
    print(text)
    print(to / f"{FIGURE}.png")
