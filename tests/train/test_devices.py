"""Runs shared by the processes of a job, here two of them with two devices each."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import probe
import pytest
from purecc4.algos import ippo

from purecc4.errors import UserError
from purecc4.train import checkpoint, devices, loop

PROCESS = """
import dataclasses
from purecc4.train import devices
devices.join_job()
import jax, probe
from purecc4.algos import ippo
from purecc4.train import loop
assert (len(jax.local_devices()), len(jax.devices())) == (2, 4)
config = dataclasses.replace(probe.CONFIG, name="shared", seeds=(7,))
loop.train(config, ippo.make_train(config, probe.ENV))
"""


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path, monkeypatch):
    """Two runs on four devices: the gap is filled, the first process alone prints and writes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    root = Path(__file__).parents[2]
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            cwd=tmp_path,
            env=env | {"JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert "2 runs of 10 updates" in said[0] and "runs of" not in said[1]
    monkeypatch.chdir(tmp_path)
    alone = dataclasses.replace(probe.CONFIG, name="alone", seeds=(7,))
    loop.train(alone, ippo.make_train(alone, probe.ENV))
    state, same = (tmp_path / "runs" / name / checkpoint.STATE for name in ("shared", "alone"))
    assert state.read_bytes() == same.read_bytes()


def test_a_job_that_nobody_describes_is_refused(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"):
        devices.join_job()


@pytest.mark.parametrize(
    ("cores", "num_runs", "together"), [(2, 1, 1), (2, 3, 3), (2, 9, 3), (2, 8, 2), (4, 27, 9), (16, 7, 7)]
)
def test_a_cpu_takes_its_runs_in_equal_rounds(cores, num_runs, together, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert devices.runs_at_a_time(num_runs) == together and num_runs % together == 0
