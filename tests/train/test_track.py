"""Metrics on their way to a service: one run per arm and seed, grouped by arm."""

import sys
import types

import pytest

from purecc4.errors import UserError
from purecc4.files import write_json
from purecc4.train import track
from purecc4.train.run_reader import SINCE_ALWAYS

METRICS = """arm,seed,update,env_steps,return,lwf,asf,ria,cost
C00,1,1,24000,-5000.0,-300.5,0,-1,-2
C11,1,1,24000,-9000.0,-600.5,0,-1,-2
C00,1,2,48000,-4000.0,-200.5,0,-1,-2
C11,1,2,48000,-8000.0,-500.5,0,-1,-2
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "first"
    write_json(folder / "config.json", {"resolved": {"arm": ["C00", "C11"], "gamma": 0.99}})
    (folder / "metrics.csv").write_text(METRICS)
    return folder


class Run:
    """What a service is told of a run."""

    def __init__(self, **about):
        self.about, self.rows, self.finished = about, [], False

    def log(self, metrics, step):
        self.rows.append((step, metrics))

    def finish(self):
        self.finished = True


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_one_run_per_arm_and_seed(folder, service, monkeypatch):
    runs = []

    def init(**about):
        assert all(run.finished for run in runs)
        runs.append(Run(**about))
        return runs[-1]

    library = types.ModuleType(service)
    library.init = init
    monkeypatch.setitem(sys.modules, service, library)
    assert track.send(folder, service, "mine") == 2
    assert [run.about["name"] for run in runs] == ["first-C00-1", "first-C11-1"]
    assert [run.about["group"] for run in runs] == ["C00", "C11"]
    assert {run.about["project"] for run in runs} == {"mine"}
    assert runs[1].about["config"] == SINCE_ALWAYS | {"arm": "C11", "seed": 1, "gamma": 0.99}
    assert [step for step, _ in runs[0].rows] == [24000, 48000]
    parts = {"lwf": -200.5, "asf": 0, "ria": -1, "cost": -2}
    assert runs[0].rows[1][1] == {"update": 2, "env_steps": 48000, "return": -4000} | parts
    assert runs[-1].finished


@pytest.mark.parametrize(("service", "extra"), [("wandb", "track"), ("trackio", "trackio")])
def test_a_missing_library_names_the_command(folder, service, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, service, None)
    with pytest.raises(UserError, match=rf"pip install -e '\.\[{extra}\]'"):
        track.send(folder, service)


def test_a_folder_without_metrics_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    with pytest.raises(UserError, match=r"has no metrics\.csv"):
        track.send(tmp_path, "wandb")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows[:3] + rows[2:], r"metrics\.csv holds update 1 of arm C11 with seed 1 2 times"),
        (lambda rows: rows[:1] + rows[2:], r"metrics\.csv holds update 1 of arm C00 with seed 1 0 times"),
        (lambda rows: [*rows[:-1], "C11,1,2,480"], r"metrics\.csv line 5 has too few or too many fields"),
        (lambda rows: rows[:-1], r"metrics\.csv holds update 2 of arm C11 with seed 1 0 times"),
        (lambda rows: rows[:1], r"metrics\.csv has no rows"),
    ],
)
def test_changed_metrics_are_not_sent(folder, change, sentence, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    (folder / "metrics.csv").write_text("".join(change(METRICS.splitlines(keepends=True))))
    with pytest.raises(UserError, match=sentence):
        track.send(folder, "wandb")


def test_wandb_offline(folder, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    track.send(folder, "wandb")
    assert len(list(tmp_path.glob("wandb/offline-run-*-first-C??-1"))) == 2
