"""What is left of a lead when the control acts like the arm: the tables of `purecc4 nudge`, over seeds.

`nudge` adds a constant, the shift, to the logits of one kind of action of a trained network. If two arms differ only in
how often they take that action, the control shifted towards an arm does as well as the arm.
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
    """Return and share (per cent of the kind among all submitted actions) by POLICY and red, `mean` included.

    Empty unless the study is of sampled actions and a run folder has a table of `nudge` at the study's checkpoint. What
    outgrew a table of the simulator is left out. Raises UserError on a damaged table and on one of other episodes
    than the evaluation's.
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
        raise UserError(f"{path} has kind {kind}, which is none of {', '.join(ACTIONS)}.")
    same = rows[rows["by"] == 0].set_index(["arm", "seed", "red"])
    apart = (same["return"] - study.means["return"].reindex(same.index)).abs()
    if (apart > same["return_error"]).any():
        raise UserError(
            f"{path} is of other episodes than the evaluation: run  purecc4 nudge {path.parent}  again, with the "
            "evaluation's --episodes, --eval-seed and --num-steps."
        )
    return rows


def _over_reds(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """A line with the red `mean` for each policy that met every red of the study."""
    of_study = rows[rows["red"].isin(study.study_reds)].groupby(POLICY, sort=False)
    means = of_study[["share", "return"]].mean()[of_study.size() == len(study.study_reds)]
    return means.reset_index().assign(red=MEAN)


def bias_table(study: Study, shifts: pd.DataFrame) -> pd.DataFrame:
    """Return over seeds, and mean share, of every arm, red, kind and shift."""
    rows = [
        {"arm": arm, "red": red, "kind": kind, "by": by, "share": seeds["share"].mean()}
        | estimate(seeds["return"])._asdict()
        for (kind, arm, red), shifted in _ordered(study, shifts)
        for by, seeds in shifted.groupby("by")
    ]
    return frame(rows, ("arm", "red", "kind", "by", "share", *ESTIMATE))


def gap_table(study: Study, shifts: pd.DataFrame) -> pd.DataFrame:
    """Paired differences of return between every arm at every shift and the control at every shift."""
    returns = {
        key: shifted.pivot(index="seed", columns="by", values="return") for key, shifted in _ordered(study, shifts)
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


def _ordered(study: Study, shifts: pd.DataFrame) -> list[tuple[tuple[str, str, str], pd.DataFrame]]:
    """((kind, arm, red), its rows), in the order of the study."""
    found = dict(iter(shifts.groupby(["kind", "arm", "red"])))
    places = [(kind, arm, red) for kind in shifts["kind"].unique() for arm in study.arms for red in study.views]
    return [(place, found[place]) for place in places if place in found]


def best_biases(table: pd.DataFrame) -> pd.Series:
    """The shift with the best mean return by arm, from the rows of a table of shifts for one red and kind."""
    return table.loc[table.groupby("arm")["mean"].idxmax()].set_index("arm")["by"]


def bias_file(kind: str) -> str:
    """Name of the figure of shifts of a kind of action."""
    return f"logit_bias_{kind}"
