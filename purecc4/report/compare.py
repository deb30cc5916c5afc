"""Compare run folders of any algorithms at equal env steps: `purecc4 compare runs/A runs/B...`.

Prints a row per arm and folder and draws the learning curves, and the return against the hyperparameters of a sweep.
Rows include evaluated returns if there are any; all evaluations must share one protocol. Unlike `report`, it pools
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import pandas as pd
import tyro
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from tabulate import tabulate

from purecc4.errors import UserError
from purecc4.play.selection import shared
from purecc4.play.tables import BASELINE_SEED, EVALUATION_COLUMNS, Mode, read_evaluation, table_of
from purecc4.report import sweep
from purecc4.report.figures import RED_STYLES, draw, legend, panels, together, wrapped, write_files
from purecc4.report.statistics import estimate
from purecc4.report.sweep import Point
from purecc4.train import definitions, metrics, run_reader
from purecc4.train.checkpoint import CONFIG

FIGURE = "learning_curves"


@dataclass(frozen=True)
class Config:
    """Compare training and evaluation of run folders at equal env steps."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of any algorithms."""
    env_steps: int | Literal["last"] = "last"
    """Env steps at which to compare (default: the last that all runs share)."""
    mode: Mode = "sampled"
    """Action mode of the evaluated episodes."""
    to: Path | None = None
    """Folder for the figure (default: compare/ in the first run folder)."""


class Group(NamedTuple):
    """An arm in a run folder."""

    run: Path
    algorithm: str
    arm: str
    curves: dict[int, metrics.Curve]
    """Training curves by seed."""
    returns: pd.Series
    """Evaluated return, mean over episodes, by (red, env_steps, seed). Empty without an evaluation."""


def read(runs: Sequence[Path], mode: Mode = "sampled") -> list[Group]:
    """Read the arms of all folders, in order. Raises UserError for folders that cannot be compared."""
    if not runs or len(set(runs)) < len(runs):
        raise UserError("give one or more run folders, each once, such as runs/ippo runs/mappo.")
    for run in runs:
        if not (run / CONFIG).exists() or not (run / run_reader.METRICS_CSV).exists():
            raise UserError(f"{run} is not a run folder: give a folder written by a script of algos/.")
    evaluations = {run: read_evaluation([run]).faithful() for run in runs if table_of(run).exists()}
    run_reader.refuse_unlike("evaluated", {run: evaluation.settings for run, evaluation in evaluations.items()})
    definitions.refuse_unlike_matches(evaluations)
    groups = []
    for run in runs:
        (algorithm, _), curves = run_reader.read_config(run), metrics.read_metrics([run])
        rows = evaluations[run].rows if run in evaluations else pd.DataFrame(columns=EVALUATION_COLUMNS)
        rows = rows[(rows["mode"] == mode) & (rows["seed"] != BASELINE_SEED)]
        for arm in dict.fromkeys(arm for arm, _ in curves):
            of_arm = {seed: curve for (name, seed), curve in curves.items() if name == arm}
            returns = rows[rows["arm"] == arm].groupby(["red", "env_steps", "seed"], sort=False)["return"].mean()
            groups.append(Group(run, algorithm, arm, of_arm, returns))
    return groups


def shared_steps(groups: Sequence[Group], env_steps: int | str = "last") -> tuple[int, int | None]:
    """Env steps at which to compare training and evaluation, the latter None if nothing was evaluated.

    Raises UserError if the groups share none.
    """
    updates = {
        f"{group.run} {group.arm} seed {seed}": curve.env_steps.astype(int).tolist()
        for group in groups
        for seed, curve in group.curves.items()
    }
    trained = shared(updates, "training return", env_steps)
    played = {
        f"{group.run} {group.arm} seed {seed} against {red}": returns.index.unique("env_steps").tolist()
        for group in groups
        for (red, seed), returns in group.returns.groupby(["red", "seed"])
    }
    return trained, shared(played, "evaluated checkpoints", env_steps) if played else None


def table(groups: Sequence[Group], env_steps: int | str = "last") -> str:
    """Format the comparison, a row per group. Raises UserError if they share no env steps."""
    trained, evaluated = shared_steps(groups, env_steps)
    reds = list(dict.fromkeys(red for group in groups for red in group.returns.index.unique("red")))
    header = ["run", "algorithm", "arm", "seeds", "env steps", "training", *reds]
    rows = [_row(group, reds, trained, evaluated) for group in groups]
    about = f"Training return per episode at {trained:,} env steps (only comparable within an arm)"
    about += f", evaluated return by red at {evaluated:,}" if evaluated else ", not evaluated"
    about += "; mean over seeds ± standard error."
    return "\n\n".join([about, tabulate(rows, header, "plain", disable_numparse=True)])


def _row(group: Group, reds: Sequence[str], trained: int, evaluated: int | None) -> list[str]:
    curves, returns = group.curves.values(), group.returns
    total = max(int(curve.env_steps[-1]) for curve in curves)
    columns = [training_returns(group, trained)]
    columns += [[x for (r, at, _), x in returns.items() if (r, at) == (red, evaluated)] for red in reds]
    shown = [mean_over_seeds(values, len(curves)) for values in columns]
    return [str(group.run), group.algorithm, group.arm, str(len(curves)), f"{total:,}", *shown]


def training_returns(group: Group, at: int) -> list[float]:
    """Training return of every seed in the update that ends at these env steps."""
    return [x for curve in group.curves.values() for x in curve.returns[curve.env_steps == at]]


def sweep_points(groups: Sequence[Group], env_steps: int | str = "last") -> tuple[list[Point], str]:
    """Points of the groups that belong to a sweep, and what their returns are: evaluated if all are, else training."""
    swept = {run: run_reader.read_variants(run) for run in dict.fromkeys(group.run for group in groups)}
    groups = [group for group in groups if group.arm in swept[group.run]]
    if not groups:
        return [], ""
    trained, evaluated = shared_steps(groups, env_steps)
    played = [group.returns[group.returns.index.get_level_values("env_steps") == evaluated] for group in groups]
    if evaluated and all(map(len, played)):
        reds = dict.fromkeys(red for returns in played for red in returns.index.unique("red"))
        measure = f"return at {evaluated:,} env steps against {', '.join(reds)}"
        columns = [list(returns.groupby("seed").mean()) for returns in played]
    else:
        measure = f"training return at {trained:,} env steps"
        columns = [training_returns(group, trained) for group in groups]
    points = []
    for group, returns in zip(groups, columns, strict=True):
        values = dict(swept[group.run][group.arm])
        points.append(Point(group.run, values.pop("arm"), values, returns))
    return points, measure


def mean_over_seeds(values: Sequence[float], seeds: int) -> str:
    """Format mean and standard error, with the number of values if some seeds have none."""
    if not values:
        return "-"
    found = estimate(values)
    error = f" ± {found.stderr:.0f}" if found.n > 1 else ""
    return f"{found.mean:.0f}{error}" + (f" (n={found.n})" if found.n != seeds else "")


def learning_curves(groups: Sequence[Group]) -> Figure:
    """Training return, a panel per arm and a line per folder: mean over seeds, with a band from minimum to maximum."""
    arms, runs = (list(dict.fromkeys(names)) for names in zip(*((g.arm, g.run) for g in groups), strict=True))
    figure, axes = panels(len(arms), 3, (3.4, 2.6), sharex=True, sharey=False)
    styles, handles = dict(zip(runs, cycle(RED_STYLES), strict=False)), {}
    for group in groups:
        axis, (marker, style, grey) = axes[arms.index(group.arm)], styles[group.run]
        steps, returns = together(list(group.curves.values()))
        axis.fill_between(steps, returns.min(0), returns.max(0), color="0.5", alpha=0.25, linewidth=0)
        look = {"marker": marker, "linestyle": style, "color": grey, "mfc": "white", "markersize": 4, "linewidth": 1}
        (drawn,) = axis.plot(steps, returns.mean(0), **look, markevery=max(1, len(steps) // 8))
        drawn.set_label(f"{group.run} ({group.algorithm})")
        handles[group.run] = drawn
        axis.set_title(wrapped(group.arm))
        axis.grid(color="0.92")
    figure.supxlabel("million env steps", fontsize=9)
    figure.supylabel("training return per episode", fontsize=9)
    legend(figure, [*handles.values(), Patch(color="0.8", label="range over seeds")], 2)
    return figure


def run(config: Config) -> None:
    """Draw the figures and print the table."""
    groups = read(config.runs, config.mode)
    text, to = table(groups, config.env_steps), config.to or config.runs[0] / "compare"
    points, measure = sweep_points(groups, config.env_steps)
    drawings = {FIGURE: partial(learning_curves, groups)}
    drawings |= {sweep.FIGURE: partial(sweep.sweep_figure, points, measure)} if points else {}
    write_files(to, draw(drawings))
    print(text)
    for name in drawings:
        print(to / f"{name}.png")
