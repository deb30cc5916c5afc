"""Nothing is lost and nothing is silent: crashes at every file operation, two writers, changed files, bad settings."""

import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import probe
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from purecc4.algos import ippo

from purecc4 import command, files
from purecc4.errors import NotWritten, Stopped, UserError
from purecc4.play import policies
from purecc4.train import checkpoint, guards, loop, metrics, run_writer
from purecc4.train.settings import MAX_NUM_STEPS

CONFIG = dataclasses.replace(probe.CONFIG, arm=("bonus",), total_timesteps=4 * 32, checkpoint_every=2, name="run")
ENV = probe.ENV._replace(arms={"bonus": probe.ARMS["bonus"][1:]})
ROOT = Path(ippo.__file__).parents[1]


class Killed(BaseException):
    """Stands for kill -9: nobody catches it, and nobody cleans up."""


@pytest.fixture(scope="module")
def training():
    """The runs of CONFIG; made once."""
    training = loop.map_over_runs(CONFIG, ippo.make_train(CONFIG, ENV))
    begun = jax.device_get(training.start())
    return training._replace(start=lambda: begun)


@pytest.fixture
def train(training, tmp_path, monkeypatch):
    """Train in an empty folder, with programs that are compiled once. Returns the run folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "map_over_runs", lambda *_: training)
    monkeypatch.setattr(loop, "compile_updates", lambda config, _, arm, runner, count: compiled(training.train, count))

    def train(**changes):
        config = dataclasses.replace(CONFIG, **changes)
        loop.train(config, ippo.make_train(CONFIG, ENV))
        return config.folder

    return train


@cache
def compiled(program, count):
    """The program of some updates."""
    arm, runner = probe.start(ippo, CONFIG, ENV)
    devices = loop.devices
    return program.lower(devices.shard_runs(arm), devices.shard_runs(runner), count).compile()


def content_of(folder: Path) -> dict[str, object]:
    """All that a training leaves, without times."""
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
    """What a killed process leaves of a write: nothing, half of it, all of it under another name, or all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + files.PART)
    if stage:
        unfinished.write_bytes(content[: len(content) // 2] if stage == 1 else content)
    if stage == 3:
        unfinished.replace(path)


def append_killed(path: Path, text: str, stage: int) -> None:
    """What a killed process leaves of an addition: nothing, half of it, or all."""
    with path.open("ab") as file:
        file.write(text.encode()[: len(text) * stage // 3])


def crash_in(patch: pytest.MonkeyPatch, operation: int, stage: int) -> None:
    """Let one of the file operations from now on, counted from 0, be the last one."""
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


def test_crash_at_every_file_operation_of_a_run(train, monkeypatch):
    """Nothing is written but by `files.write` and `files.append`; each is cut short in four ways, then resumed."""
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


def full_disk(name, unfinished, path):
    """Stands for `files.rename` where the disk is full when a file of some name is written."""
    if path.name == name:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    unfinished.replace(path)


@pytest.mark.parametrize("updates", [0, 2])
def test_full_disk_is_one_sentence_with_the_last_good_state(updates, train, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(UserError) as refused:
        patch.setattr(files, "rename", partial(full_disk, f"{32 * updates + 64}.eqx"))
        train()
    sentence = str(refused.value)
    assert (
        f"cannot read or write runs/run/checkpoints/bonus/7/{32 * updates + 64}.eqx: No space left on device"
        in sentence
        and "\n" not in sentence
    )
    assert f"runs/run/state.eqx, after update {updates}: make room" in sentence
    assert not list(Path("runs/run").rglob(f"*{files.PART}"))
    assert (train(resume=True) / "state.eqx").read_bytes() == (train(name="whole") / "state.eqx").read_bytes()


def test_a_failed_write_changes_nothing(tmp_path):
    (tmp_path / "file").write_text("before")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotWritten, match=r"cannot read or write .*folder: Is a directory"):
        files.write(tmp_path / "folder", b"x")
    with pytest.raises(NotWritten, match=r"cannot read or write .*below: (Not a directory|File exists)"):
        files.write(tmp_path / "file" / "below", b"x")
    assert (tmp_path / "file").read_text() == "before" and len(list(tmp_path.iterdir())) == 2


def test_what_killed_processes_left_goes_and_what_is_being_written_stays(tmp_path):
    """At the next write in the same folder, by whatever command, and at the next lock of a folder above."""
    dead = [tmp_path / f"{name}.12345678{files.PART}" for name in ("report/forest.png", "report/gone.csv", "a/b/x.eqx")]
    foreign = tmp_path / "report" / "download.part"
    for path in (*dead, foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with files._begin(tmp_path / "report" / "alive.csv") as alive:
        files.write(tmp_path / "report" / "forest.png", b"whole")
        assert not dead[0].exists() and not dead[1].exists() and dead[2].exists()
        with files.locked(tmp_path, "evaluation"):
            assert Path(alive.name).exists() and not dead[2].exists()
    assert foreign.exists() and (tmp_path / "report" / "forest.png").read_text() == "whole"


def test_a_file_that_was_cleaned_before_it_was_locked_is_begun_again(tmp_path, monkeypatch):
    lock, cleaned = files.fcntl.flock, []

    def flock(file, kind):
        if not cleaned:
            cleaned.append(file.name)
            Path(file.name).unlink()
        lock(file, kind)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    files.write(tmp_path / "file", b"whole")
    assert cleaned and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    left = tmp_path / f"new{files.PART}" / "half"
    left.parent.mkdir()
    left.write_text("half")
    contents = {"a": b"1", "below/b": b"2"}
    with monkeypatch.context() as patch, pytest.raises(NotWritten, match=r"cannot read or write .*b: No space left"):
        patch.setattr(files, "rename", partial(full_disk, "b"))
        files.write_folder(tmp_path / "new", contents)
    assert not list(tmp_path.iterdir())
    files.write_folder(tmp_path / "new", contents)
    assert (tmp_path / "new/below/b").read_bytes() == b"2" and len(list(tmp_path.rglob("*"))) == 4
    with pytest.raises(NotWritten, match=r"cannot read or write .*new: Directory not empty"):
        files.write_folder(tmp_path / "new", contents)


HOLD = """
import sys, time
from pathlib import Path
from purecc4 import files
with files.locked(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path):
    """(task) -> a process that holds the lock of runs/run."""
    processes = []

    def hold(task):
        args = [sys.executable, "-c", HOLD, str(tmp_path / "runs/run"), task]
        process = subprocess.Popen(args, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
        processes.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_is_trained_in_once_at_a_time(resume, train, held):
    if resume:
        train(total_timesteps=64)
    process = held("training")
    with pytest.raises(UserError, match=rf"run is in use: training by process {process.pid} on .* since 20"):
        train(resume=resume)
    process.kill()
    process.wait()
    assert content_of(train(resume=resume))["parts"] == []


def test_a_table_is_evaluated_once_at_a_time(tmp_path, monkeypatch, held):
    from purecc4.play import evaluate

    monkeypatch.chdir(tmp_path)
    process = held("evaluation")
    config = evaluate.Config(Path("runs/run"), env_steps=("none",), policies=("sleep",))
    with pytest.raises(UserError, match=f"evaluation by process {process.pid}"):
        evaluate.evaluate(config)


def test_a_folder_with_other_things_is_not_taken(train):
    Path("runs/run").mkdir(parents=True)
    Path("runs/run/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        train()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A checkpoint with its checksum."""
    sizes = {"num_obs": 4, "num_actions": 3, "hidden": 8, "precision": "float32"}
    path = checkpoint.path_of(tmp_path_factory.mktemp("run"), "C00", 7, 64)
    about = {"algorithm": "ippo", "arm": "C00", "seed": 7, "env_steps": 64, "network": sizes}
    checkpoint.save(path, ippo.ActorCritic(jax.random.key(0), 4, 3, 8), about)
    return path


def readers(path: Path):
    """All ways in which commands read a checkpoint."""
    return (partial(policies.load_network, path), partial(checkpoint.read_arrays, path))


def test_every_flipped_bit_is_noticed(network, tmp_path):
    content, path = network.read_bytes(), tmp_path / "copy.eqx"
    generator = random.Random(0)
    places = [*range(0, 400, 7), *(generator.randrange(len(content)) for _ in range(100))]
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << generator.randrange(8)]) + content[place + 1 :])
        for read in readers(path):
            with pytest.raises(UserError):
                read()


@pytest.mark.parametrize("change", [lambda x: x + b"junk", lambda x: x[:-1], lambda x: x[: len(x) // 2], lambda x: b""])
@pytest.mark.parametrize("checksum", [True, False])
def test_changed_lengths_are_noticed(change, checksum, network, tmp_path):
    """Without a checksum, too."""
    path, content = tmp_path / "copy.eqx", network.read_bytes()
    path.write_bytes(change(content if checksum else without_checksum(content)))
    for read in readers(path):
        with pytest.raises(UserError, match=r"damaged|not a file"):
            read()


def without_checksum(content: bytes, **changes) -> bytes:
    """A checkpoint as older versions wrote it, with changes to its first line."""
    first, _, body = content.partition(b"\n")
    header = json.loads(first) | changes
    del header[checkpoint.CHECKSUM]
    return json.dumps(header).encode() + b"\n" + body


def test_older_checkpoints_are_read(network, tmp_path):
    path = tmp_path / "copy.eqx"
    path.write_bytes(without_checksum(network.read_bytes()))
    probe.assert_equal(policies.load_network(path), policies.load_network(network))


@pytest.mark.parametrize(("name", "value"), [("arm", "C11"), ("seed", 8), ("env_steps", 32)])
def test_a_checkpoint_in_the_wrong_place_is_refused(name, value, network, tmp_path):
    place = {"arm": "C00", "seed": 7, "env_steps": 64, name: value}
    path = checkpoint.path_of(tmp_path, **place)
    path.parent.mkdir(parents=True)
    path.write_bytes(network.read_bytes())
    for read in readers(path):
        with pytest.raises(UserError, match=f"holds a checkpoint with {name} "):
            read()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value, network, tmp_path):
    weights = policies.load_network(network)
    checkpoint.save(
        tmp_path / "bad.eqx",
        jax.tree.map(lambda x: x.at[0].set(value), weights),
        {**{key: x for key, x in checkpoint.read_about(network).items() if key != "leaves"}},
    )
    for read in readers(tmp_path / "bad.eqx"):
        with pytest.raises(UserError, match=r"not finite in first\.weight"):
            read()


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)


@settings(max_examples=60, deadline=None)
@given(
    key=st.sampled_from(["purecc4_format", "leaves", "algorithm", "network", "num_obs", "num_actions", "hidden"]),
    value=JSON,
)
def test_damaged_headers_are_one_sentence(network, tmp_path_factory, key, value):
    """Of older versions, which no checksum protects: refused, or read as what was written."""
    sizes = checkpoint.read_about(network)["network"]
    changes = {"network": sizes | {key: value}} if key in sizes else {key: value}
    path = tmp_path_factory.mktemp("header") / "copy.eqx"
    path.write_bytes(without_checksum(network.read_bytes(), **changes))
    try:
        found = policies.load_network(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        probe.assert_equal(found, policies.load_network(network))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows[:2] + rows[3:], "update 1 of arm bonus with seed 8 0 times"),
        (lambda rows: rows[:2] + rows[1:], "update 1 of arm bonus with seed 7 2 times|seed 7 2 times"),
        (lambda rows: ["nothing\r\n", *rows[1:]], "lacks the column"),
        (lambda rows: [*rows[:1], "bonus,7,x\r\n", *rows[2:]], "0 times|no finite number"),
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


def test_binary_metrics_are_one_sentence(train):
    folder = train()
    (folder / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"metrics\.csv is no text in UTF-8"):
        metrics.read_metrics([folder])


def test_a_state_of_other_runs_is_refused(train):
    train(total_timesteps=64, name="other", seeds=(8, 7))
    train(total_timesteps=64)
    Path("runs/run/state.eqx").write_bytes(Path("runs/other/state.eqx").read_bytes())
    with pytest.raises(UserError, match=r"state\.eqx holds other runs than"):
        train(resume=True)


def test_settings_that_make_no_sense_are_the_files_fault(train):
    path = train(total_timesteps=64) / "config.json"
    content = json.loads(path.read_text())
    content["resolved"]["gamma"] = float("nan")
    files.write_json(path, content)
    with pytest.raises(UserError, match=r"config\.json is damaged: gamma must be from 0 to 1: nan"):
        probe.command_line.saved_config(ippo.Config, path.parent)


def test_less_than_what_is_done_is_refused(train):
    train()
    with pytest.raises(UserError, match="128 env steps behind it, more than total_timesteps = 64"):
        train(resume=True, total_timesteps=64)


def test_an_overflow_stops_a_training(train, monkeypatch):
    """The state from before stays."""
    timed = loop.timed

    def overflowing(*args):
        runner, logs, seconds = timed(*args)
        return runner, logs | {"overflow": logs["overflow"] + (int(runner.update[0]) == 3)}, seconds

    monkeypatch.setattr(loop, "timed", overflowing)
    with pytest.raises(UserError, match="seed 7 outgrew a table of the simulator in update 3"):
        train()
    assert checkpoint.read_about(Path("runs/run/state.eqx"))["update"] == 2


def test_weights_that_are_not_finite_are_never_good(tmp_path, monkeypatch):
    """Loss and gradient are finite here; the step of the optimiser is not."""
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(CONFIG, learning_rate=float("nan"), num_minibatches=1, update_epochs=1)
    with pytest.raises(UserError, match=r"seed 7 is not finite in update 1:.*another --name"):
        loop.train(config, ippo.make_train(config, ENV))
    network = policies.load_network(checkpoint.path_of(config.folder, "bonus", 7, 0))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(network))


def test_sizes_are_checked_before_anything_is_made():
    config = dataclasses.replace(CONFIG, hidden=1_000_000)
    with pytest.raises(UserError, match=r"the networks of all runs need .* GB"):
        guards.refuse_huge(partial(probe.start, ippo, config, ENV))


FLOATS = [field.name for field in dataclasses.fields(ippo.Config) if field.type is float]
INTS = [field.name for field in dataclasses.fields(ippo.Config) if field.type is int]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), -float("inf"), 1e39, -0.2])
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} must be"):
        dataclasses.replace(ippo.Config(), **{name: value}).check()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FLOATS), st.floats())
def test_a_float_is_refused_or_can_be_used(name, value):
    try:
        dataclasses.replace(ippo.Config(), **{name: value}).check()
    except UserError as error:
        assert str(error).startswith(f"{name} must be") and "\n" not in str(error)
    else:
        assert np.isfinite(np.float32(value)) and np.float32(value) >= 0


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(INTS), st.integers())
def test_a_whole_number_is_refused_or_can_be_used(name, value):
    try:
        dataclasses.replace(ippo.Config(), **{name: value}).check()
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert value >= 1 and (name != "num_steps" or value <= MAX_NUM_STEPS)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_a_name_is_refused_or_a_folder_of_runs(name):
    config = dataclasses.replace(ippo.Config(), name=name)
    try:
        config.check()
    except UserError as error:
        assert "name must be" in str(error) and "\n" not in str(error)
    else:
        assert config.folder.resolve().parent == Path("runs").resolve()


@pytest.mark.parametrize("name", ["", "..", ".", "a\nb", "a/b", ".hidden"])
def test_names_that_are_no_folders_are_refused(name):
    with pytest.raises(UserError, match="name must be"):
        dataclasses.replace(ippo.Config(), name=name).check()


@settings(max_examples=40, deadline=None)
@given(key=st.sampled_from([field.name for field in dataclasses.fields(ippo.Config)]), value=JSON)
def test_damaged_settings_are_one_sentence(tmp_path_factory, key, value):
    folder = tmp_path_factory.mktemp("run")
    resolved = json.loads(json.dumps(dataclasses.asdict(ippo.Config())))
    files.write_json(folder / "config.json", {"algorithm": "ippo", "resolved": resolved | {key: value}})
    try:
        found = probe.command_line.saved_config(ippo.Config, folder)
        found.check()
    except UserError as error:
        assert "\n" not in str(error)
    else:
        wanted = str(Path(value)) if key == "define" and isinstance(value, str) else value
        assert json.loads(json.dumps(getattr(found, key), default=str)) == wanted


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command(number, status):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        command.run("name", lambda: os.kill(os.getpid(), number) or time.sleep(10))
    assert ended.value.code == status and signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_python_drops_comes_again(capfd):
    class Dropping:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)

    with pytest.raises(SystemExit) as ended:
        command.run("name", lambda: [Dropping() and None, time.sleep(10)])
    assert ended.value.code == 130 and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "args",
    [[f"algos/{name}.py"] for name in ("ippo", "ippo_notebook", "ippo_rnn", "mappo")]
    + [["-m", "purecc4", "evaluate", "x"]],
)
def test_a_signal_while_libraries_load_is_no_traceback(args, tmp_path):
    """Signals of those who import the package as a library stay as they are: `test_signals_end_a_command`."""
    for library in ("distrax", "jax"):
        (tmp_path / f"{library}.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, *args], cwd=ROOT, env=env, **pipes)
    assert process.stdout.readline() == b"loading\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130 and process.stderr.read() == b""


SWALLOW = """
import time
from purecc4 import command
def main():
    print("ready", flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
command.PATIENCE = 0.2
command.run("name", main)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_swallowed_signal_ends_a_command_all_the_same(number, status):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", SWALLOW], stdout=subprocess.PIPE, env=env)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(30) == status


def test_a_stopped_training_ends_with_the_signals_status(train, monkeypatch):
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
import test_faults as t
from purecc4.algos import ippo
from purecc4.train import loop
config = dataclasses.replace(t.CONFIG, name=sys.argv[1], total_timesteps=200 * 32)
config = dataclasses.replace(config, resume=(config.folder / "state.eqx").exists())
print("started", flush=True)
loop.train(config, ippo.make_train(config, t.ENV))
"""


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "JAX_PLATFORMS": "cpu"}

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
