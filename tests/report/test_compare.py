"""Comparison of run folders of different algorithms: table, figure and rejected input."""

import json
import re
from pathlib import Path

import matplotlib
import pytest
from test_report import edit, make_run

from purecc4.__main__ import main
from purecc4.errors import UserError
from purecc4.play.tables import EVALUATION_CSV, EVALUATION_JSON
from purecc4.report import compare, figures
from purecc4.train.run_reader import METRICS_CSV

SEEDS = (42, 142, 242)


def make(folder: Path, algorithm: str, **changes) -> Path:
    """Write a trained and evaluated run folder with the same settings for any algorithm."""
    make_run(folder, reds=("fsm", "cia_c"), **changes)
    (folder / "config.json").write_text(json.dumps({"algorithm": algorithm, "resolved": {"num_envs": 48}}))
    return folder


@pytest.fixture
def runs(tmp_path):
    """C11 by two algorithms. The second was trained longer and has C00, too."""
    return [
        make(tmp_path / "a", "ippo", arms=("C11",), steps=(24_000, 48_000)),
        make(tmp_path / "b", "ippo_rnn", arms=("C00", "C11"), steps=(24_000, 48_000, 72_000), baselines=()),
    ]


def row(text: str, *names: str) -> list[str]:
    """Cells of the row that starts with `names`."""
    (line,) = (line for line in text.splitlines() if re.split(r"\s\s+", line)[: len(names)] == [*names])
    return re.split(r"\s\s+", line)[len(names) :]


def test_equal_env_steps(runs):
    edit(runs[0] / METRICS_CSV, lambda old: "".join(line for line in old.splitlines(True) if ",72000," not in line))
    text = compare.table(compare.read(runs))
    assert "at 48,000 env steps" in text and "by red at 48,000;" in text
    assert row(text, str(runs[0]), "ippo", "C11") == ["3", "48,000", "-4800 ± 0", "-1700 ± 12", "-1700 ± 12"]
    assert row(text, str(runs[1]), "ippo_rnn", "C11") == ["3", "72,000", "-4800 ± 0", "-1700 ± 12", "-1700 ± 12"]
    assert row(text, str(runs[1]), "ippo_rnn", "C00")[-1] == "-2000 ± 0"


def test_without_evaluation_and_with_too_few_seeds(runs):
    (runs[0] / EVALUATION_CSV).unlink()
    edit(runs[1] / EVALUATION_CSV, lambda old: "".join(x for x in old.splitlines(True) if not x.startswith("C11,42,")))
    text = compare.table(compare.read(runs))
    assert row(text, str(runs[0]), "ippo", "C11")[2:] == ["-4700 ± 0", "-", "-"]
    assert row(text, str(runs[1]), "ippo_rnn", "C11")[2:] == ["-4700 ± 0", *["-1700 ± 20 (n=2)"] * 2]
    (runs[1] / EVALUATION_CSV).unlink()
    assert "not evaluated;" in compare.table(compare.read(runs))


def test_earlier_env_steps_and_greedy(runs):
    text = compare.table(compare.read(runs), 24_000)
    assert "at 24,000 env steps" in text and "by red at 24,000;" in text
    with pytest.raises(UserError, match="at 25000 env steps, only at 24000, 48000, 72000"):
        compare.table(compare.read(runs), 25_000)
    edit(runs[1] / EVALUATION_CSV, lambda old: old.replace("sampled", "greedy"))
    assert row(compare.table(compare.read(runs)), str(runs[1]), "ippo_rnn", "C11")[2:] == ["-4700 ± 0", "-", "-"]
    assert row(compare.table(compare.read(runs, "greedy")), str(runs[0]), "ippo", "C11")[3:] == ["-", "-"]


def test_one_seed_has_no_error(tmp_path):
    text = compare.table(compare.read([make(tmp_path / "one", "mappo", arms=("C11",), seeds=(42,))]))
    assert row(text, str(tmp_path / "one"), "mappo", "C11") == ["1", "72,000", "-4700", "-1700", "-1700"]


def damaged(file: str, old: str, new: str):
    return lambda runs: edit(runs[1] / file, lambda text: text.replace(old, new))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda runs: runs.clear(), "one or more run folders"),
        (lambda runs: runs.append(runs[0]), "each once"),
        (lambda runs: runs.append(runs[0].parent), "not a run folder"),
        (lambda runs: (runs[1] / "config.json").unlink(), "b is not a run folder"),
        (damaged("config.json", "{", ""), "config.json is not valid JSON"),
        (damaged("config.json", "resolved", "meant"), "config.json"),
        (damaged(METRICS_CSV, ",return,", ",reward,"), "lacks the column return"),
        (lambda runs: edit(runs[1] / METRICS_CSV, lambda text: text.splitlines(True)[0]), "has no rows"),
        (damaged(METRICS_CSV, "000,-", "001,-"), "training return"),
        (damaged(EVALUATION_CSV, "000,", "001,"), "evaluated checkpoints"),
        (damaged(EVALUATION_JSON, '"num_steps": 500', '"num_steps": 100'), "num_steps is 500"),
        (lambda runs: (runs[1] / EVALUATION_JSON).unlink(), r"evaluation\.json.* is missing"),
        (
            lambda runs: edit(runs[1] / EVALUATION_CSV, lambda text: text.replace(",3,0,", ",3,1,", 1)),
            "1 episode ",
        ),
        (lambda runs: (runs[0] / "compare").write_text("a file"), "cannot read or write .*compare"),
    ],
)
def test_invalid_input_is_rejected(runs, monkeypatch, change, sentence):
    change(runs)
    monkeypatch.setattr("sys.argv", ["purecc4", "compare", *map(str, runs)])
    with pytest.raises(SystemExit, match=sentence) as stop:
        main()
    assert str(stop.value).startswith("purecc4 compare: ") and "\n" not in str(stop.value)


def test_command_prints_the_table_and_draws_the_curves(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["purecc4", "compare", *map(str, runs), "--to", str(tmp_path / "new" / "out")])
    main()
    printed = capsys.readouterr().out
    assert compare.table(compare.read(runs)) in printed
    assert printed.endswith(f"{tmp_path / 'new' / 'out' / 'learning_curves.png'}\n")
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == {
        "learning_curves.png",
        "learning_curves.svg",
    }


def test_curves_can_be_told_apart_without_colour(runs, monkeypatch):
    monkeypatch.chdir(runs[0].parent)
    with matplotlib.rc_context(figures.RC):
        figure = compare.learning_curves(compare.read([Path("a"), Path("b")]))
    (legend,) = figure.legends
    assert {"a (ippo)", "b (ippo_rnn)"} < {text.get_text() for text in legend.texts}
    first, second = next(axis for axis in figure.axes if axis.get_title() == "C11").lines
    assert first.get_linestyle() != second.get_linestyle() and first.get_marker() != second.get_marker()
    assert first.get_color() == second.get_color() == "0.0"
