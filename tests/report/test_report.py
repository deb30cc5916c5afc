"""Reports from synthetic tables with known answers, and the rejection of tables that cannot be pooled."""

import csv
import json
import re
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from purecc4.__main__ import main
from purecc4.errors import UserError
from purecc4.files import PART, write_csv
from purecc4.play.tables import (
    ACTIONS,
    EVALUATION_COLUMNS,
    EVALUATION_CSV,
    EVALUATION_JSON,
    LATER,
    NUDGE_COLUMNS,
    NUDGE_CSV,
    STUDY_REDS,
    VALUES,
)
from purecc4.report import figures
from purecc4.report.findings import find
from purecc4.report.markdown import text
from purecc4.report.published import SHARES
from purecc4.report.statistics import CONFIRMED, ONE_SEED
from purecc4.report.study import DESIGNS, GAME_AXES, MEAN, SUM_OF_AXES
from purecc4.train.metrics import METRICS_COLUMNS
from purecc4.train.run_reader import MAY_DIFFER, METRICS_CSV

SETTINGS = {"eval_seed": 1000, "episodes": 2, "num_steps": 500, "version": "0.1.0"}
GAIN = {
    "C00": 0.0,
    "C11": 300.0,
    "miss": 250.0,
    "cjewel": 60.0,
    "pbound": 40.0,
    "topo": -100.0,
    "fixed222": 240.0,
    "restore_half": 240.0,
    "miss_mean1": 10.0,
}
LUCK = {42: 0.0, 142: 20.0, 242: -20.0}  # added to all treatments of a seed


def rows_of(arm: str, seed: int, env_steps: int, red: str, gain: float, restores: int = 100, mode="sampled"):
    """Two episodes around -2000 + gain; Restore has `restores` of 2500 submitted actions, Analyse the rest."""
    submitted = [restores if name == "restore" else 2500 - restores if name == "analyse" else 0 for name in ACTIONS]
    executed = [count // 5 for count in submitted]
    rows = []
    for episode, noise in enumerate((-30.0, 30.0)):
        value = -2000.0 + gain + noise
        parts = [0.5 * value, 0.2 * value, 0.2 * value, 0.1 * value]
        later = [0.75 * value, 0.9, 12, 20, 30, 2, 5, 1, 1]
        rows.append([arm, seed, env_steps, red, episode, mode, value, *parts, *submitted, *executed, 9, 3, 0, *later])
    return rows


def make_run(
    folder: Path, arms=("C00", "C11"), seeds=(42, 142, 242), reds=STUDY_REDS, steps=(480_000,), **changes
) -> Path:
    """Write a run folder with an evaluation table. `changes`: settings, baselines (scripts), skip (cells), greedy."""
    folder.mkdir()
    (folder / EVALUATION_JSON).write_text(
        json.dumps(SETTINGS | changes.get("settings", {}) | {"about": {"run": folder.name}})
    )
    rows = []
    for arm in arms:
        for seed in seeds:
            for red in reds:
                for at in steps:
                    if (arm, seed, red) not in changes.get("skip", ()):
                        luck = LUCK.get(seed, 0.0) if arm != "C00" else 0.0
                        restores = 100 if arm == "C00" else 300
                        rows += rows_of(arm, seed, at, red, GAIN.get(arm, 0.0) + luck, restores)
                        for gain in changes.get("greedy", ()):
                            rows += rows_of(arm, seed, at, red, gain * GAIN.get(arm, 0.0) + luck, restores, "greedy")
    for arm in changes.get("baselines", ("sleep", "random")):
        for red in reds:
            rows += rows_of(arm, -1, 0, red, GAIN.get(arm, -4000.0))
    write_csv(folder / EVALUATION_CSV, EVALUATION_COLUMNS, rows)
    curve = [
        [arm, seed, at, 24_000 * at, -5000 + 100 * at, 0, 0, 0, 0] for arm in arms for seed in seeds for at in (1, 2, 3)
    ]
    write_csv(folder / METRICS_CSV, METRICS_COLUMNS, curve)
    return folder


def write_nudge(run: Path, biases=(0, 0.5, 1)) -> None:
    """Write a `nudge.csv`. A bias of 0.5 gains C00 200 points with 400 more Restores, and C11 30 points with 100."""
    rows = []
    for arm, gain, more in (("C00", 200, 400), ("C11", 30, 100)):
        for seed, red, by in product(LUCK, STUDY_REDS, biases):
            luck, best = LUCK[seed] * (arm == "C11"), gain * (2 * by - 2 * by**2) * 2
            values = dict.fromkeys(VALUES, 0) | {"return": -2000 + GAIN[arm] + luck + best}
            values |= {"submitted_restore": 100 + 2 * more * by, "submitted_analyse": 2400 - 2 * more * by}
            rows.append([arm, seed, 480_000, red, "restore", by, 30.0, *values.values()])
    write_csv(run / NUDGE_CSV, NUDGE_COLUMNS, rows)


def edit(path: Path, change) -> None:
    path.write_text(change(path.read_text()))


def page_of(*runs: Path, **options) -> str:
    """The page, without the padding of its tables."""
    return re.sub(r"  +", " ", text(find(runs, **options), runs, []))


def seeds_of(row: pd.Series) -> dict[int, float]:
    """Values by seed in a row of the table of deltas."""
    return {int(name.removeprefix("seed_")): x for name, x in row.items() if name.startswith("seed_") and x == x}


def test_deltas_and_verdicts(tmp_path):
    found = find([make_run(tmp_path / "run", arms=("C11", "C00"))])
    assert found.study.arms == ("C00", "C11") and found.study.env_steps == 480_000
    for _, row in found.tables["deltas"].iterrows():
        assert row["arm"] == "C11" and row["mode"] == "sampled"
        assert seeds_of(row) == pytest.approx({42: 300.0, 142: 320.0, 242: 280.0})
        assert row["mean"] == pytest.approx(300.0) and row["stderr"] == pytest.approx(20 / 3**0.5)
        assert row["verdict"] == CONFIRMED and not row["sign_flip"]
    assert list(found.tables["deltas"]["red"]) == [*STUDY_REDS, MEAN]
    page = page_of(tmp_path / "run")
    assert "4 CONFIRMED cells, of which 0" in page  # without the mean over reds
    assert "| C11 | fsm | +300 / +320 / +280 | +300 ± 12 | +250 .. +350 | +300 (+280 .. +320) | CONFIRMED |" in page
    assert "| C11 | mean | +300 / " in page and "| (CONFIRMED) |" in page


def test_unpaired_differences(tmp_path):
    """Runs of equal seeds share their luck here, which pairs cancel: 20 / sqrt(3) for each arm."""
    run = make_run(tmp_path / "run", arms=("C11", "miss"), reds=("fsm",))
    row = find([run], control="C11").tables["unpaired"].loc[0]
    half = stats.t.ppf(0.975, 4) * 20 * (2 / 3) ** 0.5
    assert (row.gap, row.low, row.high) == pytest.approx((-50, -50 - half, -50 + half))
    page = page_of(run, control="C11")
    assert "| miss | -50 (-95 .. -5) |" in page and "-50.0 / -50.0 / -50.0" in page


def test_arms_outside_the_study_get_no_section_on_it(tmp_path):
    page = page_of(make_run(tmp_path / "run", arms=("C00", "rates"), reds=("fsm", "fsm@phishing")))
    assert "| rates |" in page
    for words in ("## Ablation", "## Control arms", "published", "trained against `fsm`", "a red of the study"):
        assert words not in page


def test_gaps_to_the_scripted_policies(tmp_path):
    run = make_run(tmp_path / "run", baselines=("sleep", "oracle"))
    edit(run / EVALUATION_CSV, lambda old: re.sub(r"(?m)^(oracle,.*?),-(6030|5970),", r"\1,-500,", old))
    found = find([run])
    rows = found.tables["returns"].set_index(["arm", "red"])
    assert rows.loc[("C11", "fsm"), "above_sleep"] == pytest.approx(4300.0)
    for red in ("fsm", MEAN):
        assert rows.loc[("sleep", red), "n"] == 2  # episodes
        assert rows.loc[("sleep", red), "stderr"] == pytest.approx(30.0)
    baselines = found.tables["baselines"].set_index(["arm", "red", "script"])
    assert baselines.loc[("C11", MEAN, "oracle"), "mean"] == pytest.approx(-1200.0)
    assert baselines.loc[("C00", "fsm", "sleep"), "mean"] == pytest.approx(4000.0)
    page = page_of(run)
    assert re.search(r"\| arm \| sleep \| oracle \|\n.*\n\| C00 \| \+4000.0 ± 0.0 \| -1500.0 ± 0.0 \|", page)
    assert "not an upper bound" in page and "upper bound" not in page_of(make_run(tmp_path / "without"))


def test_sum_of_axes_and_controls(tmp_path):
    found = find([make_run(tmp_path / "run", arms=tuple(GAIN))])
    effects = found.effects
    assert effects.loc[(SUM_OF_AXES, "fsm")].to_dict() == pytest.approx({42: 250.0, 142: 330.0, 242: 170.0})
    beyond = effects.loc[(f"C11 - {SUM_OF_AXES}", MEAN)]
    assert beyond.to_dict() == pytest.approx({42: 50.0, 142: -10.0, 242: 110.0})
    page = page_of(tmp_path / "run")
    assert "topo 0 of 12" in page and "pbound 12 of 12" in page
    assert re.search(
        r"\| fixed222 \|.*\| \+240 ± 12 \| miss \+250 ± 12 \| -10\.0 \(-10\.0 \.\. -10\.0\) \| they differ \|", page
    )
    assert "No delta for C11_notopo;" in page


def test_modes_are_reported_separately(tmp_path):
    run = make_run(tmp_path / "run", greedy=(0.5,))
    found = find([run])
    assert found.study.mode == "sampled" and list(found.studies) == ["sampled", "greedy"]
    deltas = found.tables["deltas"].set_index(["mode", "arm", "red"])["mean"]
    assert deltas["sampled", "C11", "fsm"] == pytest.approx(300.0)
    assert deltas["greedy", "C11", "fsm"] == pytest.approx(150.0)
    modes = found.tables["modes"].set_index(["arm", "red"])
    assert modes.loc[("C11", MEAN), ["sampled", "greedy", "mean"]].tolist() == pytest.approx([-1700, -1850, -150])
    page = page_of(run)
    assert "| C11 |" + 5 * " -150.0 ± 0.0 |" in page
    assert "| C11 | INCONCLUSIVE +150 ± 12 |" in page
    assert "Only sampled actions" in page_of(make_run(tmp_path / "one"))


def test_greedy_alone_is_reported(tmp_path):
    run = make_run(tmp_path / "run")
    edit(run / EVALUATION_CSV, lambda old: re.sub("(?m)^(C.*)sampled", r"\1greedy", old))
    found = find([run])
    assert found.study.mode == "greedy" and found.study.scripts == ("sleep", "random")
    assert found.tables["returns"].query("arm == 'C11' and red == 'fsm'")["above_sleep"].item() == pytest.approx(4300)


def test_best_checkpoint_against_the_last(tmp_path):
    """C11 is better by 40, 50 and 60 at its second checkpoint; C00 is best at its last."""
    run = make_run(tmp_path / "run", steps=(24_000, 48_000, 72_000), reds=("fsm",))

    def improve(found):
        arm, seed, steps, rest, value = found.groups()
        better = {"C11": {"48000": {"42": 40, "142": 50, "242": 60}[seed]}, "C00": {"72000": 10}}[arm].get(steps, 0)
        return f"{arm},{seed},{steps},{rest},{float(value) + better:g},"

    edit(
        run / EVALUATION_CSV, lambda old: re.sub(r"(?m)^(C\d\d),(\d+),(\d+),(fsm,\d,sampled),(-[\d.]+),", improve, old)
    )
    found = find([run])
    rows = found.tables["middle"].set_index("arm")
    assert rows.loc["C11", ["best", "last", "n", "mean", "answer"]].tolist() == [48_000, 72_000, 3, 50.0, "yes"]
    assert rows.loc["C00", "answer"] == "no, the last is the best"
    low = 50 - 4.302653 * 10 / 3**0.5
    assert rows.loc["C11", "low"] == pytest.approx(low, abs=1e-3)
    assert "| C11 | 3 | 48,000 | 72,000 | +50.0 ± 5.8 | +25 .. +75 | yes |" in page_of(run)
    curve = found.tables["checkpoints"].set_index(["arm", "env_steps"])["mean"]
    assert curve["C11", 48_000] == pytest.approx(curve["C11", 24_000] + 50)


def test_action_shares(tmp_path):
    study = find([make_run(tmp_path / "run")]).study
    shares = study.shares("C11", "fsm").loc[42]
    assert shares["restore"] == pytest.approx(12.0) and shares.sum() == pytest.approx(100.0)
    assert "| C11 | 0.0 (+0.0) | 0.0 (+0.0) | 88.0 (-8.0) | 0.0 (+0.0) | 12.0 (+8.0) |" in page_of(tmp_path / "run")


def test_comparison_with_the_published_numbers(tmp_path):
    found = find([make_run(tmp_path / "run", arms=tuple(GAIN))])
    compared = found.tables["published"]
    rows = {(row.source, row.arm, row.red, row.quantity): row for row in compared.itertuples()}
    headline = rows["table_headline_90ep", "C11", "fsm", "paired delta"]
    assert (headline.published, headline.difference) == (593.0, pytest.approx(-293.0))
    assert headline.reading == "overlap"  # -2 .. +1188 against 250 .. 350
    assert rows["table_single_axis_30ep", "miss", "fsm", "paired delta"].reading == "published outside ours"
    assert rows["table_decomposition_30ep", SUM_OF_AXES, MEAN, "paired delta"].published == 347.0
    assert rows["text", "sum without topo", MEAN, "paired delta"].published == 574.0
    assert rows[SHARES, "C11", "fsm", "restore %"].difference == pytest.approx(12.0 - 12.2)
    assert ("table_per_arm_90ep", "sleep", "fsm", "mean return") in rows


def test_published_deltas_need_the_published_control(tmp_path):
    found = find([make_run(tmp_path / "run", arms=("C00", "C11", "miss"))], control="miss")
    assert found.study.treatments == ("C00", "C11")
    assert "paired delta" not in set(found.tables["published"]["quantity"])


def test_missing_cells_are_listed_and_excluded_from_pairs(tmp_path):
    run = make_run(tmp_path / "run", skip={("C11", 142, "cia_c")}, reds=("fsm", "cia_c"))
    n = find([run]).tables["deltas"].set_index("red")["n"]
    assert n.to_dict() == {"fsm": 3, "cia_c": 2, MEAN: 2}
    page = page_of(run)
    assert "* C11 seed 142 at 480000 env steps against cia_c" in page
    assert "* every arm against cia_i, a red of the study" in page


def test_page_states_the_number_of_seeds(tmp_path):
    page = page_of(make_run(tmp_path / "run", seeds=(42, 142)))
    assert "2 seeds (42, 142), 2 arms (C00, C11)" in page and "12.7 standard errors" in page
    assert page_of(make_run(tmp_path / "one", seeds=(42,), arms=("C00",))).count("1 seed (42), 1 arm (C00)") == 1
    assert "5 % of the published training" in page


def test_one_seed_gets_no_verdict(tmp_path):
    run = make_run(tmp_path / "run", seeds=(42,))
    assert set(find([run]).tables["deltas"]["verdict"]) == {ONE_SEED}
    assert "no verdicts" in page_of(run) and "nan" not in page_of(run)


def test_a_rare_overflow_is_counted_and_stated(tmp_path):
    run = make_run(tmp_path / "run", settings={"episodes": 20}, reds=("fsm",), baselines=())
    rows = [*csv.DictReader((run / EVALUATION_CSV).open())]
    rows = [row | {"episode": n, "overflow": int(n == 0)} for row in rows[::2] for n in range(20)]
    write_csv(run / EVALUATION_CSV, EVALUATION_COLUMNS, [list(row.values()) for row in rows])
    assert "6 of 120 episodes overflowed" in page_of(run)
    rows = [row | {"overflow": int(row["episode"] < 2)} for row in rows]
    write_csv(run / EVALUATION_CSV, EVALUATION_COLUMNS, [list(row.values()) for row in rows])
    with pytest.raises(UserError, match="12 episodes"):
        find([run])


def test_missing_control(tmp_path):
    run = make_run(tmp_path / "run", arms=("C11",), baselines=())
    assert find([run]).tables["deltas"].empty
    page = page_of(run)
    assert "* the control C00" in page and "* sleep" in page


def test_runs_are_pooled(tmp_path):
    runs = [make_run(tmp_path / "a", arms=("C00",)), make_run(tmp_path / "b", arms=("C11",))]
    assert page_of(*runs).replace("a, b", "ab") == page_of(make_run(tmp_path / "ab"))


def test_the_last_shared_checkpoint_is_compared(tmp_path):
    runs = [make_run(tmp_path / "a", arms=("C00",), steps=(24_000, 48_000))]
    runs += [make_run(tmp_path / "b", arms=("C11",), steps=(24_000, 48_000, 72_000))]
    assert find(runs).study.env_steps == 48_000
    assert find(runs, env_steps=24_000).study.env_steps == 24_000
    assert "C00 seed 42 at 72000 env steps against fsm" in find(runs, env_steps=72_000).study.missing()
    with pytest.raises(UserError, match="at 1 env steps, only at 24000, 48000, 72000"):
        find(runs, env_steps=1)


def test_runs_without_a_shared_checkpoint_are_rejected(tmp_path):
    runs = [make_run(tmp_path / "a", arms=("C00",), steps=(24_000,)), make_run(tmp_path / "b", arms=("C11",))]
    with pytest.raises(UserError, match="C00 seed 42 ends at 24000, C11 seed 42 at 480000"):
        find(runs)


@pytest.mark.parametrize("key", SETTINGS)
def test_different_protocols_are_rejected_by_name(tmp_path, key):
    first, second = make_run(tmp_path / "a", arms=("C00",)), make_run(tmp_path / "b", arms=("C11",))
    edit(second / EVALUATION_JSON, lambda old: json.dumps(json.loads(old) | {key: 2 * SETTINGS[key]}))
    with pytest.raises(UserError, match=re.escape(f"{key} is {SETTINGS[key]}")):
        find([first, second])


@pytest.fixture
def trained_runs(tmp_path):
    """Folders of two runs with equal settings, and a function that changes those of the second."""
    first, second = make_run(tmp_path / "a", arms=("C00",)), make_run(tmp_path / "b", arms=("C11",))

    def write(folder, algorithm="ippo", **changes):
        resolved = {name: "this" for name in MAY_DIFFER} | {"num_envs": 48} | changes
        (folder / "config.json").write_text(json.dumps({"algorithm": algorithm, "resolved": resolved}))

    write(first)
    return [first, second], partial(write, second)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"num_envs": 16}, "num_envs is 48 in the first and 16 in the second"),
        ({"algorithm": "mappo"}, "algorithm is ippo in the first and mappo in the second"),
    ],
)
def test_different_training_is_rejected_by_name(trained_runs, other, sentence):
    runs, train = trained_runs
    train(**other)
    with pytest.raises(UserError, match=sentence):
        find(runs)


def test_runs_with_different_tracking_are_pooled(trained_runs):
    runs, train = trained_runs
    assert {"track", "distributed"} < set(MAY_DIFFER)
    train(**dict.fromkeys(MAY_DIFFER, "that"))
    assert find(runs).study.arms == ("C00", "C11")


def test_the_same_policy_in_two_folders_is_rejected(tmp_path):
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    with pytest.raises(UserError, match="both hold C00 seed 42 at 480000 env steps against fsm"):
        find([first, second])


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        (EVALUATION_CSV, lambda old: old.replace("ria", "RIA", 1), "lacks the column ria"),
        (EVALUATION_CSV, lambda old: old.replace("-2030", "many", 1), "'many' for return"),
        (EVALUATION_CSV, lambda old: old.replace("C00,42", "C00,4.5", 1), "'4.5' for seed"),
        (
            EVALUATION_CSV,
            lambda old: old.replace("sampled", "sample", 1),
            "line 2 has mode sample",
        ),
        (EVALUATION_CSV, lambda old: old[:-30], "finite number"),
        (EVALUATION_CSV, lambda old: old.replace("-2030", "-2030,1", 2), "evaluation.csv is damaged"),
        (EVALUATION_CSV, lambda old: "", "evaluation.csv is damaged"),
        (EVALUATION_CSV, lambda old: old.replace("fsm,1", "fsm,0", 1), "repeats episode 0 of C00 seed 42"),
        (EVALUATION_CSV, lambda old: "\n".join(old.splitlines()[:-1]), "has 1 of 2 episodes of random against cia_a"),
        (EVALUATION_CSV, lambda old: old.splitlines()[0], "has no rows"),
        (EVALUATION_JSON, lambda old: old[:-5], "is not valid JSON"),
        (EVALUATION_JSON, lambda old: old.replace("num_steps", "steps"), "lacks num_steps"),
        (EVALUATION_JSON, lambda old: old.replace('"episodes": 2', '"episodes": "2"'), "lacks episodes (int)"),
        (METRICS_CSV, lambda old: old.replace("-4900", "nan", 1), "'nan' for return"),
        (METRICS_CSV, lambda old: old[:-10], "line 19"),
        (METRICS_CSV, lambda old: "\n".join(old.splitlines()[:-1]), "update 3 of arm C11 with seed 242"),
        (METRICS_CSV, lambda old: old.replace("C00,42,1,", "C00,42,0,"), "line 2 has update 0"),
    ],
)
def test_damaged_tables_are_rejected(tmp_path, file, change, sentence):
    run = make_run(tmp_path / "run")
    edit(run / file, change)
    with pytest.raises(UserError, match=re.escape(sentence)):
        find([run])


def test_own_zones_are_shown_if_a_table_has_them(tmp_path):
    run = make_run(tmp_path / "run")
    page = text(find([run]), [run], ())
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    assert ["arm", "own zones", "LWF"] in [line[:3] for line in lines]
    assert ["C00", "-1500", "-1000"] in [line[:3] for line in lines]
    pd.read_csv(run / EVALUATION_CSV).drop(columns=list(LATER)).to_csv(run / EVALUATION_CSV, index=False)
    assert "own zones" not in text(find([run]), [run], ())


def test_a_script_may_repeat_in_an_older_table(tmp_path):
    """Without the columns of LATER."""
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b", arms=("miss",))
    pd.read_csv(second / EVALUATION_CSV).drop(columns=list(LATER)).to_csv(second / EVALUATION_CSV, index=False)
    assert find([first, second]).study.scripts == ("sleep", "random")


def test_missing_table(tmp_path):
    with pytest.raises(UserError, match="purecc4 evaluate"):
        find([tmp_path])


def test_unknown_control(tmp_path):
    with pytest.raises(UserError, match=r"C01.* C00, C11"):
        find([make_run(tmp_path / "run")], control="C01")


def test_command_writes_page_figures_and_tables(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", reds=("fsm",), steps=(24_000, 480_000))
    monkeypatch.setattr("sys.argv", ["purecc4", "report", str(run), "--to", str(tmp_path / "out")])
    main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "report.md")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    drawn = ("forest", "parts", "actions_fsm", "learning_curves", "checkpoints", "checkpoints_by_red", "published")
    assert {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")} <= names
    tables = (
        "cells",
        "returns",
        "baselines",
        "deltas",
        "effects",
        "unpaired",
        "factors",
        "actions",
        "modes",
        "checkpoints",
        "middle",
        "logit_bias",
        "gaps",
        "published",
    )
    tables = {f"{name}.csv" for name in tables}
    assert names == tables | {"report.md"} | {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")}
    with (tmp_path / "out" / "deltas.csv").open() as file:
        first = next(csv.DictReader(file))
    assert (first["arm"], first["red"], first["verdict"], first["seed_142"]) == ("C11", "fsm", CONFIRMED, "320")
    page = (tmp_path / "out" / "report.md").read_text()
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    anchors = {"#" + title.lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\((\S+?)\)", page)) <= names | anchors and anchors


@pytest.mark.parametrize(("arguments", "sentence"), [([], "at least one run"), (["--to"], "cannot read or write")])
def test_no_run_or_no_writable_folder(tmp_path, monkeypatch, arguments, sentence):
    (tmp_path / "taken").write_text("a file")
    if arguments:
        run = make_run(tmp_path / "run", arms=("C00",), seeds=(42,), reds=("fsm",))
        arguments = [str(run), "--to", str(tmp_path / "taken" / "out")]
    monkeypatch.setattr("sys.argv", ["purecc4", "report", *arguments])
    with pytest.raises(SystemExit, match=sentence):
        main()


def test_invalid_input_leaves_the_old_report(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    (run / "report").mkdir()
    (run / "report" / "report.md").write_text("old")
    edit(run / EVALUATION_CSV, lambda old: old.replace("ria", "RIA", 1))
    monkeypatch.setattr("sys.argv", ["purecc4", "report", str(run)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert str(stop.value).startswith("purecc4 report: ") and "\n" not in str(stop.value)
    assert (run / "report" / "report.md").read_text() == "old"


def test_a_study_is_a_folder_of_run_folders(tmp_path, monkeypatch):
    """One folder per arm, one of scripted policies, a page, and the previous report."""
    monkeypatch.setattr(figures, "drawings_of", lambda found: {})
    study = tmp_path / "study"
    study.mkdir()
    (study / "README.md").write_text("about")
    for arm in ("C00", "C11"):
        make_run(study / arm, arms=(arm,), baselines=(), reds=("fsm",))
    make_run(study / "scripts", arms=(), baselines=("sleep",), reds=("fsm",))
    (study / "scripts" / METRICS_CSV).unlink()
    for _ in range(2):
        monkeypatch.setattr(
            "sys.argv", ["purecc4", "report", *map(str, study.iterdir()), "--to", str(study / "report")]
        )
        main()
        page = (study / "report" / "report.md").read_text()
        assert "2 arms (C00, C11)" in page and "Above the sleep floor" in page
    assert not list((study / "report").glob(".*")) and not list((study / "report").glob(f"*{PART}"))


def test_every_seed_is_inside_its_panel(tmp_path):
    """The panels share a y axis that scripted policies do not stretch."""
    found = find([make_run(tmp_path / "run", arms=("C00", "C11", "topo"), steps=(24_000, 480_000))])
    figure = figures.checkpoint_figure(found)
    for axis in figure.axes[:3]:
        low, high = axis.get_ylim()
        curves = [line.get_ydata() for line in axis.lines if line.get_marker() == "."]
        assert len(curves) == 3 and all(low < y < high for curve in curves for y in curve)


def test_a_script_out_of_range_is_only_in_the_legend(tmp_path, monkeypatch):
    monkeypatch.setitem(GAIN, "glance", 100.0)
    run = make_run(tmp_path / "run", steps=(24_000, 480_000), baselines=("sleep", "glance"))
    figure = figures.checkpoint_figure(find([run]))
    (legend,) = figure.legends
    handles = {text.get_text(): handle for text, handle in zip(legend.texts, legend.legend_handles, strict=True)}
    assert handles["below: sleep -6000"].get_linestyle() == "None"
    assert handles["glance -1900"].get_linestyle() == "--"
    assert any(line.get_linestyle() == "--" and set(line.get_ydata()) == {-1900} for line in figure.axes[0].lines)


def test_a_name_of_both_an_arm_and_a_script_is_rejected(tmp_path):
    with pytest.raises(UserError, match="sleep is both"):
        find([make_run(tmp_path / "run", arms=("C00", "sleep"))])


def test_gaps_at_each_logit_bias(tmp_path):
    """A bias of 0.5 on C00 leaves C11 100 of its 300 points, and a bias of 0.5 on both leaves 130."""
    run = make_run(tmp_path / "run")
    write_nudge(run)
    found = find([run])
    biases = found.tables["logit_bias"].set_index(["arm", "red", "by"])
    assert list(biases.index.unique("red")) == [*STUDY_REDS, MEAN]
    assert biases.loc[("C00", MEAN, 0.5), "mean"] == pytest.approx(-1800)
    assert biases.loc[("C00", "fsm", 0), "share"] == 4
    assert biases.loc[("C00", "fsm", 0.5), "share"] == pytest.approx(20)
    gaps = found.tables["gaps"].set_index(["arm", "red", "by", "control_by"])
    assert gaps.index.unique("arm") == ["C11"] and len(gaps) == 5 * 3 * 3
    assert gaps.loc[("C11", "fsm", 0, 0.5), "mean"] == pytest.approx(100)
    assert gaps.loc[("C11", "fsm", 0, 0.5), "stderr"] == pytest.approx(20 / 3**0.5)
    page = page_of(run)
    assert "| C00 | -2000.0 ± 0.0 (4.0) | -1800.0 ± 0.0 (20.0) | -2000.0 ± 0.0 (36.0) |" in page
    assert "| C11 | +300 ± 12 | +100 ± 12 | +300 ± 12 | +130 ± 12 (+0.5, +0.5) |" in page
    assert "logit_bias_restore" in figures.drawings_of(found)


def test_biases_of_another_checkpoint_or_without_control(tmp_path):
    run = make_run(tmp_path / "run", steps=(240_000, 480_000))
    write_nudge(run)
    assert find([run], env_steps=240_000).tables["logit_bias"].empty
    assert "Logit bias" not in page_of(run, env_steps=240_000) and "Logit bias on restore" in page_of(run)
    edit(run / NUDGE_CSV, lambda old: re.sub(r"(?m)^C00,.*\n", "", old))
    found = find([run])
    assert found.tables["gaps"].empty and set(found.tables["logit_bias"]["arm"]) == {"C11"}
    figures.draw({"logit_bias": figures.drawings_of(found)["logit_bias_restore"]})
    assert "minus C00" not in page_of(run)


def test_biases_with_overflowed_tables_are_excluded(tmp_path):
    """Their mean over the reds is excluded, too."""
    run = make_run(tmp_path / "run")
    write_nudge(run)
    edit(
        run / NUDGE_CSV,
        lambda old: re.sub(rf"(?m)^(C11,.*,cia_c,restore,1,.*),0((,0){{{len(LATER)}}})$", r"\1,1\2", old),
    )
    reds = find([run]).tables["logit_bias"].query("arm == 'C11'").groupby("by")["red"].agg(list)
    assert reds[1] == ["fsm", "cia_i", "cia_a"] and reds[0] == [*STUDY_REDS, MEAN]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda old: old.replace(",restore,", ",resort,"), "kind resort"),
        (
            lambda old: re.sub(r"(?m)^(C11,42,.*,restore,0,30),-1700", r"\1,-1769", old),
            "different episodes",
        ),
        (lambda old: old.replace("return_error", "error"), "lacks the column return_error"),
    ],
)
def test_a_damaged_table_of_biases_is_rejected(tmp_path, change, says):
    run = make_run(tmp_path / "run")
    write_nudge(run)
    edit(run / NUDGE_CSV, change)
    with pytest.raises(UserError, match=says):
        find([run])


def test_price_and_variation_are_separated(tmp_path):
    """Half the price gains 240 points and variation 10, against every red; C00 lacks the luck of the other runs."""
    arms = ("C00", "miss_mean1", "fixed222", "restore_half", "miss")
    run = make_run(tmp_path / "run", arms=arms)
    factors = find([run]).of("factors").set_index(["factor", "red"])
    assert len(factors) == 2 * 5 and set(factors["n"]) == {15}
    assert factors.loc[("Restore at half its price", "fsm"), "mean"] == pytest.approx(240)
    assert factors.loc[("mission weights that vary", MEAN), "mean"] == pytest.approx(10)
    page = page_of(run)
    assert "over all 15 runs" in page and "| mission weights that vary | +10.0 ± " in page


def test_price_and_variation_need_all_four_combinations(tmp_path):
    run = make_run(tmp_path / "run", arms=("C00", "fixed222", "restore_half", "miss"))
    assert find([run]).tables["factors"].empty and "Price or variation" not in page_of(run)


def test_effects_of_the_axes_of_the_game(tmp_path, monkeypatch):
    """An axis gains as many points as its place in the list, in every arm that has it."""
    gains = {arm: sum(n * has for n, has in enumerate(axes)) for arm, axes in DESIGNS[1].arms.items()}
    for arm, gain in gains.items():
        monkeypatch.setitem(GAIN, arm, gain)
    run = make_run(tmp_path / "run", arms=tuple(gains), reds=("fsm@phishing",))
    factors = find([run]).of("factors").set_index("factor")
    assert factors["mean"].to_dict() == pytest.approx({axis: n for n, axis in enumerate(GAME_AXES)})
    assert set(factors["n"]) == {len(gains) * 3}
    assert "## Axes of the game" in page_of(run)
