"""The analysis of the study: gaps between arms and control, by bank and by action.

All values are computed per training seed first; `statistics` turns seeds into estimates. Tables are pandas frames with
a row per arm, red and so on. The pseudo red `mean` is a seed's mean over the reds of the published study.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from purecc4.errors import UserError
from purecc4.play.selection import shared
from purecc4.play.tables import (
    ACTIONS,
    BASELINE_SEED,
    CELL,
    EXECUTED,
    MODES,
    STUDY_REDS,
    SUBMITTED,
    VALUES,
    Cell,
    Evaluation,
)
from purecc4.report.statistics import (
    Comparison,
    Estimate,
    bootstrap_iqm,
    estimate,
    factor_effects,
    sign_flip,
    verdict,
    welch,
)

MEAN = "mean"
AXES = ("miss", "cjewel", "pbound", "topo")
COCKTAIL, NO_TOPO, SUM_OF_AXES, SUM_WITHOUT_TOPO = "C11", "C11_notopo", "sum of axes", "sum without topo"
ESTIMATE = list(Estimate._fields)


class Design(NamedTuple):
    """Arms that differ in a few factors only."""

    title: str
    factors: tuple[str, ...]
    arms: dict[str, tuple[int, ...]]
    """0 or 1 for every factor."""
    about: str
    """The differences in words, after the list of the arms."""


GAME_AXES = ("rates", "tempo", "sizes", "reds")
DESIGNS = (
    Design(
        "Price or variation",
        ("Restore at half its price", "mission weights that vary"),
        {"C00": (0, 0), "miss_mean1": (0, 1), "fixed222": (1, 0), "restore_half": (1, 0), "miss": (1, 1)},
        "differ in only two factors, up to a scale of the reward: Restore at half its price relative to the penalties, "
        "and varying mission weights",
    ),
    Design(
        "Axes of the game",
        GAME_AXES,
        {"C00": (0, 0, 0, 0), "all": (1, 1, 1, 1)}
        | {axis: tuple(int(each == axis) for each in GAME_AXES) for axis in GAME_AXES}
        | {f"all_no_{axis}": tuple(int(each != axis) for each in GAME_AXES) for axis in GAME_AXES},
        "differ in what their training varies",
    ),
)


class Question(NamedTuple):
    """A control arm, the arm that it is compared with, and the question that the pair answers."""

    arm: str
    against: str
    decides: str


QUESTIONS = (
    Question(
        "C11prime",
        "C11",
        "Does it matter which reward terms are boosted together? Matched in amplitude: the multipliers of an entry "
        "have the same sums (3, 7, 7, 7) and the same mean (2, 2, 2), so equality does not separate diversity from "
        "magnitude.",
    ),
    Question(
        "fixed222",
        "miss",
        "Does the price of Restore explain the gain? The mean multiplier of the mission bank without variation: "
        "equality means price, a delta near 0 means variation.",
    ),
    Question("restore_half", "miss", "The same question in reverse: multipliers 1, Restore at half its cost."),
    Question(
        "miss_mean1",
        "miss",
        "Does variation help at the full price? The mission bank scaled to mean 1: a delta near 0 means that variation "
        "alone has no effect.",
    ),
    Question("C11_notopo", "C11", "Does the cocktail improve without its topology bank? The study's open prediction."),
    Question("topo_plain16", "topo", "Is the loss of topo due to a small bank? 16 plain generated networks."),
    Question("topo_plain256", "topo", "The same with 256 plain networks: a larger bank should lose less."),
)

STUDY_ARMS = frozenset((*AXES, COCKTAIL, NO_TOPO, *(question.arm for question in QUESTIONS)))
"""Treatments of the published study and the control arms that explain them."""


class Study(NamedTuple):
    """Cell means at one checkpoint and in one mode. `arms` are the trained arms, control first if it was evaluated."""

    control: str
    arms: tuple[str, ...]
    scripts: tuple[str, ...]
    """Scripted policies, the baselines of the arms."""
    reds: tuple[str, ...]
    seeds: tuple[int, ...]
    env_steps: int
    mode: str
    means: pd.DataFrame
    """VALUES by (arm, seed, red), including the red `mean`."""
    episodes: pd.DataFrame
    """Episodes of the scripted policies, with EVALUATION_COLUMNS."""

    @property
    def has_control(self) -> bool:
        return self.control in self.arms

    @property
    def replicates(self) -> bool:
        """True if a treatment is an arm of the published study or one of its controls."""
        return not STUDY_ARMS.isdisjoint(self.treatments)

    @property
    def treatments(self) -> tuple[str, ...]:
        return tuple(arm for arm in self.arms if arm != self.control)

    @property
    def study_reds(self) -> tuple[str, ...]:
        """The evaluated reds that the pseudo red `mean` averages."""
        return tuple(red for red in self.reds if red in STUDY_REDS)

    @property
    def views(self) -> tuple[str, ...]:
        """The reds, and `mean` if there is more than one red of the study."""
        return self.reds + ((MEAN,) if len(self.study_reds) > 1 else ())

    def rows(self, arm: str, red: str) -> pd.DataFrame:
        """Cell means by seed. The red `mean` has the seeds that were evaluated against every red of the study."""
        index = self.means.index
        found = (index.get_level_values("arm") == arm) & (index.get_level_values("red") == red)
        return self.means[found].droplevel(["arm", "red"])

    def per_seed(self, arm: str, red: str, value: str = "return") -> pd.Series:
        return self.rows(arm, red)[value]

    def deltas(self, arm: str, red: str, against: str | None = None) -> pd.Series:
        """Paired differences in return to the control (or to `against`) for the seeds that both have."""
        return (self.per_seed(arm, red) - self.per_seed(against or self.control, red)).dropna()

    def shares(self, arm: str, red: str, columns: Sequence[str] = SUBMITTED) -> pd.DataFrame:
        """Share of each action in per cent, by seed. All zero if there are no actions."""
        counts = self.rows(arm, red)[list(columns)].set_axis(list(ACTIONS), axis=1)
        return 100 * counts.div(counts.sum(axis=1).clip(lower=1), axis=0)

    def returns(self, arm: str, red: str) -> Estimate | None:
        """Return of a trained arm over its seeds, or of a script over its episodes. None if it was not evaluated."""
        values = self.per_seed(arm, red)
        if arm in self.scripts and len(values):
            reds = self.study_reds if red == MEAN else (red,)
            episodes = self.episodes[(self.episodes["arm"] == arm) & self.episodes["red"].isin(reds)]
            values = episodes.groupby("episode")["return"].mean()
        return estimate(values) if len(values) else None

    def missing(self) -> list[str]:
        """Missing cells of arms x seeds x reds, and of scripted policies x reds."""
        wanted = [Cell(arm, seed, self.env_steps, "", self.mode) for arm in self.arms for seed in self.seeds]
        wanted += [Cell(script, BASELINE_SEED, 0, "", MODES[0]) for script in self.scripts]
        return [
            str(cell._replace(red=red))
            for cell in wanted
            for red in self.reds
            if (cell.arm, cell.seed, red) not in self.means.index
        ]


def cell_means(evaluation: Evaluation) -> pd.DataFrame:
    """Mean over episodes of VALUES by CELL. The red `mean` is added for policies with all reds of the study.

    Values that only newer tables have are left out if none has them.
    """
    means = evaluation.rows.groupby(CELL, sort=False)[list(VALUES)].mean().dropna(axis="columns", how="all")
    reds = set(means.index.unique("red")) & set(STUDY_REDS)
    policy = [name for name in CELL if name != "red"]
    of_study = means[means.index.isin(reds, level="red")].groupby(policy, sort=False)
    whole = of_study.mean()[of_study.size() == len(reds)]
    if len(reds) < 2:
        return means
    return pd.concat([means, whole.assign(red=MEAN).set_index("red", append=True).reorder_levels(CELL)])


def make_studies(
    evaluation: Evaluation, control: str = "C00", env_steps: int | str = "last"
) -> tuple[pd.DataFrame, dict[str, Study]]:
    """Compute the means of all cells, and a study per mode at one checkpoint.

    The checkpoint is `env_steps`, or the last that all runs share. Sampled comes first; greedy is included if it was
    evaluated at the same checkpoint. Raises UserError if there is no trained arm, no such checkpoint, or no control arm
    other than the default C00.
    """
    means = cell_means(evaluation)
    trained = evaluation.rows[evaluation.rows["seed"] != BASELINE_SEED]
    arms = list(trained["arm"].unique())
    if not arms:
        raise UserError("the tables hold no trained arm: evaluate a run folder with checkpoints first.")
    if control != "C00" and control not in arms:
        raise UserError(f"unknown control arm {control}: the tables hold {', '.join(arms)}.")
    first, *others = (trained[trained["mode"] == mode] for mode in MODES if mode in set(trained["mode"]))
    runs = first.groupby(["arm", "seed"], sort=False)["env_steps"].agg(set)
    at = shared({f"{arm} seed {seed}": at for (arm, seed), at in runs.items()}, "evaluated checkpoints", env_steps)
    played = [first, *(rows for rows in others if at in set(rows["env_steps"]))]
    return means, {rows["mode"].iloc[0]: _study(evaluation, means, rows, control, at) for rows in played}


def _study(evaluation: Evaluation, means: pd.DataFrame, trained: pd.DataFrame, control: str, at: int) -> Study:
    """Build the study of one mode. `trained` are its episodes of trained arms."""
    mode, scripted = trained["mode"].iloc[0], evaluation.rows[evaluation.rows["seed"] == BASELINE_SEED]
    arms, scripts = tuple(trained["arm"].unique()), tuple(scripted["arm"].unique())
    if both := set(arms) & set(scripts):
        raise UserError(f"{min(both)} is both a trained arm and a scripted policy: rename the arm.")
    keys = means.index.to_frame()
    here = (keys["mode"] == mode) & (keys["env_steps"] == at) | (keys["seed"] == BASELINE_SEED)
    reds = evaluation.rows["red"].unique()
    return Study(
        control=control,
        arms=tuple(sorted(arms, key=lambda arm: arm != control)),
        scripts=scripts,
        reds=tuple(sorted(reds, key=lambda red: STUDY_REDS.index(red) if red in STUDY_REDS else len(STUDY_REDS))),
        seeds=tuple(sorted(trained["seed"].unique().tolist())),
        env_steps=at,
        mode=mode,
        means=means[here].droplevel(["env_steps", "mode"]),
        episodes=scripted,
    )


def frame(rows: Sequence[dict[str, Any]], columns: Sequence[str | int]) -> pd.DataFrame:
    """Build a table that has its columns even without rows."""
    return pd.DataFrame(rows, columns=list(columns))


def return_table(study: Study) -> pd.DataFrame:
    """Return of every arm and scripted policy by red. `above_sleep` is NaN if sleep was not evaluated."""
    rows = []
    for red in study.views:
        floor = study.returns("sleep", red)
        for arm in (*study.arms, *study.scripts):
            if found := study.returns(arm, red):
                above = found.mean - floor.mean if floor else np.nan
                rows.append({"arm": arm, "red": red, **found._asdict(), "above_sleep": above})
    return frame(rows, ("arm", "red", *ESTIMATE, "above_sleep"))


def baseline_table(study: Study) -> pd.DataFrame:
    """Gap of every trained arm to each scripted policy by red, over the seeds of the arm."""
    rows = []
    for red in study.views:
        for script in study.scripts:
            baseline = study.returns(script, red)
            for arm in study.arms:
                values = study.per_seed(arm, red)
                if baseline and len(values):
                    worth = {"script": script, "script_mean": baseline.mean, "script_stderr": baseline.stderr}
                    rows.append({"arm": arm, "red": red, **worth, **estimate(values - baseline.mean)._asdict()})
    return frame(rows, ("arm", "red", "script", "script_mean", "script_stderr", *ESTIMATE))


def effects_by_seed(study: Study) -> pd.DataFrame:
    """Paired deltas to the control by (name, red) [rows] and seed [columns], NaN for missing seeds.

    The treatments are followed by the sum of the axes per seed and the excess of the cocktail over it, then by the same
    without topo. A sum is only formed if all of its terms were evaluated.
    """
    found = {arm: _wide(study, arm) for arm in study.treatments}
    for name, axes, whole in ((SUM_OF_AXES, AXES, COCKTAIL), (SUM_WITHOUT_TOPO, AXES[:3], NO_TOPO)):
        if all(axis in found for axis in axes):
            found[name] = sum(found[axis] for axis in axes)
            if whole in found:
                found[f"{whole} - {name}"] = found[whole] - found[name]
    if not found:
        return frame([], study.seeds)
    return pd.concat(found, names=["name", "red"]).dropna(how="all")


def _wide(study: Study, arm: str) -> pd.DataFrame:
    deltas = {red: study.deltas(arm, red) for red in study.views}
    return pd.DataFrame(deltas).T.reindex(index=study.views, columns=study.seeds)


def effect_table(study: Study, effects: pd.DataFrame) -> pd.DataFrame:
    """Estimates over seeds of `effects_by_seed`."""
    rows = [
        {"name": name, "red": red, **estimate(seeds.dropna())._asdict()} for (name, red), seeds in effects.iterrows()
    ]
    return frame(rows, ("name", "red", *ESTIMATE))


def delta_table(study: Study, effects: pd.DataFrame) -> pd.DataFrame:
    """Paired delta of every treatment to the control by red: estimate, verdict, interquartile mean, delta per seed.

    The verdict on `mean` applies the rule for single reds to their mean, which was not pre-registered.
    """
    seeds = [f"seed_{seed}" for seed in study.seeds]
    columns = ("arm", "red", *ESTIMATE, "verdict", "sign_flip", "iqm", "iqm_low", "iqm_high", *seeds)
    rows = []
    for (arm, red), by_seed in effects.iterrows():
        if arm in study.treatments:
            deltas = by_seed.dropna()
            of_reds = study.study_reds if red == MEAN else (red,)
            iqm = bootstrap_iqm(effects.loc[[(arm, each) for each in of_reds], deltas.index].to_numpy().T)
            decided = {"verdict": verdict(deltas), "sign_flip": sign_flip(deltas)}
            decided |= {"iqm": iqm.value, "iqm_low": iqm.low, "iqm_high": iqm.high}
            decided |= dict(zip(seeds, by_seed, strict=True))
            rows.append({"arm": arm, "red": red, **estimate(deltas)._asdict(), **decided})
    return frame(rows, columns)


def unpaired_table(study: Study) -> pd.DataFrame:
    """Return of every treatment minus that of the control by red, with Welch's interval. Needs two seeds of each."""
    rows = []
    for arm in study.treatments:
        for red in study.views:
            own, control = (study.per_seed(name, red).dropna() for name in (arm, study.control))
            if min(len(own), len(control)) > 1:
                rows.append({"arm": arm, "red": red, **welch(own, control)._asdict()})
    return frame(rows, ("arm", "red", *Comparison._fields))


def factor_table(study: Study) -> pd.DataFrame:
    """Effect of each factor of DESIGNS on the return by red, from all runs of the design's arms.

    A design needs two seeds and an arm with each of its combinations of factors.
    """
    rows = []
    for design, red in product(DESIGNS, study.views):
        runs = pd.concat({arm: study.per_seed(arm, red) for arm in design.arms})
        factors = [design.arms[arm] for arm, _ in runs.index]
        if set(factors) == set(design.arms.values()) and len(study.seeds) > 1:
            effects = factor_effects(np.array(factors, float), runs.to_numpy())
            place = {"design": design.title, "red": red}
            rows += [place | {"factor": f} | e._asdict() for f, e in zip(design.factors, effects, strict=True)]
    return frame(rows, ("design", "factor", "red", *ESTIMATE))


def action_table(study: Study) -> pd.DataFrame:
    """Share of each action in per cent by arm, seed, red and kind (submitted, executed)."""
    tables = [
        study.shares(arm, red, columns).reset_index(names="seed").assign(arm=arm, red=red, kind=kind)
        for arm in (*study.arms, *study.scripts)
        for red in study.views
        for kind, columns in (("submitted", SUBMITTED), ("executed", EXECUTED))
    ]
    return pd.concat(tables)[["arm", "seed", "red", "kind", *ACTIONS]]


def curve_table(means: pd.DataFrame) -> pd.DataFrame:
    """Return of every trained arm at every evaluated checkpoint, over its seeds."""
    rows = [
        {"mode": mode, "arm": arm, "red": red, "env_steps": at, **estimate(seeds.dropna())._asdict()}
        for (mode, arm, red), wide in _over_checkpoints(means)
        for at, seeds in wide.iterrows()
    ]
    return frame(rows, ("mode", "arm", "red", "env_steps", *ESTIMATE))


def middle_table(means: pd.DataFrame) -> pd.DataFrame:
    """Gap between the best evaluated checkpoint of an arm (by its mean over seeds) and the last, paired by seed.

    The best checkpoint was selected on the same episodes, so the gap is biased upwards.
    """
    rows = []
    for (mode, arm, red), wide in _over_checkpoints(means):
        wide = wide[wide.columns[wide.iloc[-1].notna()]].dropna()
        if len(wide) == 1:
            continue
        best, last = int(wide.mean(axis=1).idxmax()), int(wide.index[-1])
        gap = estimate(wide.loc[best] - wide.loc[last])
        place = {"mode": mode, "arm": arm, "red": red, "checkpoints": len(wide), "best": best, "last": last}
        rows.append({**place, **gap._asdict(), "answer": _answer(best == last, gap)})
    return frame(rows, ("mode", "arm", "red", "checkpoints", "best", "last", *ESTIMATE, "answer"))


def _answer(is_last: bool, gap: Estimate) -> str:
    if is_last:
        return "no, the last is the best"
    if gap.n == 1:
        return "one seed, no interval"
    return "yes" if gap.low > 0 else "not separated"


def _over_checkpoints(means: pd.DataFrame) -> Any:
    """Yield ((mode, arm, red), returns [env_steps, seed]) of every trained arm."""
    trained = means.loc[means.index.get_level_values("seed") != BASELINE_SEED, "return"]
    for key, values in trained.groupby(["mode", "arm", "red"], sort=False):
        wide = values.droplevel(["mode", "arm", "red"]).unstack("seed").sort_index()
        yield key, wide


def mode_table(studies: dict[str, Study]) -> pd.DataFrame:
    """Greedy minus sampled return of every arm by red, paired by seed. Empty unless both were evaluated."""
    rows = []
    if len(studies) == len(MODES):
        sampled, greedy = (studies[mode] for mode in MODES)
        for arm in sampled.arms:
            for red in sampled.views:
                pair = pd.DataFrame({mode: study.per_seed(arm, red) for mode, study in studies.items()}).dropna()
                if len(pair):
                    gap = estimate(pair[greedy.mode] - pair[sampled.mode])
                    rows.append({"arm": arm, "red": red, **pair.mean(), **gap._asdict()})
    return frame(rows, ("arm", "red", *MODES, *ESTIMATE))


def by_mode(studies: dict[str, Study], table: Callable[[Study], pd.DataFrame]) -> pd.DataFrame:
    """Concatenate a table of every study, with a leading column `mode`."""
    return pd.concat({mode: table(study) for mode, study in studies.items()}, names=["mode"]).reset_index("mode")
