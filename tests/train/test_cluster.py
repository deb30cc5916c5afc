"""The files of examples/cluster: two processes on this machine, with the variables that SLURM and Kubernetes set."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import probe
import pytest

from purecc4.train import checkpoint

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "examples/cluster"
TRAINING = f"--arm C00 C11 --seeds 1 2 {probe.SMALL} --total-timesteps".split()
SRUN = """#!/bin/bash
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_LOCALID=0
shift # --cpus-per-task
tasks=()
for rank in 0 1; do SLURM_PROCID=$rank "$@" & tasks+=($!); done
status=0
for task in "${tasks[@]}"; do wait "$task" || status=$?; done
exit $status
"""
"""Stands in for SLURM's: two nodes with one task each."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture
def environment(tmp_path):
    """Variables of a folder with links to the checkout, its programs first on the path."""
    for name in ("algos", "envs", "purecc4", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text(SRUN)
    (programs / "srun").chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_the_slurm_file_trains_and_resumes(tmp_path, environment):
    variables = environment | {"SLURM_JOB_ID": str(os.getpid()), "SLURM_CPUS_PER_TASK": "2"}
    variables["JAX_COORDINATOR_PORT"] = str(free_port())
    for timesteps in ("80", "120"):
        command = ["bash", CLUSTER / "slurm.sh", "pair", *TRAINING, timesteps]
        ended = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert "4 devices: 4 runs" in ended.stdout
    rows = probe.rows(tmp_path / "runs/pair")
    assert [row["update"] for row in rows] == [update for update in "123" for _ in range(4)]
    assert checkpoint.read_about(tmp_path / "runs/pair/state.eqx")["update"] == 3


@pytest.mark.slow
def test_the_pods_of_the_kubernetes_file_train(tmp_path, environment):
    text = (CLUSTER / "kubernetes.yaml").read_text()
    script = re.search(r"args:\n +- \|\n((?: {14}.*\n)+)", text)[1].replace(
        "--arm C00 C11", " ".join([*TRAINING, "80"])
    )
    given = dict(re.findall(r'\{name: (\w+), value: "(.*)"\}', text))
    assert len(given) == 4 and given["JAX_NUM_PROCESSES"] == "2"
    given |= {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    given["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    pods = [
        subprocess.Popen(
            ["bash", "-euc", script], cwd=tmp_path, env=environment | given | {"JOB_COMPLETION_INDEX": index}
        )
        for index in "01"
    ]
    assert [pod.wait(timeout=600) for pod in pods] == [0, 0]
    assert len(probe.rows(tmp_path / "runs/pair")) == 8
