"""The figure of a sweep: return against each swept hyperparameter."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purecc4.report.figures import RED_STYLES, panels
from purecc4.report.statistics import Estimate, estimate

FIGURE = "sweep"


class Point(NamedTuple):
    """A variant of a sweep: an arm with values of the swept hyperparameters."""

    run: Path
    arm: str
    values: dict[str, float]
    returns: list[float]
    """One value per training seed."""


def sweep_figure(points: Sequence[Point], measure: str) -> Figure:
    """Return, mean ± standard error over seeds, with a panel per hyperparameter.

    Lines join points that differ in the hyperparameter of the panel alone. Without any, the points stand alone.
    `measure` names the return.
    """
    names = list(dict.fromkeys(name for point in points for name in point.values))
    figure, axes = panels(len(names), 2, (3.4, 2.6))
    for axis, name in zip(axes, names, strict=True):
        having = [point for point in points if name in point.values]
        place = {value: at for at, value in enumerate(sorted({point.values[name] for point in having}))}
        lines = lines_of(having, name)
        joined = {others: members for others, members in lines.items() if len(members) > 1} or lines
        for (others, members), look in zip(joined.items(), cycle(RED_STYLES), strict=False):
            members = sorted(members, key=lambda point: point.values[name])
            draw_line(axis, [place[point.values[name]] for point in members], members, look, others)
        axis.set_xticks(range(len(place)), map(str, place))
        axis.set_xlabel(name)
        axis.grid(color="0.92")
        if len(joined) > 1:
            axis.legend(frameon=False, fontsize=7)
    figure.supylabel(measure, fontsize=9)
    return figure


def lines_of(points: Sequence[Point], name: str) -> dict[str, list[Point]]:
    """Points by all that they have besides `name`: folder if there are several, arm, other values."""
    several, lines = len({point.run for point in points}) > 1, {}
    for point in points:
        others = [f"{other}={value}" for other, value in point.values.items() if other != name]
        label = " ".join([*[str(point.run)] * several, point.arm, *others])
        lines.setdefault(label, []).append(point)
    return lines


def draw_line(axis: Axes, places: list[int], points: Sequence[Point], look: tuple[str, str, str], label: str) -> None:
    marker, style, grey = look
    found: list[Estimate] = [estimate(point.returns) for point in points]
    errors = [each.stderr if each.n > 1 else 0.0 for each in found]
    looks = {"marker": marker, "linestyle": style, "color": grey, "mfc": "white", "markersize": 4, "linewidth": 1}
    axis.errorbar(places, [each.mean for each in found], errors, **looks, capsize=2, label=label)
