"""Gaps between arms under a logit bias, from the tables of `purecc4 nudge`.

`nudge` adds a constant, the bias, to the logits of one action type of a trained network. If two arms differ only in how
often they take that action, the control with a bias performs as well as the arm.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from purecc4.errors import UserError
from purecc4.play.tables import ACTIONS, MODES, NUDGE_COLUMNS, NUDGE_CSV, OVERFLOW, SUBMITTED, read_numbers
from purecc4.report.statistics import estimate
from purecc4.report.study import ESTIMATE, MEAN, Study, frame

POLICY = ["arm", "seed", "kind", "by"]


def read_biases(runs: Sequence[Path], study: Study) -> pd.DataFrame:
    """Return and share (per cent of the action type among submitted actions) by POLICY and red, `mean` included.

    Empty unless the study has sampled actions and a run folder has a `nudge.csv` for the study's checkpoint. Rows with
    overflowed simulator tables are excluded. Raises UserError for a damaged table, and for episodes that differ from
    those of the evaluation.
    """
    paths = [path for run in runs if (path := run / NUDGE_CSV).exists()]
    if study.mode != MODES[0] or not paths:
        return frame([], (*POLICY, "red", "share", "return"))
    rows = pd.concat([_read(path, study) for path in paths], ignore_index=True)
    submitted = rows[list(SUBMITTED)].to_numpy()
    chosen = submitted[np.arange(len(rows)), [ACTIONS.index(kind) for kind in rows["kind"]]]
    rows["share"] = 100 * chosen / submitted.sum(axis=1)
    both = [rows, _over_reds(study, rows)] if MEAN in study.views else [rows]
    return pd.concat(both)[[*POLICY, "red", "share", "return"]]


def _read(path: Path, study: Study) -> pd.DataFrame:
    rows = read_numbers(path, NUDGE_COLUMNS).drop_duplicates([*POLICY, "env_steps", "red"])
    rows = rows[(rows["env_steps"] == study.env_steps) & (rows[OVERFLOW] == 0) & rows["red"].isin(study.reds)]
    for kind in set(rows["kind"]) - set(ACTIONS):
        raise UserError(f"{path} has kind {kind}; known kinds are {', '.join(ACTIONS)}.")
    same = rows[rows["by"] == 0].set_index(["arm", "seed", "red"])
    apart = (same["return"] - study.means["return"].reindex(same.index)).abs()
    if (apart > same["return_error"]).any():
        raise UserError(
            f"{path} has different episodes than the evaluation: run `purecc4 nudge {path.parent}` again with the "
            "--episodes, --eval-seed and --num-steps of the evaluation."
        )
    return rows


def _over_reds(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the red `mean` for policies evaluated against every red of the study."""
    of_study = rows[rows["red"].isin(study.study_reds)].groupby(POLICY, sort=False)
    means = of_study[["share", "return"]].mean()[of_study.size() == len(study.study_reds)]
    return means.reset_index().assign(red=MEAN)


def bias_table(study: Study, biases: pd.DataFrame) -> pd.DataFrame:
    """Return over seeds, and mean share, by arm, red, action type and bias."""
    rows = [
        {"arm": arm, "red": red, "kind": kind, "by": by, "share": seeds["share"].mean()}
        | estimate(seeds["return"])._asdict()
        for (kind, arm, red), biased in _ordered(study, biases)
        for by, seeds in biased.groupby("by")
    ]
    return frame(rows, ("arm", "red", "kind", "by", "share", *ESTIMATE))


def gap_table(study: Study, biases: pd.DataFrame) -> pd.DataFrame:
    """Paired gap in return between every arm at every bias and the control at every bias."""
    returns = {
        key: biased.pivot(index="seed", columns="by", values="return") for key, biased in _ordered(study, biases)
    }
    rows = []
    for (kind, arm, red), own in returns.items():
        control = returns.get((kind, study.control, red), own[[]])
        for by, control_by in product(own, control):
            deltas = (own[by] - control[control_by]).dropna()
            if arm != study.control and len(deltas):
                place = {"arm": arm, "red": red, "kind": kind, "by": by, "control_by": control_by}
                rows.append(place | estimate(deltas)._asdict())
    return frame(rows, ("arm", "red", "kind", "by", "control_by", *ESTIMATE))


def _ordered(study: Study, biases: pd.DataFrame) -> list[tuple[tuple[str, str, str], pd.DataFrame]]:
    """((kind, arm, red), its rows), in the order of the study."""
    found = dict(iter(biases.groupby(["kind", "arm", "red"])))
    places = [(kind, arm, red) for kind in biases["kind"].unique() for arm in study.arms for red in study.views]
    return [(place, found[place]) for place in places if place in found]


def best_biases(table: pd.DataFrame) -> pd.Series:
    """Bias with the highest mean return by arm, from the rows of a `bias_table` for one red and action type."""
    return table.loc[table.groupby("arm")["mean"].idxmax()].set_index("arm")["by"]


def bias_file(kind: str) -> str:
    """Figure name for an action type."""
    return f"logit_bias_{kind}"
