"""Tracking services, with fakes of wandb and trackio: live, resumed, renamed, away."""

import csv
import io
import sys
import time
import types

import pytest

from purecc4.errors import UserError
from purecc4.files import read_json, write_json
from purecc4.train import track
from purecc4.train.run_reader import SINCE_ALWAYS, read_id

METRICS = """arm,seed,update,env_steps,return,lwf,asf,ria,cost
C00,1,1,24000,-5000.0,-300.5,0,-1,-2
C11,1,1,24000,-9000.0,-600.5,0,-1,-2
C00,1,2,48000,-4000.0,-200.5,0,-1,-2
C11,1,2,48000,-8000.0,-500.5,0,-1,-2
"""

MORE = """C00,1,3,72000,-3000.0,-100.5,0,-1,-2
C11,1,3,72000,-7000.0,-400.5,0,-1,-2
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "first"
    write_json(folder / "config.json", {"resolved": {"arm": ["C00", "C11"], "gamma": 0.99}})
    (folder / "metrics.csv").write_text(METRICS)
    return folder


class Run:
    """A run as a service keeps it; `log` drops steps out of order, as wandb does."""

    def __init__(self, service, about):
        self.service, self.about, self.rows, self.is_open = service, about, {}, False

    @property
    def step(self) -> int:
        return max(self.rows, default=-1) + 1

    def log(self, values, step):
        assert self.is_open
        self.service.fail_if_away()
        if step >= self.step:
            self.rows[step] = values

    def finish(self):
        self.is_open = False


class Fake:
    """A tracking service: wandb finds a run again by its id, trackio by its name."""

    def __init__(self, name, patch):
        self.key = "id" if name == "wandb" else "name"
        self.runs: dict[str, Run] = {}
        self.away = False
        library = types.ModuleType(name)
        library.init = self.init
        patch.setitem(sys.modules, name, library)

    def init(self, **about):
        self.fail_if_away()
        run = self.runs.setdefault(about[self.key], Run(self, about))
        run.is_open = True
        return run

    def fail_if_away(self):
        if self.away:
            raise ConnectionError("no route")

    def steps(self) -> list[list[int]]:
        """Steps of each run, in the order in which the runs were first seen."""
        return [list(run.rows) for run in self.runs.values()]


@pytest.fixture(params=["wandb", "trackio"])
def service(request, monkeypatch):
    return Fake(request.param, monkeypatch)


@pytest.fixture
def wandb(monkeypatch):
    return Fake("wandb", monkeypatch)


def name_of(service) -> str:
    return "wandb" if service.key == "id" else "trackio"


def test_one_run_per_arm_and_seed(folder, service):
    assert track.send(folder, name_of(service), "mine") == 4
    runs = list(service.runs.values())
    assert [run.about["group"] for run in runs] == ["C00", "C11"]
    assert {run.about["project"] for run in runs} == {"mine"}
    config = {"arm": "C11", "seed": 1, "gamma": 0.99, "folder": "first"}
    assert runs[1].about["config"] == SINCE_ALWAYS | config
    assert service.steps() == [[24000, 48000]] * 2
    terms = {"lwf": -200.5, "asf": 0, "ria": -1, "cost": -2}
    assert runs[0].rows[48000] == {"update": 2, "env_steps": 48000, "return": -4000} | terms
    assert not any(run.is_open for run in runs)


def test_runs_of_a_sweep_have_their_own_values(folder, service):
    labels = {"C00": "C00 gamma=0.9", "C11": "C00 gamma=0.99"}
    variants = {label: {"arm": "C00", "gamma": float(label[-4:].strip("="))} for label in labels.values()}
    content = read_json(folder / "config.json")
    content["resolved"]["gamma"] = [0.9, 0.99]
    write_json(folder / "config.json", content | {"derived": {"variants": variants}})
    (folder / "metrics.csv").write_text(METRICS.replace("C00", labels["C00"]).replace("C11", labels["C11"]))
    assert track.send(folder, name_of(service)) == 4
    found = [(run.about["group"], run.about["config"]["gamma"]) for run in service.runs.values()]
    assert found == [("C00 gamma=0.9", 0.9), ("C00 gamma=0.99", 0.99)]


def test_a_folder_is_the_same_at_the_service_after_a_rename(folder, service):
    track.send(folder, name_of(service))
    renamed = folder.rename(folder.with_name("second"))
    (renamed / "metrics.csv").write_text(METRICS + MORE)
    assert track.send(renamed, name_of(service)) == 2
    assert service.steps() == [[24000, 48000, 72000]] * 2


def test_folders_of_the_same_name_are_told_apart(folder, tmp_path, service):
    other = tmp_path / "other" / "first"
    other.mkdir(parents=True)
    (other / "metrics.csv").write_text(METRICS)
    write_json(other / "config.json", {"resolved": {"arm": ["C00", "C11"], "gamma": 0.9}})
    for each in (folder, other):
        track.send(each, name_of(service))
    assert service.steps() == [[24000, 48000]] * 4


def test_the_settings_hold_the_id(folder, tmp_path, service):
    """It stays when a training that is resumed changes the settings."""
    track.send(folder, name_of(service))
    content = read_json(folder / "config.json")
    write_json(folder / "config.json", content | {"id": read_id(folder), "written": ["--resume"]})
    assert track.send(folder, name_of(service)) == 0 and len(service.runs) == 2


def test_names_and_ids_of_many_arms_are_short(folder, tmp_path, wandb):
    track.send(folder.rename(tmp_path / "-".join(f"C{i:02}x" for i in range(40))), "wandb")
    assert all(len(run.about[key]) <= 128 for run in wandb.runs.values() for key in ("id", "name"))
    assert [run.about["name"][-6:] for run in wandb.runs.values()] == ["-C00-1", "-C11-1"]


def test_a_service_that_is_away_can_be_tried_again(folder, service):
    service.away = True
    with pytest.raises(UserError, match=r"no route.* purecc4 track"):
        track.send(folder, name_of(service))
    service.away = False
    assert track.send(folder, name_of(service)) == 4 and service.steps() == [[24000, 48000]] * 2


def rows_of(text: str) -> list[dict]:
    return [
        {name: x if name == "arm" else float(x) if name != "seed" else int(x) for name, x in row.items()}
        for row in csv.DictReader(io.StringIO(METRICS.splitlines()[0] + "\n" + text))
    ]


def until(condition):
    """Wait for another thread."""
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def add(folder, send) -> None:
    """Write and send the rows of an update, as a training does."""
    with (folder / "metrics.csv").open("a") as file:
        file.write(MORE)
    send(rows_of(MORE))


def test_metrics_arrive_while_training_runs(folder, service):
    """Those that an interrupted training did not send go first."""
    with track.live(folder, name_of(service)) as send:
        add(folder, send)
        until(lambda: service.steps() == [[24000, 48000, 72000]] * 2)
    assert not any(run.is_open for run in service.runs.values())


@pytest.mark.parametrize("back", ["during", "at the end"])
def test_nothing_is_lost_while_the_service_is_away(folder, service, back, monkeypatch, capsys):
    monkeypatch.setattr(track, "RETRY_SECONDS", 0.0 if back == "during" else 60.0)
    service.away = True
    with track.live(folder, name_of(service)) as send:
        send(rows_of(METRICS.partition("\n")[2]))
        time.sleep(0.05)
        service.away = back != "during"
        add(folder, send)
        if back == "during":
            until(lambda: service.steps() == [[24000, 48000, 72000]] * 2)
        service.away = False
    assert service.steps() == [[24000, 48000, 72000]] * 2
    assert "track" not in capsys.readouterr().out


def test_a_service_that_stays_away_stops_nothing(folder, service, capsys):
    service.away = True
    with track.live(folder, name_of(service)) as send:
        add(folder, send)
    assert f"purecc4 track {folder} --to {name_of(service)}" in capsys.readouterr().out
    service.away = False
    assert track.send(folder, name_of(service)) == 6 and service.steps() == [[24000, 48000, 72000]] * 2


def test_a_training_that_stopped_at_a_number_that_is_not_finite(folder, wandb, capsys):
    """The error of the training is shown, not one of the table."""
    with pytest.raises(UserError, match="of the training"), track.live(folder, "wandb"):
        (folder / "metrics.csv").write_text(METRICS + MORE.replace("-3000.0", "nan"))
        raise UserError("of the training")
    assert "purecc4 track" in capsys.readouterr().out


def test_a_service_that_goes_away_between_two_runs(folder, service):
    """One of the runs has a row more than the other; neither gets one twice."""
    log = Run.log

    def once(run, values, step):
        service.away = service.away or step == 48000
        log(run, values, step)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError):
        patch.setattr(Run, "log", once)
        track.send(folder, name_of(service))
    service.away = False
    track.send(folder, name_of(service))
    assert service.steps() == [[24000, 48000]] * 2


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
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2


@pytest.mark.parametrize("content", [[], {"purecc4": 3}])
def test_a_damaged_record_of_sent_rows_is_refused(content, folder, monkeypatch):
    Fake("trackio", monkeypatch)
    write_json(folder / track.SENT, content)
    with pytest.raises(UserError, match=r"\.trackio\.json is damaged"):
        track.send(folder, "trackio")


def test_rows_that_trackio_had_only_queued_are_sent_again(folder, monkeypatch):
    """A killed process never called `finish`."""
    service = Fake("trackio", monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", lambda run, values, step: None)
        assert track.Stream(folder, "trackio", "purecc4").send(track.read_table(folder)) == 4
    assert track.send(folder, "trackio") == 4 and service.steps() == [[24000, 48000]] * 2
    assert track.send(folder, "trackio") == 0
