"""The page of a report: every table as Markdown, and beside each what it can and cannot say."""

from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path

import numpy as np
from scipy import stats

from purecc4.play.tables import ACTIONS, EXECUTED, STUDY_REDS, SUBMITTED
from purecc4.report.findings import Findings, ReturnRow
from purecc4.report.published import (
    ENV_STEPS,
    SEEDS,
    SHARES,
    SOURCES,
    TEXT,
    SideBySide,
    published_actions,
    published_value,
)
from purecc4.report.statistics import CONFIRM_MEAN, CONFIRMED, REFUTE_MEAN, Estimate, estimate
from purecc4.report.study import (
    AXES,
    COCKTAIL,
    MEAN,
    NO_TOPO,
    QUESTIONS,
    SUM_OF_AXES,
    SUM_WITHOUT_TOPO,
    DeltaRow,
    EffectRow,
    Question,
    Study,
    effect,
    values_of,
)
from purecc4.train.folder import PARTS

PRICE = """The mission multipliers are drawn unseen by the policy and never touch the cost of Restore, so in expectation
a mission bank of mean (2, 2, 2) is Restore at half price. C11, C11prime and miss share that objective; only arms that
fix the price or the variation tell the two apart. "Not separated" is no proof of equality: these seeds do not tell the
two apart."""

READING = f"""## How to read this

* Verdict, in the order of the study's code: mean >= {CONFIRM_MEAN:.0f} and mean - stderr > 0 is CONFIRMED; otherwise
  mean <= {REFUTE_MEAN:.0f} or a sign flip is REFUTED; otherwise INCONCLUSIVE. A sign flip (deltas not all of one sign)
  does not stop a CONFIRMED and is shown beside it. One seed gets no verdict.
* stderr: sample standard deviation over seeds / sqrt(seeds). The t-bounds take the small number of seeds into account.
* IQM: interquartile mean over seeds and reds, a quarter cut from each end (below four values nothing is cut: the mean).
  Its interval is a bootstrap over seeds, stratified by red, all reds of a seed together; 10,000 resamples, 95 %
  percentiles. With few seeds it is too narrow.
* Every interval is for one cell, without correction for the number of cells."""


def text(found: Findings, runs: Sequence[Path], figures: Sequence[str]) -> str:
    """The whole page; `figures` are the names of the figures that were drawn."""
    sections = [
        _head(found, runs),
        _verdicts(found, figures),
        _returns(found, figures),
        _ablation(found),
        _questions(found.study),
        _actions(found.study, figures),
        _curves(found, figures),
        _published(found, figures),
        READING,
    ]
    return "\n\n".join(sections) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table, its first `left` columns to the left and the others to the right."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def picture(name: str, caption: str, figures: Sequence[str], more: str = "") -> list[str]:
    """A figure with its caption, or nothing if it was not drawn."""
    return [f"![{caption}]({name}.png)", f"*{caption}.* [SVG]({name}.svg){more}"] if name in figures else []


def signed(value: float) -> str:
    return "n/a" if isnan(value) else f"{round(value) + 0.0:+.0f}"


def interval(low: float | None, high: float | None) -> str:
    return "n/a" if low is None or high is None or isnan(low) else f"{signed(low)} .. {signed(high)}"


def plus_minus(found: Estimate, sign: str = "") -> str:
    return f"{found.mean:{sign}.0f}" + ("" if isnan(found.stderr) else f" ± {found.stderr:.0f}")


def counted(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")


def _head(found: Findings, runs: Sequence[Path]) -> str:
    study = found.study
    protocol = ", ".join(f"{key} {value}" for key, value in found.evaluation.settings.items())
    missing = _missing(study)
    lines = [
        "# Report on " + ", ".join(run.resolve().name for run in runs),
        f"{counted(len(study.seeds), 'seed')} ({', '.join(map(str, study.seeds))}), {counted(len(study.arms), 'arm')} "
        f"({', '.join(study.arms)}), compared at {study.env_steps} env steps of training. Evaluation protocol: "
        f"{protocol}; the same episode keys for every arm, seed and red.",
        _caution(len(study.seeds)),
        "Missing:\n\n" + "\n".join(f"* {cell}" for cell in missing) if missing else "Missing: nothing.",
    ]
    if study.env_steps < ENV_STEPS:
        share = 100 * study.env_steps / ENV_STEPS
        lines.insert(
            3,
            f"**{share:.0f} % of the published training:** the study trained each run for {ENV_STEPS} env steps, so "
            "nothing here confirms or refutes its claims, whatever the verdicts below.",
        )
    return "\n\n".join(lines)


def _missing(study: Study) -> list[str]:
    cells = study.missing()
    if not study.has_control:
        cells.append(f"the control {study.control}, so there are no paired deltas and no verdicts")
    if "sleep" not in study.baselines:
        cells.append("sleep, so there is no floor to compare with")
    return cells + [f"every arm against {red}, a red of the study" for red in STUDY_REDS if red not in study.reds]


def _caution(seeds: int) -> str:
    if seeds == 1:
        return "**One seed:** no standard errors over seeds, no intervals, no verdicts."
    reach, level = stats.t.ppf(0.975, seeds - 1), 100 * stats.t.cdf(1, seeds - 1)
    return (
        f"**{seeds} seeds:** a 95 % t-interval reaches {reach:.1f} standard errors to either side, and the rule's "
        f'"mean - stderr > 0" is a one-sided bound of {level:.0f} % only.'
    )


def _verdicts(found: Findings, figures: Sequence[str]) -> str:
    study, rows = found.study, found.deltas
    if not rows:
        return f"## Verdicts\n\nNone: no arm shares a seed and a red with the control {study.control}."
    by_cell = {(row.arm, row.red): row for row in rows}
    arms = list(dict.fromkeys(row.arm for row in rows))
    matrix = [[arm, *[_verdict(by_cell.get((arm, red))) for red in study.reds]] for arm in arms]
    confirmed = [row for row in rows if row.verdict == CONFIRMED]
    doubtful = sum(row.found.low <= 0 for row in confirmed)
    columns = ["arm", "red", "seeds", "delta by seed", "mean", "stderr", "mean - stderr"]
    columns += ["95 % one-sided", "95 % t-interval", "IQM (95 % bootstrap)", "verdict"]
    lines = [
        "## Verdicts",
        f"Paired delta of each arm to {study.control}, per training seed. All arms were trained against `fsm`; the "
        "other reds were not met in training.",
        table(["arm", *study.reds], matrix),
        f"{counted(len(confirmed), 'CONFIRMED cell')}, of which {doubtful} with a 95 % t-interval that includes 0.",
        table(columns, [_delta(row) for row in rows], left=2),
        f"Deltas by seed follow the order of the seeds that arm and control share. `{MEAN}` is a seed's mean over "
        f"{', '.join(study.study_reds)}; the pre-registered rule gives no verdict on it.",
    ]
    caption = f"Paired deltas to {study.control}; an arrow head marks an interval that goes on"
    return "\n\n".join(lines + picture("forest", caption, figures))


def _verdict(row: DeltaRow | None) -> str:
    if row is None:
        return "missing"
    return f"{row.verdict} {plus_minus(row.found, '+')}" + (" (sign flip)" if row.sign_flip else "")


def _delta(row: DeltaRow) -> list[str]:
    found, iqm = row.found, row.iqm
    by_seed = " / ".join(signed(value) for value in row.per_seed.values())
    stderr = "n/a" if isnan(found.stderr) else f"{found.stderr:.0f}"
    cells = [row.arm, row.red, str(found.n), by_seed, signed(found.mean), stderr, signed(found.lower_bound)]
    cells += [signed(found.one_sided), interval(found.low, found.high)]
    cells += [f"{signed(iqm.value)} ({interval(iqm.low, iqm.high)})"]
    return [*cells, (row.verdict or "no verdict") + (" (sign flip)" if row.sign_flip else "")]


def _returns(found: Findings, figures: Sequence[str]) -> str:
    study = found.study
    by_cell = {(row.arm, row.red): row for row in found.returns}
    names = [*study.arms, *study.baselines]

    def matrix(show: Callable[[ReturnRow], str]) -> str:
        cells = [[by_cell.get((arm, red)) for red in study.views] for arm in names]
        shown = [
            [arm, *[show(row) if row else "missing" for row in rows]] for arm, rows in zip(names, cells, strict=True)
        ]
        return table(["arm", *study.views], shown)

    lines = ["## Returns", "Mean return per episode ± stderr over seeds; of sleep and random over episodes."]
    lines.append(matrix(lambda row: plus_minus(row.found)))
    if "sleep" in study.baselines:
        lines += ["Above the sleep floor:", matrix(lambda row: signed(row.above_sleep))]
    red, columns = study.views[-1], (*PARTS, "red_sessions", "root_hosts")
    parts = [[arm, *[_mean_of(study, arm, red, column) for column in columns]] for arm in names]
    lines.append(f"By part of the return, and red's hold, against `{red}`, mean over seeds (every cell: `cells.csv`):")
    lines.append(table(["arm", "LWF", "ASF", "RIA", "action cost", "red sessions", "root hosts"], parts))
    caption = "Return by part: green work failed (LWF), access failed (ASF), impact (RIA), cost of Restore"
    return "\n\n".join(lines + picture("parts", caption, figures))


def _mean_of(study: Study, arm: str, red: str, column: str) -> str:
    values = list(study.per_seed(arm, red, column).values())
    return f"{np.mean(values):.{0 if column in PARTS else 1}f}" if values else "missing"


def _ablation(found: Findings) -> str:
    study = found.study
    by_name = {row.name: row for row in found.effects}
    names = [*AXES, SUM_OF_AXES, COCKTAIL, f"{COCKTAIL} - {SUM_OF_AXES}"]
    names += [SUM_WITHOUT_TOPO, NO_TOPO, f"{NO_TOPO} - {SUM_WITHOUT_TOPO}"]
    rows = [_effect(study, by_name[name]) for name in names if name in by_name]
    absent = [name for name in (*AXES, COCKTAIL, NO_TOPO) if name not in by_name]
    lines = [
        "## Ablation",
        f"Delta to {study.control} of one bank at a time, their sum seed by seed, and what the cocktail has beyond the "
        "sum (0 if the banks' effects add up).",
    ]
    if absent:
        lines.append(f"Without a delta: {', '.join(absent)}; sums that need them are not formed.")
    if rows:
        header = ["arm", *study.views, f"95 % t-interval, {study.views[-1]}", "its seeds", "cells positive"]
        lines.append(table(header, rows))
    return "\n\n".join(lines)


def _effect(study: Study, row: EffectRow) -> list[str]:
    found = [estimate(values_of(row.per_seed[red])) if red in row.per_seed else None for red in study.views]
    positive, total = row.cells(study.study_reds)
    last = [interval(found[-1].low, found[-1].high), str(found[-1].n)] if found[-1] else ["missing", "0"]
    shown = [plus_minus(each, "+") if each else "missing" for each in found]
    return [row.name, *shown, *last, f"{positive} of {total}"]


def _questions(study: Study) -> str:
    red = study.views[-1]
    header = ["control arm", "decides", "its delta", "held against", "difference (95 % t-interval)", "reads"]
    return "\n\n".join(
        [
            "## Controls and the question each decides",
            f"Deltas to {study.control} against `{red}`; the difference of the two arms is paired by seed.",
            table(header, [_question(study, question, red) for question in QUESTIONS], left=2),
            PRICE,
        ]
    )


def _question(study: Study, question: Question, red: str) -> list[str]:
    pair = effect(study, question.arm, question.against).per_seed.get(red)
    found = [study.deltas(arm, red) for arm in (question.arm, question.against)]
    own, other = [plus_minus(estimate(values_of(seeds)), "+") if seeds else "missing" for seeds in found]
    cells = [question.arm, question.decides, own, f"{question.against} {other}"]
    if not pair:
        return [*cells, "missing", "nothing"]
    gap = estimate(values_of(pair))
    reads = "no interval" if gap.n == 1 else "they differ" if gap.low > 0 or gap.high < 0 else "not separated"
    return [*cells, f"{signed(gap.mean)} ({interval(gap.low, gap.high)})", reads]


def _actions(study: Study, figures: Sequence[str]) -> str:
    red = study.reds[0]
    lines = [
        "## Actions",
        f"Per cent of all actions against `{red}`, mean over seeds; in brackets the difference to {study.control} in "
        "percentage points. Submitted counts every step of every agent, busy ones too; executed counts the actions "
        "that took effect. Every seed and red: `actions.csv`.",
    ]
    for kind, columns in (("Submitted:", SUBMITTED), ("Executed:", EXECUTED)):
        rows = [_profile(study, arm, red, columns) for arm in (*study.arms, *study.baselines)]
        lines += [kind, table(["arm", *ACTIONS], rows)]
    others = [f"[{each}](actions_{each}.png)" for each in study.reds[1:]]
    more = f" The other reds: {', '.join(others)}." if others else ""
    return "\n\n".join(lines + picture(f"actions_{red}", f"Actions against {red}", figures, more))


def _profile(study: Study, arm: str, red: str, columns: Sequence[str]) -> list[str]:
    own, control = study.shares(arm, red, columns), study.shares(study.control, red, columns)
    if not own:
        return [arm, *["missing"] * len(columns)]
    mean = np.mean(list(own.values()), axis=0)
    shared = [own[seed] - control[seed] for seed in own if seed in control]
    if arm == study.control or not shared:
        return [arm, *[f"{share:.1f}" for share in mean]]
    shift = np.mean(shared, axis=0)
    return [arm, *[f"{share:.1f} ({points:+.1f})" for share, points in zip(mean, shift, strict=True)]]


def _curves(found: Findings, figures: Sequence[str]) -> str:
    lines = ["## Curves"]
    if found.curves:
        lines.append("Training return is in each arm's own reward, multipliers included: compare shapes, not heights.")
        lines += picture("learning_curves", "Training return per episode", figures)
    else:
        lines.append("No training metrics (`metrics.csv`) in the run folders, so no learning curves.")
    if "checkpoints" in figures:
        lines.append("Checkpoints are evaluated in the canonical game and comparable between arms.")
        lines += picture("checkpoints", "Evaluated return over training, ± stderr over seeds", figures)
    else:
        lines.append("One checkpoint per run was evaluated, so there is no curve over them (`--checkpoints all`).")
    return "\n\n".join(lines)


def _published(found: Findings, figures: Sequence[str]) -> str:
    study = found.study
    low, high = (published_value(TEXT, "C11_3M", "all", f"paired_delta_{end}") for end in ("low", "high"))
    lines = [
        "## Beside the published numbers",
        f"Published: jaxborg pull request 20 (see `purecc4/published.md`), {ENV_STEPS} env steps, seeds "
        f"{', '.join(map(str, SEEDS))}; 90 episodes for the headline, 30 for the ablation, on other episodes. Only "
        "C11's headline deltas were published by seed and so have an interval; elsewhere the table says whether the "
        "published number lies in our 95 % t-interval. At 3M env steps the study's C11 had deltas of "
        f"+{low} to +{high}: REFUTED.",
    ]
    if study.control != "C00":
        lines.append(f"The published deltas are to C00, not to {study.control}, and are left out.")
    shown = [_beside(row) for row in found.compared if row.source != SHARES]
    header = ["arm", "red", "quantity", "published", "its interval", "here", "our interval", "difference", "intervals"]
    lines.append(table(header, shown, left=3) if shown else "Nothing in this report was published.")
    lines += picture("published", "Published paired deltas and ours", figures)
    printed = [arm for arm in study.arms if published_actions(arm) and study.shares(arm, "fsm")]
    if printed:
        lines.append("Submitted actions against `fsm`, per cent: published (seed 42) / here (mean over seeds).")
        lines.append(table(["arm", *ACTIONS], [_printed(study, arm) for arm in printed]))
    return "\n\n".join(lines)


def _beside(row: SideBySide) -> list[str]:
    theirs = [signed(row.published), interval(row.published_low, row.published_high)]
    ours = [signed(row.ours), interval(row.ours_low, row.ours_high)]
    quantity = f"{row.quantity}, {SOURCES[row.source]}"
    return [row.arm, row.red, quantity, *theirs, *ours, signed(row.difference), row.reading]


def _printed(study: Study, arm: str) -> list[str]:
    printed, ours = published_actions(arm), np.mean(list(study.shares(arm, "fsm").values()), axis=0)
    return [arm, *[f"{printed.get(name, 'n/a')} / {share:.1f}" for name, share in zip(ACTIONS, ours, strict=True)]]
