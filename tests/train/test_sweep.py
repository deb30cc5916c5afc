"""Hyperparameters as an axis: variants and their names, refusals, a run alone against its slice, resuming."""

import dataclasses
import json
from functools import partial

import probe
import pytest

from purecc4.algos import ippo
from purecc4.errors import UserError
from purecc4.play import selection
from purecc4.report import compare
from purecc4.train import checkpoint, command_line, run_reader, track

SWEEP = {"learning_rate": (2e-3, 1e-2), "gamma": (0.5, 0.9)}
LABELS = [
    f"{arm} learning_rate={rate} gamma={gamma}"
    for arm in ("plain", "bonus")
    for rate in ("0.002", "0.01")
    for gamma in ("0.5", "0.9")
]


def test_every_arm_has_every_combination():
    config = dataclasses.replace(probe.CONFIG, **SWEEP)
    assert [variant.label for variant in config.variants] == LABELS
    assert config.runs[:3] == [(LABELS[0], 7), (LABELS[0], 8), (LABELS[1], 7)]
    assert config.variants[1].tunables == config.variants[0].tunables | {"gamma": 0.9}
    assert config.variants[5].about == {"arm": "bonus", "learning_rate": 2e-3, "gamma": 0.9}
    config.check()


def test_pairs():
    config = dataclasses.replace(probe.CONFIG, arm=("plain",), **SWEEP, zip=True)
    assert [variant.label for variant in config.variants] == [LABELS[0], LABELS[3]]
    dataclasses.replace(config, learning_rate=(1e-3, 1e-3)).check()


def test_one_value_is_no_sweep():
    for rate in (2e-3, (2e-3,)):
        config = dataclasses.replace(probe.CONFIG, learning_rate=rate)
        assert config.runs == [("plain", 7), ("plain", 8), ("bonus", 7), ("bonus", 8)] and not config.swept


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("--gamma 0.9 0.9", "gamma has a value twice"),
        ("--gamma 0.9 0.90000000001", "gamma has a value twice"),
        ("--gamma 0.9 1.5", "gamma must be .*: 1.5"),
        ("--gamma", "gamma needs at least one value"),
        ("--zip", "--zip pairs .* none"),
        ("--zip --gamma 0.9 0.8", "--zip pairs .* 2 of gamma"),
        ("--zip --gamma 0.9 0.8 --ent-coef 0 1 2", "--zip pairs .* 2 of gamma, 3 of ent_coef"),
        ("--zip --gamma 0.9 0.9 --ent-coef 1 1", "gamma with ent_coef has a value twice"),
        (" ".join(f"--{name.replace('_', '-')} 0.123456789 0.2" for name in ippo.Config().tunables), "200 bytes"),
    ],
)
def test_refusals(args, sentence):
    with pytest.raises(UserError, match=sentence) as refused:
        command_line.parse(ippo.Config, args.split())
    assert "\n" not in str(refused.value)


def test_values_of_the_command_line():
    config = command_line.parse(ippo.Config, ["--gamma", "0.9", "0.99", "--ent-coef", "0.1"])
    assert (config.gamma, config.ent_coef, config.learning_rate) == ((0.9, 0.99), 0.1, 3e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep of 2 x 2 values with two arms and two seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sweep"))
        return probe.train("sweep", **SWEEP, total_timesteps=4 * 32, checkpoint_every=2).resolve()


def of_run(folder, arm: str) -> tuple[list[dict[str, str]], dict]:
    """Metrics and network of seed 8 of an arm, the metrics without the arm."""
    rows = [row | {"arm": ""} for row in probe.rows(folder) if (row["arm"], row["seed"]) == (arm, "8")]
    assert len(rows) == 4
    return rows, checkpoint.read_arrays(checkpoint.path_of(folder, arm, 8, 128))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", probe.ALGORITHMS, ids=["ippo", "ippo_rnn", "mappo"])
def test_a_run_equals_itself_alone_and_among_others(algorithm, tmp_path, monkeypatch):
    """Bit by bit, but for the last digit of the loss alone: without a sweep a compiler folds constants."""
    monkeypatch.chdir(tmp_path)
    train = partial(probe.train, algorithm=algorithm, total_timesteps=4 * 32)
    rows, network = of_run(train("few", **SWEEP), LABELS[7])
    others = train("many", learning_rate=(1e-2, 3e-2, 5e-3), gamma=(0.7, 0.9))
    same_rows, same_network = of_run(others, LABELS[7])
    assert rows == same_rows
    probe.assert_equal(network, same_network)
    rows_alone, network_alone = of_run(train("alone", learning_rate=1e-2, gamma=0.9), "bonus")
    probe.assert_equal(network, network_alone)
    for row, alone in zip(rows, rows_alone, strict=True):
        assert float(row.pop("loss")) == pytest.approx(float(alone.pop("loss")), rel=1e-5)
        assert row == alone


@pytest.mark.slow
def test_files_of_a_sweep(folder):
    assert [row["arm"] for row in probe.rows(folder)][:16:2] == LABELS
    assert {path.name for path in (folder / "checkpoints").iterdir()} == set(LABELS)
    (found,) = selection.choose(folder, (LABELS[3],), (7,))
    assert (found.env_steps, checkpoint.read_about(found.path)["arm"]) == (128, LABELS[3])
    about = run_reader.read_variants(folder)
    assert list(about) == LABELS and about[LABELS[5]] == {"arm": "bonus", "learning_rate": 2e-3, "gamma": 0.9}
    assert {(row["arm"], row["seed"]) for row in track.read_table(folder)} == {(x, y) for x in LABELS for y in (7, 8)}


@pytest.mark.slow
def test_a_resumed_sweep_ends_where_a_whole_one_does(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part = probe.train("part", **SWEEP, total_timesteps=2 * 32, checkpoint_every=2)
    saved = command_line.saved_config(ippo.Config, part)
    assert saved.swept == SWEEP
    probe.train("part", **SWEEP, total_timesteps=4 * 32, checkpoint_every=2, resume=True)
    assert (part / checkpoint.STATE).read_bytes() == (folder / checkpoint.STATE).read_bytes()
    assert probe.rows(part) == probe.rows(folder)


@pytest.mark.slow
def test_a_sweep_is_compared(folder):
    groups = compare.read([folder])
    assert [group.arm for group in groups] == LABELS
    points, measure = compare.sweep_points(groups)
    assert measure == "training return at 128 env steps"
    assert [point.arm for point in points] == ["plain"] * 4 + ["bonus"] * 4
    assert all(len(point.returns) == 2 and len(point.values) == 2 for point in points)


def test_a_folder_without_a_sweep_has_no_variants(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"resolved": {}, "derived": {"runs": []}}))
    assert run_reader.read_variants(tmp_path) == {}


@pytest.mark.parametrize(
    "variants", [3, {"C00 gamma=1": 3}, {"C00 gamma=1": {"gamma": 1}}, {"a": {"arm": "b", "c": "d"}}]
)
def test_damaged_variants_are_refused(variants, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"resolved": {}, "derived": {"variants": variants}}))
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        run_reader.read_variants(tmp_path)
