"""The figure of a sweep: which points are joined."""

from pathlib import Path

from purecc4.report import sweep
from purecc4.report.sweep import Point


def point(returns=(1.0,), **values) -> Point:
    return Point(Path("runs/a"), "C00", values, list(returns))


def test_lines_join_points_that_differ_in_one_value():
    points = [point(lr=lr, ent=ent) for lr in (1e-3, 1e-4) for ent in (0.0, 0.1)]
    lines = sweep.lines_of(points, "lr")
    assert {label: [p.values["lr"] for p in members] for label, members in lines.items()} == {
        "C00 ent=0.0": [1e-3, 1e-4],
        "C00 ent=0.1": [1e-3, 1e-4],
    }


def test_panels_sort_values_and_show_lone_points_only_without_lines():
    around = [point(lr=1e-3, ent=0.1), point((2.0, 4.0), lr=1e-4, ent=0.1), point((9.0,), lr=1e-3, ent=0.0)]
    first, second = sweep.sweep_figure(around, "return").axes
    assert [text.get_text() for text in first.get_xticklabels()] == ["0.0001", "0.001"]
    assert [list(each.lines[0].get_ydata()) for each in first.containers] == [[3.0, 1.0]]
    assert [list(each.lines[0].get_ydata()) for each in second.containers] == [[9.0, 1.0]]
    (axis, _) = sweep.sweep_figure([point(lr=1, ent=1), point(lr=2, ent=2)], "return").axes
    assert len(axis.containers) == 2
