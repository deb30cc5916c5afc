"""Figures of a report, made to be read in black and white: greys, markers and hatches tell things apart, never hue."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from math import ceil
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from purecc4.play.tables import ACTIONS, EXECUTED, SUBMITTED, Evaluation
from purecc4.report.findings import Findings
from purecc4.report.published import ENV_STEPS, SOURCES, TEXT, SideBySide, published_actions
from purecc4.report.statistics import CONFIRM_MEAN, CONFIRMED, INCONCLUSIVE, REFUTE_MEAN, REFUTED
from purecc4.report.study import MEAN, DeltaRow, Study, checkpoint_curves
from purecc4.train.folder import PARTS
from purecc4.train.metrics import Curve

RC = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "purecc4",
    "hatch.linewidth": 0.6,
}
VERDICT_MARKERS = {CONFIRMED: ("s", "black"), INCONCLUSIVE: ("D", "0.6"), REFUTED: ("o", "white")}
NO_VERDICT = ("^", "0.8")
RED_STYLES = (("o", "-", "0.0"), ("s", "--", "0.0"), ("^", "-.", "0.0"), ("D", ":", "0.0"), ("v", "-", "0.5"))


def draw(folder: Path, drawings: dict[str, Callable[[], Figure]]) -> list[str]:
    """Write figures as PNG (150 dots per inch) and SVG, without dates, so that equal tables give equal files."""
    for name, drawing in drawings.items():
        with matplotlib.rc_context(RC):
            figure = drawing()
            figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return list(drawings)


def drawings_of(found: Findings) -> dict[str, Callable[[], Figure]]:
    """The figures that the tables allow, by name."""
    study, evaluation = found.study, found.evaluation
    paired = [row for row in found.compared if row.quantity == "paired delta"]
    drawings: dict[str, Callable[[], Figure]] = {}
    if found.deltas:
        drawings["forest"] = partial(forest, study, found.deltas)
    drawings["parts"] = partial(part_heat_map, study)
    drawings |= {f"actions_{red}": partial(action_bars, study, red) for red in study.reds}
    if found.curves:
        drawings["learning_curves"] = partial(learning_curves, study, found.curves)
    if len({cell.env_steps for cell in evaluation.cells if cell.arm in study.arms}) > 1:
        drawings["checkpoints"] = partial(checkpoint_figure, study, evaluation)
    if paired:
        drawings["published"] = partial(published_figure, paired)
    return drawings


def panels(
    count: int, columns: int, size: tuple[float, float], sharex: bool = False, sharey: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of `size` (width, height in inches) in rows of `columns`."""
    columns = min(columns, count)
    rows = ceil(count / columns)
    figure = Figure(figsize=(max(size[0] * columns + 0.9, 5.5), size[1] * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.set_visible(False)
    for axis in grid[max(count - columns, 0) : count]:
        axis.tick_params(labelbottom=True)
    return figure, list(grid[:count])


def name_rows(axis: Axes, names: Sequence[str], rows: int | None = None) -> None:
    """Put names on the y axis, first on top, in a panel that has room for `rows`."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim((rows or len(names)) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)


def legend(figure: Figure, handles: Sequence, columns: int = 4) -> None:
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)


def mark(marker: str, face: str, label: str, size: float = 6.0) -> Line2D:
    return Line2D([], [], marker=marker, color="black", mfc=face, markersize=size, linestyle="none", label=label)


def line(label: str, style: str = "-", grey: str = "black", width: float = 1.0) -> Line2D:
    return Line2D([], [], color=grey, linestyle=style, linewidth=width, label=label)


def span(axis: Axes, y: float, low: float, high: float, limits: tuple[float, float]) -> None:
    """A horizontal interval; where it leaves the limits an arrow head says so."""
    axis.hlines(y, max(low, limits[0]), min(high, limits[1]), color="black", linewidth=1)
    for goes_on, edge, head in ((low < limits[0], limits[0], "<"), (high > limits[1], limits[1], ">")):
        if goes_on:
            axis.plot(edge, y, marker=head, color="black", markersize=4)


def limits_around(values: Sequence[float]) -> tuple[float, float]:
    """The span of the finite values."""
    finite = [value for value in values if np.isfinite(value)]
    return min(finite), max(finite)


def set_limits(axis: Axes, limits: tuple[float, float]) -> None:
    air = 0.05 * (limits[1] - limits[0])
    axis.set_xlim(limits[0] - air, limits[1] + air)


def title_of(red: str) -> str:
    return "mean over the study's reds" if red == MEAN else red


def forest(study: Study, rows: Sequence[DeltaRow]) -> Figure:
    """Paired deltas to the control by red: seeds, mean, stderr, t-interval, verdict, and the rule's two bars."""
    names = list(dict.fromkeys(row.arm for row in rows))
    figure, axes = panels(len(study.views), 3, (3.3, 0.5 + 0.42 * len(names)), sharex=True)
    shown = [value for row in rows for value in (*row.per_seed.values(), *stderr_ends(row))]
    limits = limits_around([*shown, 0.0, CONFIRM_MEAN])
    for axis, red in zip(axes, study.views, strict=True):
        for at, style in ((0, "-"), (REFUTE_MEAN, ":"), (CONFIRM_MEAN, "--")):
            axis.axvline(at, color="0.5", linewidth=0.8, linestyle=style)
        for row in rows:
            if row.red == red:
                forest_row(axis, float(names.index(row.arm)), row, limits)
        axis.set_title(title_of(red))
        set_limits(axis, limits)
        name_rows(axis, names)
    figure.supxlabel(f"paired delta to {study.control}, points of return per episode", fontsize=9)
    verdicts = [mark(*style, label=name) for name, style in (*VERDICT_MARKERS.items(), ("no verdict", NO_VERDICT))]
    bars = [line(f"confirm bar {CONFIRM_MEAN:.0f}", "--", "0.5"), line(f"refute bar {REFUTE_MEAN:.0f}", ":", "0.5")]
    spans = [mark("|", "black", "one seed"), line("mean ± stderr", width=3.0), line("95 % t-interval")]
    legend(figure, [*verdicts, *spans, *bars], 3)
    return figure


def stderr_ends(row: DeltaRow) -> tuple[float, float]:
    return row.found.mean - row.found.stderr, row.found.mean + row.found.stderr


def forest_row(axis: Axes, y: float, row: DeltaRow, limits: tuple[float, float]) -> None:
    if row.found.n > 1:
        span(axis, y, row.found.low, row.found.high, limits)
        axis.hlines(y, *stderr_ends(row), color="black", linewidth=3)
    marker, face = VERDICT_MARKERS.get(row.verdict, NO_VERDICT)
    axis.plot(row.found.mean, y, marker=marker, mfc=face, mec="black", markersize=7)
    axis.plot(list(row.per_seed.values()), [y - 0.3] * row.found.n, "|", color="black", markersize=6)


def part_heat_map(study: Study) -> Figure:
    """Mean return by part, a panel per red; darker is more lost, scaled to the trained arms."""
    names = [*study.arms, *study.baselines]
    tables = {red: part_means(study, names, red) for red in study.views}
    trained = np.concatenate([table[: len(study.arms)].ravel() for table in tables.values()])
    darkest = min(float(np.nanmin(trained)), -1.0)
    figure, axes = panels(len(tables), 3, (3.0, 0.5 + 0.3 * len(names)))
    for axis, (red, table) in zip(axes, tables.items(), strict=True):
        image = axis.imshow(-table, cmap="Greys", vmin=0, vmax=-darkest, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            shown = "missing" if np.isnan(value) else f"{value:.0f}"
            grey = "white" if value < 0.6 * darkest else "black"
            axis.text(column, row, shown, ha="center", va="center", color=grey, fontsize=8)
        axis.set_title(title_of(red))
        axis.set_xticks(range(len(PARTS)), ["cost" if part == "cost" else part.upper() for part in PARTS])
        name_rows(axis, names)
        axis.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, extend="max" if study.baselines else "neither")
    bar.set_label("points lost per episode")
    return figure


def part_means(study: Study, names: Sequence[str], red: str) -> np.ndarray:
    """[arm, part] mean over seeds, NaN where missing."""
    found = [[list(study.per_seed(arm, red, part).values()) for part in PARTS] for arm in names]
    return np.array([[np.mean(values) if values else np.nan for values in row] for row in found])


def action_bars(study: Study, red: str) -> Figure:
    """Share of each action by arm: submitted (with its number) and executed, the control's level, published shares."""
    names = [arm for arm in (*study.arms, *study.baselines) if study.shares(arm, red)]
    submitted, executed = (mean_shares(study, names, red, columns) for columns in (SUBMITTED, EXECUTED))
    printed = {arm: published_actions(arm) for arm in names} if red == "fsm" else {}
    trained = [name in study.arms for name in names]
    widest = 1.3 * max(submitted[trained].max(), executed[trained].max(), 30.0)
    figure, axes = panels(len(ACTIONS), 4, (2.4, 0.5 + 0.36 * len(names)))
    for column, (axis, action) in enumerate(zip(axes, ACTIONS, strict=True)):
        rows = np.arange(len(names))
        axis.barh(rows - 0.18, submitted[:, column], 0.34, color="0.5", edgecolor="black", linewidth=0.5)
        axis.barh(
            rows + 0.18, executed[:, column], 0.34, color="white", edgecolor="black", linewidth=0.5, hatch="/////"
        )
        for row, share in enumerate(submitted[:, column]):
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            axis.text(0.99 * widest, row, f"{share:.1f}", ha="right", va="center", fontsize=7, bbox=box)
        found = [(printed[name][action], names.index(name) - 0.18) for name in printed if action in printed[name]]
        axis.plot(*np.reshape(found, (-1, 2)).T, "D", markersize=4, mfc="white", mec="black", linestyle="none")
        if study.control in names:
            axis.axvline(submitted[names.index(study.control), column], color="black", linewidth=0.8, linestyle="--")
        axis.set_title(action)
        axis.set_xlim(0, widest)
        name_rows(axis, names)
    figure.supxlabel(
        f"per cent of actions against {red}, mean over seeds; the number is the submitted share", fontsize=9
    )
    bars = [
        Patch(fc="0.5", ec="black", label="submitted"),
        Patch(fc="white", ec="black", hatch="/////", label="executed"),
    ]
    level = [line(f"{study.control}, submitted", "--", width=0.8)] if study.control in names else []
    diamond = [mark("D", "white", "published, submitted, seed 42", 4.0)] if any(printed.values()) else []
    legend(figure, [*bars, *level, *diamond])
    return figure


def mean_shares(study: Study, names: Sequence[str], red: str, columns: Sequence[str]) -> np.ndarray:
    """[arm, action] per cent, mean over seeds."""
    return np.array([np.mean(list(study.shares(arm, red, columns).values()), axis=0) for arm in names])


def learning_curves(study: Study, curves: dict[tuple[str, int], Curve]) -> Figure:
    """Training return of every arm: mean over the seeds, and the band from the lowest to the highest seed."""
    arms = sorted({arm for arm, _ in curves}, key=lambda arm: (*study.arms, arm).index(arm))
    figure, axes = panels(len(arms), 4, (2.6, 2.0), sharex=True)
    for axis, arm in zip(axes, arms, strict=True):
        runs = [curve for (name, _), curve in curves.items() if name == arm]
        length = min(len(curve.returns) for curve in runs)
        steps = runs[0].env_steps[:length] / 1e6
        returns = np.stack([curve.returns[:length] for curve in runs])
        axis.fill_between(steps, returns.min(0), returns.max(0), color="0.8", linewidth=0)
        axis.plot(steps, returns.mean(0), color="black", linewidth=1)
        axis.set_title(f"{arm}, {len(runs)} seed{'s' if len(runs) > 1 else ''}")
        axis.grid(color="0.92")
    figure.supxlabel("million env steps", fontsize=9)
    figure.supylabel("training return per episode", fontsize=9)
    legend(figure, [line("mean over seeds"), Patch(color="0.8", label="lowest to highest seed")])
    return figure


def checkpoint_figure(study: Study, evaluation: Evaluation) -> Figure:
    """Evaluated return over the checkpoints, a panel per arm and a line per red, ± stderr over seeds."""
    figure, axes = panels(len(study.arms), 4, (2.8, 2.4), sharex=True)
    handles = {}
    for axis, arm in zip(axes, study.arms, strict=True):
        for red, (marker, style, grey) in zip(study.reds, cycle(RED_STYLES), strict=False):
            steps, found = checkpoint_curves(evaluation, arm, red)
            means, errors = [each.mean for each in found], np.nan_to_num([each.stderr for each in found])
            look = {"marker": marker, "linestyle": style, "color": grey, "mfc": "white" if grey == "0.5" else grey}
            drawn = axis.errorbar(np.array(steps) / 1e6, means, errors, **look, markersize=4, linewidth=1, capsize=2)
            handles[red] = (drawn, red)
        axis.set_title(arm)
        axis.grid(color="0.92")
    figure.supxlabel("million env steps", fontsize=9)
    figure.supylabel("evaluated return per episode", fontsize=9)
    lines, reds = zip(*handles.values(), strict=True)
    figure.legend(lines, reds, loc="outside upper center", ncols=len(reds), frameon=False)
    return figure


def published_figure(rows: Sequence[SideBySide]) -> Figure:
    """Published paired deltas beside ours, a panel per arm and table, with 95 % t-intervals where there are any."""
    groups: dict[str, list[tuple[str, SideBySide]]] = {}
    for row in rows:
        title, name = (f"{row.arm} ({SOURCES[row.source]})", row.red)
        if row.source == TEXT:
            title, name = ("mean over reds (prediction)", row.arm)
        groups.setdefault(title, []).append((name, row))
    tallest = max(map(len, groups.values()))
    figure, axes = panels(len(groups), 4, (2.9, 0.7 + 0.34 * tallest), sharey=False)
    ends = [end for row in rows for end in (row.published_low, row.published_high) if end is not None]
    ends += [(row.ours + end) / 2 for row in rows for end in (row.ours_low, row.ours_high) if end is not None]
    limits = limits_around([0.0, *ends, *(value for row in rows for value in (row.published, row.ours))])
    for axis, (title, members) in zip(axes, groups.items(), strict=True):
        axis.axvline(0, color="0.5", linewidth=0.8)
        for y, (_, row) in enumerate(members):
            published_row(
                axis, y - 0.16, row.published, (row.published_low, row.published_high), limits, ("s", "black")
            )
            published_row(axis, y + 0.16, row.ours, (row.ours_low, row.ours_high), limits, ("o", "white"))
        name_rows(axis, [name for name, _ in members], tallest)
        axis.set_title(title)
        set_limits(axis, limits)
    figure.supxlabel("paired delta to C00, points of return per episode", fontsize=9)
    label = f"published ({ENV_STEPS / 1e6:.1f} M env steps)"
    legend(figure, [mark("s", "black", label), mark("o", "white", "here"), line("95 % t-interval")])
    return figure


def published_row(axis: Axes, y: float, value: float, ends: tuple, limits: tuple[float, float], look: tuple) -> None:
    if None not in ends:
        span(axis, y, *ends, limits)
    axis.plot(value, y, look[0], mfc=look[1], mec="black", markersize=5)
