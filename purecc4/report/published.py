"""Comparison of a report with the numbers of the published study (`published.csv`, source in `published.md`)."""

from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from purecc4.play.tables import ACTIONS, STUDY_REDS
from purecc4.report.statistics import estimate
from purecc4.report.study import COCKTAIL, MEAN, NO_TOPO, SUM_OF_AXES, SUM_WITHOUT_TOPO, Study

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
ARM_NAMES = {"sum_of_single_axes": (SUM_OF_AXES,), "C11minusTopo": (SUM_WITHOUT_TOPO, NO_TOPO)}
"""Our names, by those of the study."""
QUANTITIES = {
    "mean_reward": "mean return",
    "paired_delta_mean": "paired delta",
    "predicted_paired_delta_mean_untested": "paired delta",
}
PLACE = ["arm", "red", "quantity"]
THEIRS = ["source", *PLACE, "published", "published_low", "published_high"]
COLUMNS = [*THEIRS, "ours", "ours_low", "ours_high", "difference", "reading"]


@cache
def published() -> pd.DataFrame:
    """Read all published numbers in file order: source, arm, red, metric, and the value as printed text."""
    with (files(__package__) / "published.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def published_value(source: str, arm: str, red: str, metric: str) -> str:
    """Look up a published number as printed. Raises KeyError if it was not published."""
    return published().set_index(["source", "arm", "red", "metric"])["value"].loc[(source, arm, red, metric)]


def published_deltas(red: str) -> list[float]:
    """Paired deltas of C11 to C00 from the headline table, for training seeds 42, 142, 242."""
    return [float(published_value(HEADLINE, COCKTAIL, red, f"paired_delta_seed{seed}")) for seed in SEEDS]


def published_actions(arm: str) -> dict[str, float]:
    """Submitted actions in per cent of an arm's seed-42 model against fsm, if printed (the first table wins)."""
    rows = published().query("arm == @arm and red == 'fsm'").drop_duplicates("metric").set_index("metric")["value"]
    printed = {name: f"action_pct_{theirs}" for theirs, name in ACTION_NAMES.items()}
    return {name: float(rows[printed[name]]) for name in ACTIONS if printed.get(name) in rows}


@cache
def _theirs() -> pd.DataFrame:
    """Published returns, deltas and action shares, one per row, with columns THEIRS."""
    rows = []
    for row in published().itertuples():
        if row.metric in QUANTITIES and (row.metric != "mean_reward" or row.source == PER_ARM):
            red = MEAN if row.red == "all" else row.red
            found = estimate(published_deltas(row.red)) if row.source == HEADLINE else None
            ends = (found.low, found.high) if found else (None, None)
            for arm in ARM_NAMES.get(row.arm, (row.arm,)):
                rows.append((row.source, arm, red, QUANTITIES[row.metric], float(row.value), *ends))
    for arm in published()["arm"].unique():
        for name, share in published_actions(arm).items():
            rows.append((SHARES, arm, "fsm", f"{name} %", share, None, None))
    table = pd.DataFrame(rows, columns=THEIRS)
    return table.sort_values("quantity", key=lambda names: names.map(_rank), kind="stable")


def _rank(quantity: str) -> int:
    return {"mean return": 0, "paired delta": 1}.get(quantity, 2)


def side_by_side(study: Study, returns: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Join every published return, delta and action share with the value of this report, with columns COLUMNS.

    `returns` and `effects` are tables of estimates. Deltas are only included if the control is C00. A missing bound is
    NaN. `reading` tells if the intervals overlap.
    """
    shares = [
        {"arm": arm, "red": "fsm", "quantity": f"{name} %", **estimate(column)._asdict()}
        for arm in study.arms
        for name, column in study.shares(arm, "fsm").items()
        if len(column)
    ]
    ours = [returns.assign(quantity="mean return"), pd.DataFrame(shares)]
    if study.control == "C00":
        deltas = effects.rename(columns={"name": "arm"}).assign(quantity="paired delta")
        ours.append(deltas if study.study_reds == STUDY_REDS else deltas[deltas["red"] != MEAN])
    ours = pd.concat(ours).rename(columns={"mean": "ours", "low": "ours_low", "high": "ours_high"})
    both = _theirs().merge(ours[[*PLACE, "ours", "ours_low", "ours_high"]], on=PLACE)
    both["difference"] = both["ours"] - both["published"]
    both["reading"] = [_reading(row) for row in both.itertuples()]
    return both[COLUMNS]


def _reading(row: Any) -> str:
    """Compare the two intervals of a row, if they exist."""
    if pd.isna(row.ours_low):
        return "no interval here"
    if pd.isna(row.published_low):
        inside = row.ours_low <= row.published <= row.ours_high
        return f"published {'inside' if inside else 'outside'} ours"
    return "overlap" if row.published_low <= row.ours_high and row.ours_low <= row.published_high else "apart"
