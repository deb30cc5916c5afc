"""The published study's numbers (`published.csv`, source in `published.md`) beside those of a report."""

import csv
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from purecc4.play.tables import ACTIONS, STUDY_REDS, Evaluation
from purecc4.report.statistics import Estimate, estimate
from purecc4.report.study import (
    COCKTAIL,
    MEAN,
    NO_TOPO,
    SUM_OF_AXES,
    SUM_WITHOUT_TOPO,
    EffectRow,
    Study,
    baseline_estimate,
    values_of,
)

HEADLINE, PER_ARM = "table_headline_90ep", "table_per_arm_90ep"
SINGLE, DECOMPOSITION, TEXT = "table_single_axis_30ep", "table_decomposition_30ep", "text"
SHARES = "table_actions"
SOURCES = {
    HEADLINE: "90 episodes",
    PER_ARM: "90 episodes",
    SINGLE: "30 episodes",
    DECOMPOSITION: "30 episodes",
    TEXT: "prediction",
    SHARES: "seed 42",
}
SEEDS = (42, 142, 242)
ENV_STEPS = 9_984_000  # 416 updates of 48 x 500, printed as 10M
ACTION_NAMES = {
    "Sleep": "sleep",
    "Monitor": "monitor",
    "Analyse": "analyse",
    "Remove": "remove",
    "Restore": "restore",
    "Decoy": "deploy_decoy",
    "AllowTraffic": "allow_traffic_zone",
    "BlockTraffic": "block_traffic_zone",
}
ARM_NAMES = {"sum_of_single_axes": SUM_OF_AXES, "C11minusTopo": SUM_WITHOUT_TOPO}


class Published(NamedTuple):
    """One row of published.csv; `value` as printed."""

    source: str
    arm: str
    red: str
    metric: str
    value: str


class SideBySide(NamedTuple):
    """A published number beside ours. A bound that cannot be had is None; `reading` says what the intervals do."""

    source: str
    arm: str
    red: str
    quantity: str
    published: float
    published_low: float | None
    published_high: float | None
    ours: float
    ours_low: float | None
    ours_high: float | None
    difference: float
    reading: str


@cache
def published() -> tuple[Published, ...]:
    """All published numbers, in the order of the file."""
    with (files(__package__) / "published.csv").open(newline="", encoding="utf-8") as file:
        return tuple(Published(**row) for row in csv.DictReader(file))


def published_value(source: str, arm: str, red: str, metric: str) -> str:
    """One published number as printed; KeyError if it was not published."""
    for row in published():
        if row[:4] == (source, arm, red, metric):
            return row.value
    raise KeyError((source, arm, red, metric))


def published_deltas(red: str) -> list[float]:
    """The headline's paired deltas of C11 to C00 by training seed 42, 142, 242."""
    return [float(published_value(HEADLINE, COCKTAIL, red, f"paired_delta_seed{seed}")) for seed in SEEDS]


def published_actions(arm: str) -> dict[str, float]:
    """Per cent of submitted actions of an arm's seed-42 model against fsm, as far as printed (first table wins)."""
    shares: dict[str, float] = {}
    for row in published():
        name = ACTION_NAMES.get(row.metric.removeprefix("action_pct_"))
        if row.arm == arm and row.red == "fsm" and name and row.metric.startswith("action_pct_"):
            shares.setdefault(name, float(row.value))
    return {action: shares[action] for action in ACTIONS if action in shares}


def side_by_side(study: Study, evaluation: Evaluation, effects: Sequence[EffectRow]) -> list[SideBySide]:
    """Every published return and delta that this report has too; deltas only if the control is C00."""
    rows = _returns(study, evaluation)
    if study.control == "C00":
        rows += _deltas(study, effects)
    return rows + _shares(study)


def _returns(study: Study, evaluation: Evaluation) -> list[SideBySide]:
    rows = []
    for row in published():
        if row.source != PER_ARM or row.metric != "mean_reward":
            continue
        if row.arm in study.baselines:
            found = baseline_estimate(evaluation, row.arm, row.red)
        else:
            per_seed = study.per_seed(row.arm, row.red)
            found = estimate(values_of(per_seed)) if per_seed else None
        if found is not None:
            rows.append(_beside(row, row.arm, row.red, "mean return", None, found))
    return rows


def _deltas(study: Study, effects: Sequence[EffectRow]) -> list[SideBySide]:
    by_name = {effect.name: effect for effect in effects}
    rows = []
    for row in published():
        if row.metric not in ("paired_delta_mean", "predicted_paired_delta_mean_untested"):
            continue
        red = MEAN if row.red == "all" else row.red
        if red == MEAN and study.study_reds != STUDY_REDS:
            continue
        theirs = estimate(published_deltas(row.red)) if row.source == HEADLINE else None
        arms = (SUM_WITHOUT_TOPO, NO_TOPO) if row.arm == "C11minusTopo" else (ARM_NAMES.get(row.arm, row.arm),)
        for arm in arms:
            per_seed = by_name[arm].per_seed.get(red) if arm in by_name else None
            if per_seed:
                rows.append(_beside(row, arm, red, "paired delta", theirs, estimate(values_of(per_seed))))
    return rows


def _shares(study: Study) -> list[SideBySide]:
    rows = []
    for arm in study.arms:
        shares = study.shares(arm, "fsm")
        for name, share in published_actions(arm).items() if shares else ():
            ours = estimate([values[ACTIONS.index(name)] for values in shares.values()])
            row = Published(SHARES, arm, "fsm", name, str(share))
            rows.append(_beside(row, arm, "fsm", f"{name} %", None, ours))
    return rows


def _beside(row: Published, arm: str, red: str, quantity: str, theirs: Estimate | None, ours: Estimate) -> SideBySide:
    value = float(row.value)
    low, high = (theirs.low, theirs.high) if theirs else (None, None)
    our_low, our_high = (ours.low, ours.high) if ours.n > 1 else (None, None)
    if our_low is None:
        reading = "no interval here"
    elif low is None:
        reading = "published inside ours" if our_low <= value <= our_high else "published outside ours"
    else:
        reading = "overlap" if low <= our_high and our_low <= high else "apart"
    return SideBySide(
        row.source, arm, red, quantity, value, low, high, ours.mean, our_low, our_high, ours.mean - value, reading
    )
