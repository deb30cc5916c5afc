"""Run folders: what a training writes, resumed and interrupted trainings, many devices; on the probe and on CC4."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import probe
import pytest
from probe import EVERY, TINY, assert_equal, env_steps_saved, rows, train

from purecc4 import files
from purecc4.algos import ippo
from purecc4.errors import Stopped, UserError
from purecc4.play import policies
from purecc4.train import checkpoint, devices, run_writer

CONFIG = probe.CONFIG
script = partial(probe.script, ippo)


@pytest.fixture(scope="module", params=[ippo], ids=["ippo"])
def algorithm(request):
    """A file of algos/."""
    return request.param


@pytest.fixture(scope="module")
def whole(algorithm, tmp_path_factory):
    """Folder of an uninterrupted run of ten updates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        return Path.cwd() / train("whole", algorithm=algorithm)


@EVERY
def test_run_folder(whole, algorithm):
    table = rows(whole)
    assert len(table) == 4 * 10 and list(table[0])[:5] == ["arm", "seed", "update", "env_steps", "return"]
    assert {(row["arm"], row["seed"]) for row in table} == {(arm, str(seed)) for arm, seed in CONFIG.runs}
    assert env_steps_saved(whole, "bonus", 8) == [update * 32 for update in (3, 6, 9, 10)]
    path = checkpoint.path_of(whole, "bonus", 8, 320)
    assert checkpoint.read_about(path)["seed"] == 8
    state = checkpoint.load(whole / checkpoint.STATE, probe.start(algorithm, probe.CONFIGS[algorithm])[1])
    assert_equal(policies.load_network(path), jax.tree.map(lambda x: x[3], state.network))


@EVERY
def test_resumed_run_equals_uninterrupted_one(whole, algorithm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train("run", algorithm=algorithm, total_timesteps=4 * 32)
    folder = train("run", algorithm=algorithm, resume=True)
    assert (folder / checkpoint.STATE).read_bytes() == (whole / checkpoint.STATE).read_bytes()
    assert rows(folder) == rows(whole)


def test_killed_run_goes_on_from_its_last_state(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, killed = run_writer.write_metrics, MemoryError("killed")

    def killed_in_update_8(config, done, *rest):
        write(config, done, *rest)
        if done == 7:
            with (config.folder / "metrics.csv").open("a") as file:
                file.write("plain,7,9,2")
            raise killed

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(run_writer, "write_metrics", killed_in_update_8)
        train("run")
    folder = train("run", resume=True)
    assert (folder / checkpoint.STATE).read_bytes() == (whole / checkpoint.STATE).read_bytes()
    assert rows(folder) == rows(whole)


def test_ctrl_c_saves(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write = run_writer.write_metrics

    def interrupted_in_update_5(config, done, *rest):
        write(config, done, *rest)
        if done == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        patch.setattr(run_writer, "write_metrics", interrupted_in_update_5)
        train("run")
    assert stopped.value.status == 130 and "--resume --name run" in capsys.readouterr().out
    folder = train("run", resume=True)
    assert (folder / checkpoint.STATE).read_bytes() == (whole / checkpoint.STATE).read_bytes()


def test_loss_that_is_not_finite_stops_with_the_last_good_networks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="arm bonus with seed 7 is not finite in update 1:"):
        train("run", probe.ENV._replace(arms={"bonus": jnp.array([0.0, jnp.nan])}))
    network = policies.load_network(checkpoint.path_of(Path("runs/run"), "bonus", 7, 0))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(network))
    assert env_steps_saved(Path("runs/run"), "plain", 7) == [32]


MANY_DEVICES = """
import os, sys
import dataclasses, jax, probe
from purecc4.algos import ippo
from purecc4.train import loop
assert len(jax.devices()) == 3
config = dataclasses.replace(probe.CONFIG, name="sharded")
compile_updates = loop.compile_updates
def spy(*args):
    compiled = compile_updates(*args)
    text = compiled.as_text()
    assert "num_partitions=3" in text
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text, collective
    return compiled
loop.compile_updates = spy
loop.train(config, ippo.make_train, probe.ENV)
"""


@pytest.mark.slow
def test_many_devices_give_the_same_without_talking(whole, tmp_path):
    """Four runs on three devices: two more fill the gap and are dropped."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(ippo.__file__).parents[1])])
    flags = "--xla_force_host_platform_device_count=3"
    env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", MANY_DEVICES], cwd=tmp_path, env=env, check=True)
    state = (tmp_path / "runs/sharded" / checkpoint.STATE).read_bytes()
    assert state == (whole / checkpoint.STATE).read_bytes()
    assert rows(tmp_path / "runs/sharded") == rows(whole)


def test_too_many_runs_for_the_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    needed = []
    monkeypatch.setattr(devices, "bytes_available", lambda: needed[0] * 3 // 4 if needed else 2**60)
    measure = devices.bytes_needed
    monkeypatch.setattr(devices, "bytes_needed", lambda compiled: needed.append(measure(compiled)) or needed[0])
    with pytest.raises(UserError, match="at most 3 runs fit at once"):
        train("run")
    assert not any(path for path in Path("runs/run").iterdir() if not path.name.startswith("."))


@pytest.mark.slow
def test_folders_older_than_a_setting_are_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert script("--seeds 1 --name old --precision float32", TINY) is None
    content = json.loads(Path("runs/old/config.json").read_text())
    del content["resolved"]["red"], content["resolved"]["precision"]
    files.write_json(Path("runs/old/config.json"), content)
    assert "started with red = fsm" in script("--name old --resume --red cia_a")
    assert script("--name old --resume --total-timesteps 160") is None
    assert env_steps_saved(Path("runs/old"), "C11", 1) == [120, 160]


@pytest.mark.parametrize(("content", "sentence"), [("{", "is not valid JSON"), ("{}", "holds no training settings")])
def test_damaged_settings_are_not_resumed(content, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write(Path("runs/run/config.json"), content.encode())
    assert sentence in script("--resume --name run")


def test_checkpoints_of_others_are_refused(whole, tmp_path):
    network = ippo.ActorCritic(jax.random.key(0), 4, 3, 8)
    path = tmp_path / "network.eqx"
    checkpoint.save(path, network, {"algorithm": "ippo", "network": {"num_obs": 4, "num_actions": 3, "hidden": 9}})
    with pytest.raises(UserError, match="other sizes"):
        policies.load_network(path)
    for about in ({}, {"algorithm": "dqn"}):
        checkpoint.save(tmp_path / "foreign.eqx", network, about | {"network": {}})
        with pytest.raises(UserError, match="known algorithms are ippo, ippo_history, "):
            policies.load_network(tmp_path / "foreign.eqx")
    with pytest.raises(UserError, match="single network"):
        policies.load_network(whole / checkpoint.STATE)
    with pytest.raises(UserError, match="there is no file"):
        policies.load_network(tmp_path / "missing.eqx")
    content = path.read_bytes()
    for damaged, sentence in (
        (b"\x89PNG\r\n", "not written by purecc4"),
        (content.replace(b'"purecc4_format": 1', b'"purecc4_format": 2'), "reads format 1"),
        (content[:-100].replace(b'"hidden": 9', b'"hidden": 8'), "damaged"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=sentence):
            policies.load_network(path)
