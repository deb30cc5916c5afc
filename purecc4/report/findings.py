"""All that a report prints, worked out once from the tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from purecc4.play.tables import Evaluation, read_evaluation
from purecc4.report.published import SideBySide, side_by_side
from purecc4.report.statistics import Estimate, estimate
from purecc4.report.study import (
    MEAN,
    DeltaRow,
    EffectRow,
    Study,
    ablation,
    baseline_estimate,
    delta_rows,
    effect,
    make_study,
    values_of,
)
from purecc4.train.metrics import Curve, read_metrics


class ReturnRow(NamedTuple):
    """Return of an arm against a red over its seeds; of a baseline over its episodes. None: sleep was not evaluated."""

    arm: str
    red: str
    found: Estimate
    above_sleep: float | None


class Findings(NamedTuple):
    """The pooled tables and what follows from them. `effects` holds every treatment's deltas, then the sums of axes."""

    evaluation: Evaluation
    study: Study
    returns: list[ReturnRow]
    deltas: list[DeltaRow]
    effects: list[EffectRow]
    curves: dict[tuple[str, int], Curve]
    compared: list[SideBySide]


def find(runs: Sequence[Path], control: str = "C00", env_steps: int | None = None) -> Findings:
    """Read the tables of run folders and work out everything; raises UserError in one sentence on bad input."""
    evaluation = read_evaluation(runs)
    study = make_study(evaluation, control, env_steps)
    sums = ablation(study)
    others = [effect(study, arm) for arm in study.treatments if arm not in {row.name for row in sums}]
    effects = [row for row in others if row.per_seed] + sums
    return Findings(
        evaluation=evaluation,
        study=study,
        returns=_returns(evaluation, study),
        deltas=delta_rows(study),
        effects=effects,
        curves=read_metrics(runs),
        compared=side_by_side(study, evaluation, effects),
    )


def _returns(evaluation: Evaluation, study: Study) -> list[ReturnRow]:
    rows = []
    for arm in (*study.arms, *study.baselines):
        for red in study.views:
            per_seed, floor = study.per_seed(arm, red), study.per_seed("sleep", red)
            if not per_seed:
                continue
            over_episodes = arm in study.baselines and red != MEAN
            found = baseline_estimate(evaluation, arm, red) if over_episodes else estimate(values_of(per_seed))
            rows.append(ReturnRow(arm, red, found, found.mean - float(values_of(floor)[0]) if floor else None))
    return rows
