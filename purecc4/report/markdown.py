"""The Markdown page of a report: its tables with their interpretation and limits."""

import html
import re
from collections.abc import Callable, Collection, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats
from tabulate import tabulate

from purecc4.play.tables import ACTIONS, EXECUTED, OVERFLOW, OWN_ZONES, STUDY_REDS, SUBMITTED
from purecc4.report.findings import Findings, action_file
from purecc4.report.logit_bias import best_biases, bias_file
from purecc4.report.published import ENV_STEPS, SEEDS, SHARES, SOURCES, TEXT, published_actions, published_value
from purecc4.report.statistics import CONFIRM_MEAN, CONFIRMED, REFUTE_MEAN, estimate
from purecc4.report.study import (
    AXES,
    COCKTAIL,
    DESIGNS,
    MEAN,
    NO_TOPO,
    QUESTIONS,
    SUM_OF_AXES,
    SUM_WITHOUT_TOPO,
    Design,
    Question,
    Study,
)
from purecc4.train.progress import counted
from purecc4.train.run_reader import REWARD_TERMS

PRICE = """The policy does not observe the mission multipliers, and they do not change the cost of Restore. A mission
bank with mean (2, 2, 2) therefore halves the price of Restore on average. C11, C11prime and miss share that objective.
Only arms that fix the price or the variation can separate the two. "Not separated" does not prove equality: it means
that these seeds cannot distinguish the two arms."""

AT_BEST = "both at best bias"  # column of the table of gaps

ORACLE = """

`oracle` reads the simulator's state but only restores. It is not an upper bound: the winners of the challenge score
-113 in CybORG with rules on the raw observation."""

READING = f"""## How to read this

* Verdict, in the order of the study's code: mean >= {CONFIRM_MEAN:.0f} and mean - stderr > 0 is CONFIRMED; otherwise
  mean <= {REFUTE_MEAN:.0f} or a sign flip is REFUTED; anything else is INCONCLUSIVE. A sign flip (deltas of both signs)
  does not prevent CONFIRMED and is shown with it. A single seed gets no verdict.
* stderr: sample standard deviation over seeds / sqrt(seeds). The t-bounds account for the small number of seeds.
* IQM: interquartile mean over seeds and reds, with a quarter trimmed from each end (nothing below four values). Its
  interval is a bootstrap over seeds, stratified by red, with all reds of a seed resampled jointly: 10,000 resamples,
  95 % percentiles. With few seeds it is too narrow.
* Every interval is for one cell, without correction for the number of cells."""


def text(found: Findings, runs: Sequence[Path], figures: Collection[str]) -> str:
    """Write the page. `figures` are the names of the drawn figures."""
    sections = [
        _head(found, runs),
        _verdicts(found, figures),
        _returns(found, figures),
        _modes(found),
        *([_ablation(found), _questions(found.study)] if found.study.replicates else []),
        *_factors(found),
        _actions(found.study, figures),
        *_biases(found, figures),
        _curves(found, figures),
        *([_published(found, figures)] if found.study.replicates else []),
        READING,
    ]
    head, *rest = sections
    return "\n\n".join([head, _contents(rest), *rest]) + "\n"


def _contents(sections: Sequence[str]) -> str:
    titles = [section.partition("\n")[0].removeprefix("## ") for section in sections]
    anchors = [re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles]
    return "\n".join(f"* [{title}](#{anchor})" for title, anchor in zip(titles, anchors, strict=True))


def folded(summary: str, *parts: str) -> str:
    """Hide details behind a line to click on."""
    return "\n\n".join([f"<details><summary>{summary}</summary>", *parts, "</details>"])


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Format a Markdown table of escaped cells. The first `left` columns are left-aligned, the others right-aligned."""
    sides = ["left"] * left + ["right"] * (len(header) - left)
    cells = [list(map(escape, row)) for row in rows]
    return tabulate(cells, list(map(escape, header)), "pipe", colalign=sides, disable_numparse=True)


def matrix(
    frame: pd.DataFrame, names: Sequence[str], columns: Sequence[str], show: Callable[[Any], str], of: str = "arm"
) -> str:
    """Format a table with a row per arm (or per value of column `of`) and a column per red. `show` formats a cell."""
    cells = {(getattr(row, of), row.red): show(row) for row in frame.itertuples()}
    rows = [[name, *(cells.get((name, column), "missing") for column in columns)] for name in names]
    return table([of, *columns], rows)


def escape(name: str) -> str:
    """Escape a name for Markdown: no HTML, link, code, emphasis or new column."""
    return re.sub(
        r"[\\`*~|\[\]]", lambda found: f"&#{ord(found[0])};", html.escape(" ".join(name.split()), quote=False)
    )


def code(name: str) -> str:
    """Format a name as inline code."""
    return "`" + " ".join(name.replace("`", "'").split()) + "`"


def picture(name: str, caption: str, figures: Collection[str], more: str = "") -> list[str]:
    """Format a figure with its caption; empty if it was not drawn."""
    return [f"![{caption}]({name}.png)", f"*{caption}.* [SVG]({name}.svg){more}"] if name in figures else []


def signed(value: float, digits: int = 0) -> str:
    return "n/a" if isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def digits(stderr: float) -> int:
    """Decimals of a value that is known to `stderr`."""
    return int(stderr < 10)


def interval(low: float, high: float) -> str:
    """Format the ends of a 95 % interval."""
    places = _interval_digits(low, high)
    return "n/a" if isnan(low) else f"{signed(low, places)} .. {signed(high, places)}"


def within(value: float, low: float, high: float) -> str:
    """Format a value with its 95 % interval."""
    return f"{signed(value, _interval_digits(low, high))} ({interval(low, high)})"


def _interval_digits(low: float, high: float) -> int:
    return digits((high - low) / 4)  # four standard errors in many samples


def plus_minus(found: Any, sign: str = "") -> str:
    """Format mean ± stderr of an Estimate, or of a table row with its fields."""
    places = digits(found.stderr)
    return f"{found.mean:{sign}.{places}f}" + ("" if isnan(found.stderr) else f" ± {found.stderr:.{places}f}")


def _head(found: Findings, runs: Sequence[Path]) -> str:
    study = found.study
    protocol = ", ".join(f"{key} {value}" for key, value in found.evaluation.settings.items())
    missing = _missing(study)
    lines = [
        "# Report on " + ", ".join(escape(run.resolve().name) for run in runs),
        f"{counted(len(study.seeds), 'seed')} ({', '.join(map(str, study.seeds))}), {counted(len(study.arms), 'arm')} "
        f"({', '.join(map(escape, study.arms))}), compared after {study.env_steps} env steps of training, actions "
        f"{study.mode}. Evaluation protocol: {protocol}; every arm, seed and red uses the same episode keys.",
        _caution(len(study.seeds)),
        "Missing:\n\n" + "\n".join(f"* {escape(cell)}" for cell in missing) if missing else "Missing: nothing.",
    ]
    episodes = found.evaluation.rows
    if overflowed := int((episodes[OVERFLOW] != 0).sum()):
        lines.append(f"{overflowed} of {len(episodes)} episodes overflowed a simulator table. They count as they are.")
    if study.replicates and study.env_steps < ENV_STEPS:
        share = 100 * study.env_steps / ENV_STEPS
        lines.insert(
            3,
            f"**{share:.0f} % of the published training:** the study trained each run for {ENV_STEPS} env steps, so "
            "the verdicts below neither confirm nor refute its claims.",
        )
    return "\n\n".join(lines)


def _missing(study: Study) -> list[str]:
    cells = study.missing()
    if not study.has_control:
        cells.append(f"the control {study.control}, so there are no paired deltas and no verdicts")
    if "sleep" not in study.scripts:
        cells.append("sleep, so there is no floor for comparison")
    absent = [red for red in STUDY_REDS if red not in study.reds] if study.replicates else []
    return cells + [f"every arm against {red}, a red of the study" for red in absent]


def _caution(seeds: int) -> str:
    if seeds == 1:
        return "**One seed:** no standard errors over seeds, no intervals, no verdicts."
    reach, level = stats.t.ppf(0.975, seeds - 1), 100 * stats.t.cdf(1, seeds - 1)
    return (
        f"**{seeds} seeds:** a 95 % t-interval extends {reach:.1f} standard errors to either side, and the rule's "
        f'"mean - stderr > 0" is only a one-sided {level:.0f} % bound.'
    )


def _verdicts(found: Findings, figures: Collection[str]) -> str:
    study, rows, control = found.study, found.of("deltas"), escape(found.study.control)
    if rows.empty:
        return f"## Verdicts\n\nNone: no arm shares a seed and a red with the control {control}."
    confirmed = rows[(rows["verdict"] == CONFIRMED) & (rows["red"] != MEAN)]
    doubtful = int((confirmed["low"] <= 0).sum())
    columns = ["arm", "red", "delta by seed", "mean ± stderr", "95 % t-interval", "IQM (95 % bootstrap)", "verdict"]
    by_seed = rows.filter(like="seed_").to_numpy().tolist()
    lines = [
        "## Verdicts",
        f"Paired delta of each arm to {control} by training seed."
        + " All arms were trained against `fsm`; the other reds were unseen in training." * study.replicates,
        matrix(rows, list(rows["arm"].unique()), study.views, _judged),
        f"{counted(len(confirmed), 'CONFIRMED cell')}, of which {doubtful} with a 95 % t-interval that includes 0.",
        folded(
            "Deltas by seed and intervals (more in <code>deltas.csv</code>)",
            table(columns, [_delta(*row) for row in zip(rows.itertuples(), by_seed, strict=True)], left=2),
        ),
        f"Deltas by seed are in the order of the seeds that arm and control share. `{MEAN}` is a seed's mean over "
        f"{', '.join(study.study_reds)}. The rule was pre-registered for single reds; its verdict on `{MEAN}` is in "
        "brackets.",
    ]
    unpaired = found.of("unpaired")
    if len(unpaired):
        lines.append(
            f"Difference to {control} with its 95 % Welch interval over runs, which does not take runs of equal seeds "
            "for pairs:"
        )
        lines.append(matrix(unpaired, list(unpaired["arm"].unique()), study.views, _gap_between_arms))
    caption = f"Paired deltas to {control}; an arrowhead marks an interval that extends beyond the axis"
    return "\n\n".join(lines + picture("forest", caption, figures))


def _verdict(row: Any, value: str = "") -> str:
    """Format the verdict (in brackets for the mean over reds), a value, and a sign flip."""
    decided = f"({row.verdict})" if row.red == MEAN else row.verdict
    return decided + value + (" (sign flip)" if row.sign_flip else "")


def _judged(row: Any) -> str:
    return _verdict(row, f" {plus_minus(row, '+')}")


def _gap_between_arms(row: Any) -> str:
    return within(row.gap, row.low, row.high)


def _delta(row: Any, by_seed: Sequence[float]) -> list[str]:
    shown = " / ".join(signed(value, digits(row.stderr)) for value in by_seed if not isnan(value))
    cells = [row.arm, row.red, shown, plus_minus(row, "+"), interval(row.low, row.high)]
    return [*cells, within(row.iqm, row.iqm_low, row.iqm_high), _verdict(row)]


def _returns(found: Findings, figures: Collection[str]) -> str:
    study, rows, baselines = found.study, found.of("returns"), found.of("baselines")
    names = [*study.arms, *study.scripts]
    lines = ["## Returns", "Mean return per episode ± stderr over seeds (scripted policies: over episodes)."]
    lines.append(matrix(rows, names, study.views, plus_minus))
    if "sleep" in study.scripts:
        lines += ["Above the sleep floor:", matrix(rows, names, study.views, lambda row: signed(row.above_sleep))]
    red = study.views[-1]
    if study.scripts:
        gaps = baselines[baselines["red"] == red]
        gaps = gaps.assign(red=gaps["script"])
        scripts = [script for script in study.scripts if script in set(gaps["script"])]
        lines.append(
            f"Gap to the baselines: return minus that of each scripted policy against {code(red)}, ± stderr over "
            f"seeds (every red: `baselines.csv`).{ORACLE if 'oracle' in scripts else ''}"
        )
        lines.append(matrix(gaps, study.arms, scripts, lambda row: plus_minus(row, "+")))
    own = [OWN_ZONES] * (OWN_ZONES in study.means)
    columns = [*own, *REWARD_TERMS, "red_sessions", "root_hosts"]
    parts = [[arm, *_means(study, arm, red, columns)] for arm in names]
    lines.append(
        f"Return by reward term, and red's final presence, against {code(red)}, mean over seeds (every cell: "
        f"`cells.csv`){'; own zones leave out the contractor network' * len(own)}:"
    )
    header = ["arm", *["own zones"] * len(own), "LWF", "ASF", "RIA", "action cost", "red sessions", "root hosts"]
    lines.append(table(header, parts))
    caption = "Return by term: local work failed (LWF), access service failed (ASF), red impact (RIA), cost of Restore"
    return "\n\n".join(lines + picture("parts", caption, figures))


def _means(study: Study, arm: str, red: str, columns: Sequence[str]) -> list[str]:
    means = study.rows(arm, red)[list(columns)].mean()
    whole = (OWN_ZONES, *REWARD_TERMS)
    return ["missing" if isnan(x) else f"{x:.{0 if name in whole else 1}f}" for name, x in means.items()]


def _modes(found: Findings) -> str:
    rows = found.tables["modes"]
    if rows.empty:
        return f"## Sampled and greedy\n\nOnly {found.study.mode} actions were evaluated at this checkpoint."
    greedy = found.tables["deltas"].query("mode == 'greedy'")
    lines = [
        "## Sampled and greedy",
        f"The rest of this page is for {found.study.mode} actions. Greedy takes the likeliest action of the same "
        "networks in the same episodes. Greedy minus sampled return, paired by seed:",
        matrix(rows, found.study.arms, found.study.views, lambda row: plus_minus(row, "+")),
        "Greedy return:",
        matrix(rows, found.study.arms, found.study.views, lambda row: f"{row.greedy:.0f}"),
    ]
    if len(greedy):
        lines.append(f"Paired delta to {escape(found.study.control)}, both greedy:")
        lines.append(matrix(greedy, list(greedy["arm"].unique()), found.study.views, _judged))
    return "\n\n".join(lines)


def _ablation(found: Findings) -> str:
    study, by_seed = found.study, found.effects
    names = [*AXES, SUM_OF_AXES, COCKTAIL, f"{COCKTAIL} - {SUM_OF_AXES}"]
    names += [SUM_WITHOUT_TOPO, NO_TOPO, f"{NO_TOPO} - {SUM_WITHOUT_TOPO}"]
    known = set(by_seed.index.get_level_values(0)) if len(by_seed) else set()
    rows = [_effect(study, name, by_seed.loc[name]) for name in names if name in known]
    absent = [name for name in (*AXES, COCKTAIL, NO_TOPO) if name not in known]
    lines = [
        "## Ablation",
        f"Delta to {escape(study.control)} of one bank at a time, their sum by seed, and the excess of the cocktail "
        "over the sum (0 if the effects of the banks are additive).",
    ]
    if absent:
        lines.append(f"No delta for {', '.join(absent)}; sums that need them are omitted.")
    if rows:
        lines.append(table(["arm", *study.views[:-1], f"{study.views[-1]} (95 % t-interval)"], rows))
        positive = [f"{escape(name)} {_positive(study, by_seed.loc[name])}" for name in names if name in known]
        lines.append(f"Positive cells of seeds and reds of the study: {', '.join(positive)}.")
    return "\n\n".join(lines)


def _effect(study: Study, name: str, by_seed: pd.DataFrame) -> list[str]:
    found = {red: estimate(seeds.dropna()) for red, seeds in by_seed.iterrows()}
    shown = [plus_minus(found[red], "+") if red in found else "missing" for red in study.views]
    if last := found.get(study.views[-1]):
        shown[-1] += f" ({interval(last.low, last.high)})"
    return [name, *shown]


def _positive(study: Study, by_seed: pd.DataFrame) -> str:
    cells = by_seed[by_seed.index.isin(study.study_reds)]
    return f"{(cells > 0).sum().sum()} of {cells.count().sum()}"


def _questions(study: Study) -> str:
    red = study.views[-1]
    header = ["control arm", "question", "delta", "compared with", "difference (95 % t-interval)", "conclusion"]
    return "\n\n".join(
        [
            "## Control arms",
            f"Deltas to {escape(study.control)} against {code(red)}. The difference of the two arms is paired by seed.",
            table(header, [_question(study, question, red) for question in QUESTIONS], left=2),
            PRICE,
        ]
    )


def _question(study: Study, question: Question, red: str) -> list[str]:
    deltas = [study.deltas(arm, red) for arm in (question.arm, question.against)]
    own, other = [plus_minus(estimate(seeds), "+") if len(seeds) else "missing" for seeds in deltas]
    cells = [question.arm, question.decides, own, f"{question.against} {other}"]
    pair = study.deltas(question.arm, red, question.against)
    if pair.empty:
        return [*cells, "missing", "none"]
    gap = estimate(pair)
    conclusion = "no interval" if gap.n == 1 else "they differ" if gap.low > 0 or gap.high < 0 else "not separated"
    return [*cells, within(gap.mean, gap.low, gap.high), conclusion]


def _factors(found: Findings) -> list[str]:
    rows = found.of("factors")
    of = {title: of_design for title, of_design in rows.groupby("design")}
    return [_effects_of_factors(design, of[design.title], found.study) for design in DESIGNS if design.title in of]


def _effects_of_factors(design: Design, rows: pd.DataFrame, study: Study) -> str:
    arms = ", ".join(code(arm) for arm in design.arms if arm in study.arms)
    lines = [
        f"## {design.title}",
        f"The arms {arms} {design.about}. Effect of each factor on the return, by least squares over all "
        f"{int(rows['n'].max())} runs with 95 % t-interval. Runs count as independent (two trainings with one seed "
        "share little more than their episodes):",
        matrix(rows, design.factors, study.views, _effect_of_factor, of="factor"),
        "It assumes additive effects and equal variance in all arms."
        + " The study did not plan it." * study.replicates,
    ]
    return "\n\n".join(lines)


def _effect_of_factor(row: Any) -> str:
    return f"{plus_minus(row, '+')} ({interval(row.low, row.high)})"


def _actions(study: Study, figures: Collection[str]) -> str:
    red = study.reds[0]
    lines = [
        "## Actions",
        f"Per cent of all actions against {code(red)}, mean over seeds. Differences to {escape(study.control)} in "
        "percentage points are in brackets. Submitted counts every step of every agent, busy ones included. Executed "
        "counts completed actions. Every seed and red: `actions.csv`.",
    ]
    for kind, columns in (("Submitted", SUBMITTED), ("Executed", EXECUTED)):
        rows = [_profile(study, arm, red, columns) for arm in (*study.arms, *study.scripts)]
        lines.append(folded(kind, table(["arm", *ACTIONS], rows)))
    others = [f"[{escape(each)}]({action_file(each)}.png)" for each in study.reds[1:]]
    more = f" Other reds: {', '.join(others)}." if others else ""
    return "\n\n".join(lines + picture(action_file(red), f"Actions against {escape(red)}", figures, more))


def _profile(study: Study, arm: str, red: str, columns: Sequence[str]) -> list[str]:
    own = study.shares(arm, red, columns)
    gap = (own - study.shares(study.control, red, columns)).dropna().mean()
    if own.empty:
        return [arm, *["missing"] * len(columns)]
    if arm == study.control or gap.isna().all():
        return [arm, *[f"{share:.1f}" for share in own.mean()]]
    return [arm, *[f"{share:.1f} ({points:+.1f})" for share, points in zip(own.mean(), gap, strict=True)]]


def _biases(found: Findings, figures: Collection[str]) -> list[str]:
    """A section per action type that `purecc4 nudge` added a logit bias to."""
    return [_biased(found, kind, figures) for kind in found.tables["logit_bias"]["kind"].unique()]


def _biased(found: Findings, kind: str, figures: Collection[str]) -> str:
    study, red = found.study, found.study.views[-1]
    here = "kind == @kind and red == @red"
    rows, gaps = found.tables["logit_bias"].query(here), found.tables["gaps"].query(here)
    by_bias = rows.assign(red=rows["by"].map("{:+g}".format))
    names, biases = list(rows["arm"].unique()), list(by_bias.sort_values("by")["red"].unique())
    lines = [
        f"## Logit bias on {kind}",
        f"`purecc4 nudge` adds a constant to the {kind} logits of the trained networks. Return against {code(red)} ± "
        f"stderr over seeds by bias, with the share of {kind} in all submitted actions in per cent in brackets:",
        matrix(by_bias, names, biases, lambda row: f"{plus_minus(row)} ({row.share:.1f})"),
    ]
    if len(gaps):
        lines.append(
            f"Gap of each arm as trained to {escape(study.control)} at each bias, paired by seed. It shows how much of "
            f"the gap remains at a similar frequency of {kind}. In the last column both arms have the bias with their "
            "best mean, selected on these same episodes (every red and pair: `gaps.csv`):"
        )
        lines.append(_gaps(gaps, best_biases(rows), study.control))
    caption = f"Return against the share of {kind} at each logit bias, ± stderr over seeds"
    return "\n\n".join(lines + picture(bias_file(kind), caption, figures))


def _gaps(gaps: pd.DataFrame, best: pd.Series, control: str) -> str:
    trained = gaps[gaps["by"] == 0]
    trained = trained.assign(red=[f"minus {control} {by:+g}" for by in trained["control_by"]])
    at_best = gaps[(gaps["by"] == gaps["arm"].map(best)) & (gaps["control_by"] == best[control])]
    at_best = at_best.assign(red=AT_BEST)
    shown = pd.concat([trained, at_best])
    return matrix(shown, list(gaps["arm"].unique()), list(shown["red"].unique()), _gap)


def _gap(row: Any) -> str:
    biases = f" ({row.by:+g}, {row.control_by:+g})" if row.red == AT_BEST else ""
    return plus_minus(row, "+") + biases


def _curves(found: Findings, figures: Collection[str]) -> str:
    lines = ["## Curves"]
    if found.curves:
        lines.append("Each arm is trained on its own reward, multipliers included: compare shapes, not levels.")
        lines += picture("learning_curves", "Training return per episode", figures)
    else:
        lines.append("No training metrics (`metrics.csv`) in the run folders, so no learning curves.")
    if "checkpoints" in figures:
        lines.append("Checkpoints are evaluated in the canonical game, so arms are comparable (`checkpoints.csv`).")
        lines += picture("checkpoints", "Evaluated return over training, with 95 % t-intervals over seeds", figures)
        lines += picture("checkpoints_by_red", "The same by red, ± stderr over seeds", figures)
    else:
        lines.append("Only one checkpoint per run was evaluated, so there is no evaluation curve (`--env-steps all`).")
    return "\n\n".join(lines + _middle(found))


def _middle(found: Findings) -> list[str]:
    """The best checkpoint of each arm against its last one, a line per arm."""
    red = found.study.views[-1]
    rows = found.of("middle").query("red == @red")
    if rows.empty:
        return []
    header = ["arm", "checkpoints", "best at", "last at", "best - last", "95 % t-interval", "earlier is better"]
    shown = [
        [
            row.arm,
            str(row.checkpoints),
            f"{row.best:,}",
            f"{row.last:,}",
            plus_minus(row, "+"),
            interval(row.low, row.high),
            row.answer,
        ]
        for row in rows.itertuples()
    ]
    return [
        f"Gap between the best evaluated checkpoint of each arm and its last one against {code(red)}, paired by seed "
        "(every red: `middle.csv`). The best was selected on these same episodes, so the gap is biased upwards.",
        table(header, shown),
    ]


def _published(found: Findings, figures: Collection[str]) -> str:
    study, compared = found.study, found.tables["published"]
    low, high = (published_value(TEXT, "C11_3M", "all", f"paired_delta_{end}") for end in ("low", "high"))
    lines = [
        "## Comparison with the published numbers",
        f"Published: jaxborg pull request 20 (see `purecc4/report/published.md`), {ENV_STEPS} env steps, seeds "
        f"{', '.join(map(str, SEEDS))}; 90 episodes for the headline and 30 for the ablation, different from ours. "
        "Only C11's headline deltas were published by seed, so only they have an interval. For all others, the table "
        "tells if the published number is inside our 95 % t-interval. After 3M env steps the study's C11 had deltas of "
        f"+{low} to +{high}: REFUTED.",
    ]
    if study.control != "C00":
        lines.append(f"The published deltas are to C00, not to {escape(study.control)}, and are omitted.")
    shown = [_comparison(row) for row in compared[compared["source"] != SHARES].itertuples()]
    header = ["arm", "red", "quantity", "published", "ours", "difference", "intervals"]
    lines.append(table(header, shown, left=3) if shown else "None of these numbers were published.")
    lines += picture("published", "Published paired deltas and ours", figures)
    printed = [arm for arm in study.arms if published_actions(arm) and len(study.rows(arm, "fsm"))]
    if printed:
        about = "Submitted actions against <code>fsm</code> in per cent: published (seed 42) / ours (mean over seeds)"
        lines.append(folded(about, table(["arm", *ACTIONS], [_printed(study, arm) for arm in printed])))
    return "\n\n".join(lines)


def _comparison(row: Any) -> list[str]:
    quantity = f"{row.quantity}, {SOURCES[row.source]}"
    theirs = within(row.published, row.published_low, row.published_high)
    ours = within(row.ours, row.ours_low, row.ours_high)
    return [row.arm, row.red, quantity, theirs, ours, signed(row.difference), row.reading]


def _printed(study: Study, arm: str) -> list[str]:
    printed, ours = published_actions(arm), study.shares(arm, "fsm").mean()
    return [arm, *[f"{printed.get(name, 'n/a')} / {share:.1f}" for name, share in ours.items()]]
