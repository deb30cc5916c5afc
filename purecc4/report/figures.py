"""Figures of a report, readable in black and white: greys, markers and hatches instead of colours."""

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from itertools import cycle
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from purecc4.files import write
from purecc4.play.tables import ACTIONS, EXECUTED, SUBMITTED
from purecc4.report.findings import Findings, action_file
from purecc4.report.logit_bias import bias_file
from purecc4.report.published import ENV_STEPS, SOURCES, TEXT, published_actions
from purecc4.report.statistics import CONFIRM_MEAN, CONFIRMED, INCONCLUSIVE, REFUTE_MEAN, REFUTED
from purecc4.report.study import MEAN, Study
from purecc4.train.metrics import Curve
from purecc4.train.progress import counted
from purecc4.train.run_reader import REWARD_TERMS

RC = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "purecc4",
    "text.parse_math": False,
    "hatch.linewidth": 0.6,
}
VERDICT_MARKERS = {CONFIRMED: ("s", "black"), INCONCLUSIVE: ("D", "0.6"), REFUTED: ("o", "white")}
NO_VERDICT = ("^", "0.8")
EXECUTED_BAR = {"fc": "white", "hatch": "/////"}
RED_STYLES = (("o", "-", "0.0"), ("s", "--", "0.0"), ("^", "-.", "0.0"), ("D", ":", "0.0"), ("v", "-", "0.5"))


def draw(drawings: dict[str, Callable[[], Figure]]) -> dict[str, bytes]:
    """Render figures as PNG (150 dpi) and SVG by file name, without dates: equal tables give equal files."""
    files = {}
    for name, drawing in drawings.items():
        with matplotlib.rc_context(RC):
            figure = drawing()
            for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                content = BytesIO()
                figure.savefig(content, format=kind, dpi=150, metadata=metadata)
                files[f"{name}.{kind}"] = content.getvalue()
    return files


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write files, each atomically."""
    for name, content in files.items():
        write(folder / name, content)


def drawings_of(found: Findings) -> dict[str, Callable[[], Figure]]:
    """Functions that draw the available figures, by name."""
    study, deltas, checkpoints = found.study, found.of("deltas"), found.of("checkpoints")
    paired = found.tables["published"].query("quantity == 'paired delta'")
    paired = paired[paired["source"] != TEXT]  # one prediction, in the table
    drawings: dict[str, Callable[[], Figure]] = {}
    if len(deltas):
        drawings["forest"] = partial(forest, study, deltas)
    drawings["parts"] = partial(part_heat_map, study)
    drawings |= {action_file(red): partial(action_bars, study, red) for red in study.reds}
    if found.curves:
        drawings["learning_curves"] = partial(learning_curves, study, found.curves)
    if checkpoints["env_steps"].nunique() > 1:
        drawings["checkpoints"] = partial(checkpoint_figure, found)
        drawings["checkpoints_by_red"] = partial(checkpoints_by_red, study, checkpoints)
    for kind, rows in found.tables["logit_bias"].query("red == @study.views[-1]").groupby("kind"):
        drawings[bias_file(kind)] = partial(bias_figure, study, kind, rows)
    if len(paired):
        drawings["published"] = partial(published_figure, paired)
    return drawings


def panels(
    count: int, columns: int, size: tuple[float, float], sharex: bool = False, sharey: bool = True
) -> tuple[Figure, list[Axes]]:
    """Create a figure with `count` panels of `size` (width, height in inches) in rows of `columns`."""
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
    """Label the y axis with names from the top, in a panel with `rows` rows."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim((rows or len(names)) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)


def wrapped(arm: str) -> str:
    """An arm as the title of a panel; those of a sweep are long."""
    return fill(arm, 36)


def legend(figure: Figure, handles: Sequence, columns: int = 4) -> None:
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)


def mark(marker: str, face: str, label: str, size: float = 6.0) -> Line2D:
    return Line2D([], [], marker=marker, color="black", mfc=face, markersize=size, linestyle="none", label=label)


def line(label: str, style: str = "-", grey: str = "black", width: float = 1.0) -> Line2D:
    return Line2D([], [], color=grey, linestyle=style, linewidth=width, label=label)


def span(axis: Axes, y: float, low: float, high: float, limits: tuple[float, float]) -> None:
    """Draw a horizontal interval, with an arrowhead if it extends beyond the limits."""
    axis.hlines(y, max(low, limits[0]), min(high, limits[1]), color="black", linewidth=1)
    for is_clipped, edge, head in ((low < limits[0], limits[0], "<"), (high > limits[1], limits[1], ">")):
        if is_clipped:
            axis.plot(edge, y, marker=head, color="black", markersize=4)


def limits_around(values: Sequence[float]) -> tuple[float, float]:
    """Minimum and maximum of the finite values."""
    finite = [value for value in values if np.isfinite(value)]
    return min(finite), max(finite)


def set_limits(axis: Axes, limits: tuple[float, float]) -> None:
    padding = 0.05 * (limits[1] - limits[0])
    axis.set_xlim(limits[0] - padding, limits[1] + padding)


def title_of(red: str) -> str:
    return "mean over the study's reds" if red == MEAN else red


def forest(study: Study, rows: pd.DataFrame) -> Figure:
    """Paired deltas to the control by red: seeds, mean, stderr, t-interval, verdict, and the thresholds of the rule."""
    names = list(rows["arm"].unique())
    by_seed = rows.filter(like="seed_")
    figure, axes = panels(len(study.views), 3, (3.3, 0.5 + 0.42 * len(names)), sharex=True)
    ends = [rows["mean"] - rows["stderr"], rows["mean"] + rows["stderr"]]
    thresholds = (("refute", REFUTE_MEAN, ":"), ("confirm", CONFIRM_MEAN, "--")) if study.replicates else ()
    limits = limits_around([*by_seed.to_numpy().ravel(), *np.ravel(ends), 0.0, *(at for _, at, _ in thresholds)])
    for axis, red in zip(axes, study.views, strict=True):
        for _, at, style in (("", 0.0, "-"), *thresholds):
            axis.axvline(at, color="0.5", linewidth=0.8, linestyle=style)
        for index, row in zip(rows.index, rows.itertuples(), strict=True):
            if row.red == red:
                forest_row(axis, float(names.index(row.arm)), row, by_seed.loc[index].dropna(), limits)
        axis.set_title(title_of(red))
        set_limits(axis, limits)
        name_rows(axis, names)
    figure.supxlabel(f"paired delta to {study.control}, points of return per episode", fontsize=9)
    verdicts = {name: VERDICT_MARKERS.get(name, NO_VERDICT) for name in rows["verdict"].unique()}
    shown = [mark(*style, label=name) for name, style in verdicts.items()] + [mark("|", "black", "one seed")]
    if rows["n"].max() > 1:
        shown += [line("mean ± stderr", width=3.0), line("95 % t-interval")]
    shown += [line(f"{name} threshold {at:.0f}", style, "0.5") for name, at, style in thresholds]
    legend(figure, shown, 3)
    return figure


def forest_row(axis: Axes, y: float, row: Any, deltas: pd.Series, limits: tuple[float, float]) -> None:
    if row.n > 1:
        span(axis, y, row.low, row.high, limits)
        axis.hlines(y, row.mean - row.stderr, row.mean + row.stderr, color="black", linewidth=3)
    marker, face = VERDICT_MARKERS.get(row.verdict, NO_VERDICT)
    axis.plot(row.mean, y, marker=marker, mfc=face, mec="black", markersize=7)
    axis.plot(deltas, [y - 0.3] * row.n, "|", color="black", markersize=6)


def part_heat_map(study: Study) -> Figure:
    """Mean return by reward term, a panel per red. Darker is a larger loss, scaled to the trained arms."""
    names = [*study.arms, *study.scripts]
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
        axis.set_xticks(range(len(REWARD_TERMS)), ["cost" if part == "cost" else part.upper() for part in REWARD_TERMS])
        name_rows(axis, names)
        axis.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, extend="max" if study.scripts else "neither")
    bar.set_label("points lost per episode")
    return figure


def part_means(study: Study, names: Sequence[str], red: str) -> np.ndarray:
    """[arm, reward term] mean over seeds, NaN if missing."""
    return np.array([study.rows(arm, red)[list(REWARD_TERMS)].mean() for arm in names])


def action_bars(study: Study, red: str) -> Figure:
    """Share of each action by arm: submitted (with its value) and executed, the control's share, published shares."""
    names = [arm for arm in (*study.arms, *study.scripts) if len(study.rows(arm, red))]
    submitted, executed = (mean_shares(study, names, red, columns) for columns in (SUBMITTED, EXECUTED))
    printed = {arm: published_actions(arm) for arm in names} if red == "fsm" else {}
    trained = [name in study.arms for name in names]
    widest = 1.1 * max(submitted[trained].max(), executed[trained].max(), 30.0)
    figure, axes = panels(len(ACTIONS), 4, (2.4, 0.5 + 0.36 * len(names)))
    for column, (axis, action) in enumerate(zip(axes, ACTIONS, strict=True)):
        rows = np.arange(len(names))
        for shares, y, look in ((submitted, rows - 0.18, {"fc": "0.5"}), (executed, rows + 0.18, EXECUTED_BAR)):
            axis.barh(y, np.minimum(shares[:, column], widest), 0.34, edgecolor="black", linewidth=0.5, **look)
            cut = y[shares[:, column] > widest]
            axis.plot(np.full(len(cut), widest), cut, ">", color="black", markersize=4)
        for row, share in enumerate(submitted[:, column]):
            axis.text(1.2 * widest, row, f"{share:.1f}", ha="right", va="center", fontsize=7)
        found = [(printed[name][action], names.index(name) - 0.18) for name in printed if action in printed[name]]
        axis.plot(*np.reshape(found, (-1, 2)).T, "D", markersize=4, mfc="white", mec="black", linestyle="none")
        if study.control in names:
            axis.axvline(submitted[names.index(study.control), column], color="black", linewidth=0.8, linestyle="--")
        axis.set_title(action)
        axis.set_xlim(0, 1.2 * widest)
        name_rows(axis, names)
    about = f"per cent of actions against {red}, mean over seeds; numbers are submitted shares, arrowheads cut bars"
    figure.supxlabel(about, fontsize=9)
    bars = [
        Patch(fc="0.5", ec="black", label="submitted"),
        Patch(ec="black", label="executed", **EXECUTED_BAR),
    ]
    level = [line(f"{study.control}, submitted", "--", width=0.8)] if study.control in names else []
    diamond = [mark("D", "white", "published, submitted, seed 42", 4.0)] if any(printed.values()) else []
    legend(figure, [*bars, *level, *diamond])
    return figure


def mean_shares(study: Study, names: Sequence[str], red: str, columns: Sequence[str]) -> np.ndarray:
    """[arm, action] per cent, mean over seeds."""
    return np.array([study.shares(arm, red, columns).mean() for arm in names])


def learning_curves(study: Study, curves: dict[tuple[str, int], Curve]) -> Figure:
    """Training return of every arm: mean over seeds, with a band from minimum to maximum."""
    arms = sorted({arm for arm, _ in curves}, key=lambda arm: (*study.arms, arm).index(arm))
    figure, axes = panels(len(arms), 4, (2.6, 2.0), sharex=True)
    for axis, arm in zip(axes, arms, strict=True):
        runs = [curve for (name, _), curve in curves.items() if name == arm]
        steps, returns = together(runs)
        axis.fill_between(steps, returns.min(0), returns.max(0), color="0.8", linewidth=0)
        axis.plot(steps, returns.mean(0), color="black", linewidth=1)
        axis.set_title(wrapped(f"{arm}, {counted(len(runs), 'seed')}"))
        axis.grid(color="0.92")
    figure.supxlabel("million env steps", fontsize=9)
    figure.supylabel("training return per episode", fontsize=9)
    legend(figure, [line("mean over seeds"), Patch(color="0.8", label="range over seeds")])
    return figure


def together(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Million env steps and returns [run, update], up to the end of the shortest curve."""
    length = min(len(curve.returns) for curve in curves)
    return curves[0].env_steps[:length] / 1e6, np.stack([curve.returns[:length] for curve in curves])


def checkpoint_figure(found: Findings) -> Figure:
    """Evaluated return over checkpoints, a panel per arm: seeds, mean with 95 % t-interval, scripted policies."""
    study, means = found.study, found.means.xs(found.study.mode, level="mode")["return"]
    red = study.views[-1]
    means = means.xs(red, level="red")
    table = found.of("checkpoints").query("red == @red")
    baselines = {script: each.mean for script in study.scripts if (each := study.returns(script, red))}
    figure, axes = panels(len(study.arms), 4, (2.8, 2.4), sharex=True)
    lowest, highest = limits_around(list(means[means.index.isin(study.arms, level="arm")]))
    padding = 0.2 * (highest - lowest) + 1  # scripted policies outside the range appear only in the legend
    bottom, top = lowest - padding, highest + padding
    axes[0].set_ylim(bottom, top)
    inside = [script for script, value in baselines.items() if bottom < value < top]
    looks = {script: look for script, (_, *look) in zip(inside, cycle(RED_STYLES[1:]), strict=False)}
    for axis, arm in zip(axes, study.arms, strict=True):
        seeds = means.xs(arm, level="arm").unstack("seed").sort_index()
        axis.plot(seeds.index / 1e6, seeds, color="0.6", linewidth=0.8, marker=".", markersize=3)
        rows = table[table["arm"] == arm]
        ends = np.nan_to_num([rows["mean"] - rows["low"], rows["high"] - rows["mean"]])
        axis.errorbar(rows["env_steps"] / 1e6, rows["mean"], ends, color="black", marker="o", markersize=4, capsize=2)
        inset = 0.02 * (top - bottom)
        for is_cut, y, head in ((rows["low"] < bottom, bottom + inset, "v"), (rows["high"] > top, top - inset, "^")):
            steps = rows["env_steps"][is_cut] / 1e6
            axis.plot(steps, np.full(len(steps), y), head, color="black", markersize=4)
        for script, (style, grey) in looks.items():
            axis.axhline(baselines[script], color=grey, linestyle=style, linewidth=0.8)
        axis.set_title(wrapped(arm))
        axis.grid(color="0.92")
    figure.supxlabel("million env steps", fontsize=9)
    figure.supylabel(f"evaluated return, {title_of(red)}", fontsize=9)
    shown = [line("one seed", "-", "0.6", 0.8), line("mean, 95 % t-interval")]
    shown += [line(f"{script} {baselines[script]:.0f}", *look, 0.8) for script, look in looks.items()]
    shown += [
        line(f"{'below' if value <= bottom else 'above'}: {script} {value:.0f}", "none")
        for script, value in baselines.items()
        if script not in looks
    ]
    legend(figure, shown)
    return figure


def checkpoints_by_red(study: Study, checkpoints: pd.DataFrame) -> Figure:
    """Evaluated return over checkpoints, a panel per arm and a line per red, ± stderr over seeds."""
    figure, axes = panels(len(study.arms), 4, (2.8, 2.4), sharex=True)
    handles = {}
    for axis, arm in zip(axes, study.arms, strict=True):
        for red, (marker, style, grey) in zip(study.reds, cycle(RED_STYLES), strict=False):
            rows = checkpoints.query("arm == @arm and red == @red")
            look = {"marker": marker, "linestyle": style, "color": grey, "mfc": "white" if grey == "0.5" else grey}
            look |= {"markersize": 4, "linewidth": 1, "capsize": 2}
            drawn = axis.errorbar(rows["env_steps"] / 1e6, rows["mean"], rows["stderr"].fillna(0), **look)
            handles[red] = (drawn, red)
        axis.set_title(wrapped(arm))
        axis.grid(color="0.92")
    figure.supxlabel("million env steps", fontsize=9)
    figure.supylabel("evaluated return per episode", fontsize=9)
    lines, reds = zip(*handles.values(), strict=True)
    figure.legend(lines, reds, loc="outside upper center", ncols=len(reds), frameon=False)
    return figure


def bias_figure(study: Study, kind: str, rows: pd.DataFrame) -> Figure:
    """Return against the share of an action type over its logit bias, a panel per arm with the control."""
    of_arm = {arm: own.sort_values("share") for arm, own in rows.groupby("arm", sort=False)}
    control = of_arm.pop(study.control, rows[:0])
    of_arm = of_arm or {study.control: control}
    figure, axes = panels(len(of_arm), 4, (2.8, 2.4), sharex=True)
    for axis, (title, own) in zip(axes, of_arm.items(), strict=True):
        for biased, grey in ((control, "0.6"), (own, "black")):
            look = {"color": grey, "marker": "o", "mfc": "white", "markersize": 4, "linewidth": 1, "capsize": 2}
            axis.errorbar(biased["share"], biased["mean"], biased["stderr"].fillna(0), **look)
            trained = biased[biased["by"] == 0]
            axis.plot(trained["share"], trained["mean"], "o", color=grey, markersize=6, zorder=3)
        axis.set_title(title)
        axis.grid(color="0.92")
    figure.supxlabel(f"{kind}, per cent of submitted actions", fontsize=9)
    figure.supylabel(f"evaluated return, {title_of(study.views[-1])}", fontsize=9)
    shown = [mark("o", "black", "as trained"), mark("o", "white", "with logit bias", 4.0)]
    legend(figure, [*shown, line("arm"), line(study.control, grey="0.6")])
    return figure


def published_figure(rows: pd.DataFrame) -> Figure:
    """Published and our paired deltas, a panel per arm and table, with 95 % t-intervals if available."""
    rows = rows.assign(title=rows["arm"] + " (published: " + rows["source"].map(SOURCES) + ")")
    tallest = int(rows["title"].value_counts().max())
    figure, axes = panels(rows["title"].nunique(), 4, (2.9, 0.7 + 0.34 * tallest), sharey=False)
    ours_ends = [(rows["ours"] + rows[end]) / 2 for end in ("ours_low", "ours_high")]
    drawn = [rows[end] for end in ("published", "ours", "published_low", "published_high")] + ours_ends
    limits = limits_around([0.0, *np.ravel(drawn)])
    for axis, (title, members) in zip(axes, rows.groupby("title", sort=False), strict=True):
        axis.axvline(0, color="0.5", linewidth=0.8)
        for y, row in enumerate(members.itertuples()):
            theirs, ours = (row.published_low, row.published_high), (row.ours_low, row.ours_high)
            published_row(axis, y - 0.16, row.published, theirs, limits, ("s", "black"))
            published_row(axis, y + 0.16, row.ours, ours, limits, ("o", "white"))
        name_rows(axis, list(members["red"]), tallest)
        axis.set_title(title)
        set_limits(axis, limits)
    figure.supxlabel("paired delta to C00, points of return per episode", fontsize=9)
    label = f"published ({ENV_STEPS / 1e6:.1f} M env steps); some without interval"
    legend(figure, [mark("s", "black", label), mark("o", "white", "ours"), line("95 % t-interval")])
    return figure


def published_row(axis: Axes, y: float, value: float, ends: tuple, limits: tuple[float, float], look: tuple) -> None:
    if not np.isnan(ends).any():
        span(axis, y, *ends, limits)
    axis.plot(value, y, look[0], mfc=look[1], mec="black", markersize=5)
