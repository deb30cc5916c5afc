"""The study's questions put to evaluated cells: who beats the control, by how much, through which bank and action.

All values are per training seed first; `statistics` turns seeds into estimates. The pseudo red `mean` is a seed's mean
over the reds of the published study.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from purecc4.errors import UserError
from purecc4.play.tables import BASELINE_SEED, BASELINES, STUDY_REDS, SUBMITTED, VALUES, Cell, Evaluation
from purecc4.report.statistics import Estimate, Interval, bootstrap_iqm, estimate, sign_flip, verdict

MEAN = "mean"
AXES = ("miss", "cjewel", "pbound", "topo")
COCKTAIL, NO_TOPO, SUM_OF_AXES, SUM_WITHOUT_TOPO = "C11", "C11_notopo", "sum of axes", "sum without topo"

PerSeed = dict[int, float]


class Question(NamedTuple):
    """A control arm, the arm it is held against, and what the pair decides."""

    arm: str
    against: str
    decides: str


QUESTIONS = (
    Question(
        "C11prime",
        "C11",
        "Does it matter which parts are boosted together? Amplitude-matched: an entry's multipliers have the same sums "
        "(3, 7, 7, 7) and the same mean (2, 2, 2), so equality cannot tell diversity from magnitude.",
    ),
    Question(
        "fixed222",
        "miss",
        "Is the gain the price of Restore? The mission bank's mean multiplier without any variation: equality says "
        "price, a delta near 0 says variation.",
    ),
    Question("restore_half", "miss", "The same from the other side: multipliers 1, Restore at half its cost."),
    Question(
        "miss_mean1",
        "miss",
        "Does variation help when the price stays? The mission bank scaled to mean 1: a delta near 0 says that "
        "variation alone does nothing.",
    ),
    Question("C11_notopo", "C11", "Does the cocktail gain without its topology bank? The study's open prediction."),
    Question("topo_plain16", "topo", "Is the loss of topo due to a small bank? 16 plain generated networks."),
    Question("topo_plain256", "topo", "The same with 256 plain networks: the loss should shrink as the bank grows."),
)


class Study(NamedTuple):
    """Cell means at one checkpoint. `arms` are the trained arms, control first if it was evaluated."""

    control: str
    arms: tuple[str, ...]
    baselines: tuple[str, ...]
    reds: tuple[str, ...]
    seeds: tuple[int, ...]
    env_steps: int
    means: Mapping[tuple[str, int, str], Float[np.ndarray, "term"]]

    @property
    def has_control(self) -> bool:
        return self.control in self.arms

    @property
    def treatments(self) -> tuple[str, ...]:
        return tuple(arm for arm in self.arms if arm != self.control)

    @property
    def study_reds(self) -> tuple[str, ...]:
        """The evaluated reds that the pseudo red `mean` averages."""
        return tuple(red for red in self.reds if red in STUDY_REDS)

    @property
    def views(self) -> tuple[str, ...]:
        """The reds, and their mean if there is more than one red of the study."""
        return self.reds + ((MEAN,) if len(self.study_reds) > 1 else ())

    def per_seed(self, arm: str, red: str, value: str = "return") -> PerSeed:
        """A column's cell mean by seed; for the red `mean`, of the seeds that met every red of the study."""
        reds = self.study_reds if red == MEAN else (red,)
        seeds = (BASELINE_SEED,) if arm in BASELINES else self.seeds
        term = VALUES.index(value)
        return {
            seed: float(np.mean([self.means[arm, seed, each][term] for each in reds]))
            for seed in seeds
            if all((arm, seed, each) in self.means for each in reds)
        }

    def deltas(self, arm: str, red: str, value: str = "return", against: str | None = None) -> PerSeed:
        """Paired differences of an arm to the control (or to `against`) by the seeds that both have."""
        return differences(self.per_seed(arm, red, value), self.per_seed(against or self.control, red, value))

    def shares(self, arm: str, red: str, columns: Sequence[str] = SUBMITTED) -> dict[int, Float[np.ndarray, "action"]]:
        """Per cent of each action among all actions of the columns, by seed."""
        counts = [self.per_seed(arm, red, column) for column in columns]
        return {seed: percent(np.array([count[seed] for count in counts])) for seed in counts[0]}

    def missing(self) -> list[str]:
        """Cells of arms x seeds x reds, and of baselines x reds, that the tables do not hold."""
        wanted = [(arm, seed, red) for arm in self.arms for seed in self.seeds for red in self.reds]
        wanted += [(arm, BASELINE_SEED, red) for arm in self.baselines for red in self.reds]
        steps = {seed: self.env_steps for seed in self.seeds} | {BASELINE_SEED: 0}
        return [str(Cell(a, s, steps[s], r)) for a, s, r in wanted if (a, s, r) not in self.means]


class DeltaRow(NamedTuple):
    """Paired delta of an arm to the control; for the red `mean` there is no pre-registered verdict."""

    arm: str
    red: str
    per_seed: PerSeed
    found: Estimate
    verdict: str
    sign_flip: bool
    iqm: Interval


class EffectRow(NamedTuple):
    """A difference by red; `per_seed` holds the reds of `Study.views` that could be formed."""

    name: str
    per_seed: dict[str, PerSeed]

    def cells(self, reds: Sequence[str]) -> tuple[int, int]:
        """How many (seed, red) cells are positive, and how many there are."""
        values = [value for red in reds for value in self.per_seed.get(red, {}).values()]
        return sum(value > 0 for value in values), len(values)


def differences(first: PerSeed, second: PerSeed) -> PerSeed:
    """First minus second, by the seeds that both have."""
    return {seed: value - second[seed] for seed, value in first.items() if seed in second}


def percent(counts: Float[np.ndarray, "action"]) -> Float[np.ndarray, "action"]:
    """Shares in per cent; all zero if nothing was counted."""
    return 100 * counts / max(counts.sum(), 1.0)


def values_of(per_seed: PerSeed) -> Float[np.ndarray, "run"]:
    return np.array(list(per_seed.values()), float)


def make_study(evaluation: Evaluation, control: str = "C00", env_steps: int | None = None) -> Study:
    """Take one checkpoint of every run: `env_steps`, or the latest that all evaluated runs share.

    Raises UserError if there is no trained arm, no such checkpoint, or no arm of the control's name while one other
    than C00 was asked for.
    """
    trained = [cell for cell in evaluation.cells if cell.arm not in BASELINES]
    if not trained:
        raise UserError("The tables hold no trained arm: evaluate a run folder with checkpoints.")
    arms = tuple(dict.fromkeys(cell.arm for cell in trained))
    if control != "C00" and control not in arms:
        raise UserError(f"No arm {control} for the control: the tables hold {', '.join(arms)}.")
    steps = _checkpoint(trained, env_steps)
    reds = tuple(dict.fromkeys(cell.red for cell in evaluation.cells))
    return Study(
        control=control,
        arms=tuple(sorted(arms, key=lambda arm: arm != control)),
        baselines=tuple(arm for arm in BASELINES if any(cell.arm == arm for cell in evaluation.cells)),
        reds=tuple(sorted(reds, key=lambda red: STUDY_REDS.index(red) if red in STUDY_REDS else len(STUDY_REDS))),
        seeds=tuple(sorted({cell.seed for cell in trained})),
        env_steps=steps,
        means={
            (cell.arm, cell.seed, cell.red): values.mean(axis=0)
            for cell, values in evaluation.cells.items()
            if cell.arm in BASELINES or cell.env_steps == steps
        },
    )


def _checkpoint(trained: Sequence[Cell], wanted: int | None) -> int:
    by_run: dict[tuple[str, int], set[int]] = {}
    for cell in trained:
        by_run.setdefault((cell.arm, cell.seed), set()).add(cell.env_steps)
    known = sorted(set.union(*by_run.values()))
    if wanted is not None:
        if wanted not in known:
            raise UserError(f"No run was evaluated at {wanted} env steps, only at {', '.join(map(str, known))}.")
        return wanted
    shared = set.intersection(*by_run.values())
    if not shared:
        (least, steps), (most, others) = (pick(by_run.items(), key=lambda run: max(run[1])) for pick in (min, max))
        raise UserError(
            f"The runs share no evaluated checkpoint and are not compared: {least[0]} seed {least[1]} has "
            f"{max(steps)} env steps, {most[0]} seed {most[1]} has {max(others)}; evaluate with  --checkpoints all."
        )
    return max(shared)


def delta_rows(study: Study) -> list[DeltaRow]:
    """Paired deltas of every treatment, by red and for their mean; pairs that no seed has are left out."""
    rows = []
    for arm in study.treatments:
        for red in study.views:
            per_seed = study.deltas(arm, red)
            if per_seed:
                rows.append(_delta_row(study, arm, red, per_seed))
    return rows


def _delta_row(study: Study, arm: str, red: str, per_seed: PerSeed) -> DeltaRow:
    values = values_of(per_seed)
    reds = study.study_reds if red == MEAN else (red,)
    scores = np.array([[study.deltas(arm, each)[seed] for each in reds] for seed in per_seed])
    decided = "" if red == MEAN else verdict(values)
    return DeltaRow(arm, red, per_seed, estimate(values), decided, sign_flip(values), bootstrap_iqm(scores))


def effect(study: Study, arm: str, against: str | None = None) -> EffectRow:
    """Paired deltas of an arm by red, to the control or to another arm."""
    name = arm if against is None else f"{arm} - {against}"
    found = {red: study.deltas(arm, red, against=against) for red in study.views}
    return EffectRow(name, {red: per_seed for red, per_seed in found.items() if per_seed})


def ablation(study: Study) -> list[EffectRow]:
    """Single axes, their sums, the cocktails, and what the cocktails have beyond the sums; absent arms are left out."""
    rows = [effect(study, arm) for arm in (*AXES, COCKTAIL, NO_TOPO) if arm in study.treatments]
    by_name = {row.name: row for row in rows}
    for name, axes, whole in ((SUM_OF_AXES, AXES, COCKTAIL), (SUM_WITHOUT_TOPO, AXES[:3], NO_TOPO)):
        if all(axis in by_name for axis in axes):
            parts = [by_name[axis] for axis in axes]
            rows.append(_combine(name, study.views, [part.per_seed for part in parts], [1] * len(parts)))
            if whole in by_name:
                beyond = [by_name[whole].per_seed, rows[-1].per_seed]
                rows.append(_combine(f"{whole} - {name}", study.views, beyond, [1, -1]))
    return [row for row in rows if row.per_seed]


def _combine(name: str, views: Sequence[str], parts: Sequence[dict[str, PerSeed]], signs: Sequence[int]) -> EffectRow:
    combined = {}
    for red in views:
        found = [part.get(red, {}) for part in parts]
        seeds = [seed for seed in found[0] if all(seed in per_seed for per_seed in found)]
        combined[red] = {seed: sum(s * p[seed] for s, p in zip(signs, found, strict=True)) for seed in seeds}
    return EffectRow(name, {red: per_seed for red, per_seed in combined.items() if per_seed})


def checkpoint_curves(evaluation: Evaluation, arm: str, red: str) -> tuple[list[int], list[Estimate]]:
    """Env steps at which an arm was evaluated against a red, and the estimate over the seeds evaluated there."""
    by_steps: dict[int, list[float]] = {}
    for cell, values in evaluation.cells.items():
        if (cell.arm, cell.red) == (arm, red):
            by_steps.setdefault(cell.env_steps, []).append(float(values[:, VALUES.index("return")].mean()))
    steps = sorted(by_steps)
    return steps, [estimate(by_steps[at]) for at in steps]


def baseline_estimate(evaluation: Evaluation, arm: str, red: str) -> Estimate | None:
    """Return of a policy without training over its episodes (not seeds), or None if it was not evaluated."""
    values = evaluation.cells.get(Cell(arm, BASELINE_SEED, 0, red))
    return None if values is None else estimate(values[:, VALUES.index("return")])
