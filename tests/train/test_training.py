"""Training in a run folder: crashes, resume, locks, changed files, numbers that are not finite, signals."""

import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import probe
import pytest

from purecc4 import files
from purecc4.algos import ippo
from purecc4.errors import Stopped, UserError
from purecc4.train import checkpoint, guards, loop, metrics, run_reader, run_writer, runs, track

CONFIG = dataclasses.replace(probe.CONFIG, arm=("bonus",), total_timesteps=4 * 32, checkpoint_every=2, name="run")


ENV = probe.ENV._replace(arms={"bonus": probe.ARMS["bonus"][1:]})


ROOT = Path(ippo.__file__).parents[1]


class Killed(BaseException):
    """Simulates kill -9: no handler catches it, and nothing is cleaned up."""


@pytest.fixture(scope="module")
def training():
    """The training of CONFIG, created once."""
    training = loop.map_over_runs(CONFIG, ippo.make_train, ENV)
    begun = jax.device_get(training.start())
    return training._replace(start=lambda: begun)


@pytest.fixture
def train(training, tmp_path, monkeypatch):
    """(settings) trains in an empty folder, with programs that are compiled once. Returns the run folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "map_over_runs", lambda *_: training)
    monkeypatch.setattr(loop, "compile_updates", lambda config, _, arm, runner, count: compiled(training.train, count))

    def train(**changes):
        config = dataclasses.replace(CONFIG, **changes)
        loop.train(config, ippo.make_train, ENV)
        return config.folder

    return train


@cache
def compiled(program, count):
    """The program of a number of updates."""
    arm, runner = probe.start(ippo, CONFIG, ENV)
    devices = loop.devices
    return program.lower(devices.shard_runs(arm), devices.shard_runs(runner), count).compile()


def content_of(folder: Path) -> dict[str, object]:
    """Everything that a training writes, without times."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.eqx")}
    left = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    config = json.loads((folder / "config.json").read_text())["resolved"]
    return found | {
        "metrics": probe.rows(folder),
        "config": config,
        "left": left,
        "parts": [*folder.rglob(f"*{files.PART}")],
    }


def write_killed(path: Path, content: bytes, stage: int) -> None:
    """Leave what a killed process may: nothing, half a temporary file, a whole one, or the finished file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + files.PART)
    if stage:
        unfinished.write_bytes(content[: len(content) // 2] if stage == 1 else content)
    if stage == 3:
        unfinished.replace(path)


def append_killed(path: Path, text: str, stage: int) -> None:
    """Leave what a killed process may: from none to all of the appended text, by thirds."""
    with path.open("ab") as file:
        file.write(text.encode()[: len(text) * stage // 3])


def crash_in(patch: pytest.MonkeyPatch, operation: int, stage: int) -> None:
    """Kill the process in one of the coming file operations, counted from 0."""
    seen = iter(range(10**6))

    def crashing(write, killed):
        def crash(path, content):
            if next(seen) == operation:
                killed(path, content, stage)
                raise Killed
            write(path, content)

        return crash

    patch.setattr(files, "write", crashing(files.write, write_killed))
    patch.setattr(files, "append", crashing(files.append, append_killed))


@pytest.mark.slow
def test_crash_at_every_file_operation_of_a_run(train, monkeypatch):
    """All writes go through `files.write` and `files.append`. Each is cut short in four ways, then resumed."""
    whole, points = content_of(train(name="whole")), 0
    for operation in range(1000):
        for stage in range(4):
            name = f"crash-{operation}-{stage}"
            with monkeypatch.context() as patch:
                crash_in(patch, operation, stage)
                try:
                    folder = train(name=name)
                except Killed:
                    points += 1
                else:
                    assert points >= 4 * 13
                    return
            started = (Path("runs") / name / checkpoint.STATE).exists()
            folder = train(name=name, resume=started)
            found = content_of(folder)
            assert found.pop("config").pop("name") == name
            assert found == {key: value for key, value in whole.items() if key != "config"}


@pytest.mark.slow
def test_each_update_is_sent_and_the_folder_keeps_its_id(train, monkeypatch):
    """To a tracking service; `test_tracking.py` has the services."""
    sent = []

    @contextmanager
    def live(folder, service):
        assert (folder, service) == (Path("runs/run"), "wandb")
        yield sent.append

    other = train(name="other")
    monkeypatch.setattr(track, "find", lambda service: None)
    monkeypatch.setattr(track, "live", live)
    folder = train(track="wandb", total_timesteps=64)
    id = run_reader.read_id(folder)
    assert json.loads((folder / "config.json").read_text())["id"] == id
    train(track="wandb", resume=True)
    assert [[(row["seed"], row["update"]) for row in rows] for rows in sent] == [[(7, i), (8, i)] for i in (1, 2, 3, 4)]
    assert run_reader.read_id(folder) == id != run_reader.read_id(other)


def full_disk(name, unfinished, path):
    """Replaces `files.rename`: the disk is full when a file of this name is written."""
    if path.name == name:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    unfinished.replace(path)


@pytest.mark.parametrize("updates", [0, 2])
def test_full_disk_names_the_last_good_state(updates, train, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(UserError) as refused:
        patch.setattr(files, "rename", partial(full_disk, f"{32 * updates + 64}.eqx"))
        train()
    message = str(refused.value)
    assert f"runs/run/checkpoints/bonus/7/{32 * updates + 64}.eqx: No space left on device" in message
    assert f"runs/run/state.eqx, after update {updates}" in message and "--resume" in message and "\n" not in message
    assert not list(Path("runs/run").rglob(f"*{files.PART}"))
    assert (train(resume=True) / "state.eqx").read_bytes() == (train(name="whole") / "state.eqx").read_bytes()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_folder_has_one_training_at_a_time(resume, train, held):
    if resume:
        train(total_timesteps=64)
    process = held("training")
    with pytest.raises(UserError, match=rf"training by process {process.pid} on .* since 20"):
        train(resume=resume)
    process.kill()
    process.wait()
    assert content_of(train(resume=resume))["parts"] == []


def test_a_folder_with_other_files_is_refused(train):
    Path("runs/run").mkdir(parents=True)
    Path("runs/run/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists"):
        train()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows[:2] + rows[3:], "update 1 of arm bonus with seed 8 0 times"),
        (lambda rows: rows[:2] + rows[1:], "update 1 of arm bonus with seed 7 2 times|seed 7 2 times"),
        (lambda rows: ["nothing\r\n", *rows[1:]], "lacks the column"),
        (lambda rows: [*rows[:1], "bonus,7,x\r\n", *rows[2:]], "0 times|finite number"),
    ],
)
def test_changed_metrics_are_refused(change, sentence, train):
    path = train(total_timesteps=64) / "metrics.csv"
    rows = path.read_bytes().decode().splitlines(keepends=True)
    path.write_bytes("".join(change(rows)).encode())
    with pytest.raises(UserError, match=rf"metrics\.csv.*({sentence})"):
        train(resume=True)
    with pytest.raises(UserError, match=r"metrics\.csv"):
        metrics.read_metrics([path.parent])


def test_binary_metrics_are_refused(train):
    folder = train()
    (folder / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"metrics\.csv.*UTF-8"):
        metrics.read_metrics([folder])


def test_a_state_of_other_runs_is_refused(train):
    train(total_timesteps=64, name="other", seeds=(8, 7))
    train(total_timesteps=64)
    Path("runs/run/state.eqx").write_bytes(Path("runs/other/state.eqx").read_bytes())
    with pytest.raises(UserError, match=r"state\.eqx.*other runs"):
        train(resume=True)


def test_invalid_settings_in_a_run_folder_name_the_file(train):
    path = train(total_timesteps=64) / "config.json"
    content = json.loads(path.read_text())
    content["resolved"]["gamma"] = float("nan")
    files.write_json(path, content)
    with pytest.raises(UserError, match=r"config\.json.*gamma.*nan"):
        probe.command_line.saved_config(ippo.Config, path.parent)


def test_a_resumed_training_cannot_end_earlier(train):
    train()
    with pytest.raises(UserError, match=r"128 env steps.*64"):
        train(resume=True, total_timesteps=64)


def test_frequent_overflows_stop_a_training(train, monkeypatch):
    """The last saved state is kept. In update 2 they are still rare enough."""
    timed = loop.timed

    def overflowing(*args):
        runner, logs, seconds = timed(*args)
        return runner, logs | {"overflow": logs["overflow"] + {2: 0.4, 3: 0.6}.get(int(runner.update[0]), 0)}, seconds

    monkeypatch.setattr(loop, "timed", overflowing)
    with pytest.raises(UserError, match=r"seed 7.*tables.*update 3, with 0.6 lost entries"):
        train()
    assert checkpoint.read_about(Path("runs/run/state.eqx"))["update"] == 2


def test_an_update_with_non_finite_weights_is_dropped():
    """Loss and gradient are finite, but the optimiser's step is not."""

    def update(arm, runner):
        learned = {"weight": runner["weight"].at[0].set(jnp.nan), "update": runner["update"] + 1}
        return learned, {"loss": jnp.float32(1), "grad_norm": jnp.float32(1)}

    runner = {"weight": jnp.ones(2), "update": jnp.int32(3)}
    kept, _ = runs.keep_finite(update)(None, runner)
    probe.assert_equal(kept, runner)


def test_sizes_are_checked_before_anything_is_allocated():
    config = dataclasses.replace(CONFIG, hidden=1_000_000)
    with pytest.raises(UserError, match=r"networks.* need .* GB"):
        guards.refuse_huge(partial(probe.start, ippo, config, ENV))


@pytest.mark.parametrize("at", ["advance", "announce_rest"])
def test_a_training_that_cannot_print_saves_first(at, train, monkeypatch):
    """The disk of its log is full after the first update."""

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(loop.progress if at == "announce_rest" else loop.progress.Bar, at, fail)
        train()
    assert checkpoint.read_about(Path("runs/run/state.eqx"))["update"] == 1
    assert (train(resume=True) / "state.eqx").read_bytes() == (train(name="whole") / "state.eqx").read_bytes()


@pytest.mark.parametrize("change", ["lock", "folder"])
def test_a_training_whose_folder_or_lock_is_gone_stops(change, train, monkeypatch):
    """Nothing is written into a new folder of the same name."""
    write, folder = run_writer.write_metrics, Path("runs/run")

    def gone(config, done, *rest):
        if done == 1:
            (folder / ".training.lock").unlink() if change == "lock" else folder.rename("runs/moved")
        return write(config, done, *rest)

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"runs/run or its \.training\.lock was moved"):
        patch.setattr(run_writer, "write_metrics", gone)
        train()
    assert folder.exists() == (change == "lock")
    if change == "folder":
        Path("runs/moved").rename(folder)
    assert (train(resume=True) / "state.eqx").read_bytes() == (train(name="whole") / "state.eqx").read_bytes()


def test_a_stopped_training_exits_with_the_status_of_the_signal(train, monkeypatch):
    write = run_writer.write_metrics

    def terminated(config, done, *rest):
        write(config, done, *rest)
        if done == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        patch.setattr(run_writer, "write_metrics", terminated)
        train()
    assert stopped.value.status == 143
    assert (train(resume=True) / "state.eqx").read_bytes() == (train(name="whole") / "state.eqx").read_bytes()


KILLED = """
import dataclasses, sys
from pathlib import Path
import test_training as t
from purecc4.algos import ippo
from purecc4.train import loop
config = dataclasses.replace(t.CONFIG, name=sys.argv[1], total_timesteps=200 * 32)
config = dataclasses.replace(config, resume=(config.folder / "state.eqx").exists())
print("started", flush=True)
loop.train(config, ippo.make_train, t.ENV)
"""


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path):
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]),
        "JAX_PLATFORMS": "cpu",
    }

    def start(name):
        return subprocess.Popen([sys.executable, "-c", KILLED, name], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)

    began = time.perf_counter()
    assert start("whole").wait() == 0
    seconds, generator = time.perf_counter() - began, random.Random(0)
    for _ in range(20):
        process = start("run")
        try:
            process.wait(generator.uniform(0.4, 1.1) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert start("run").wait() == 0
    found, whole = (content_of(tmp_path / "runs" / name) for name in ("run", "whole"))
    assert found.pop("config") | {"name": "whole"} == whole.pop("config")
    assert found == whole
