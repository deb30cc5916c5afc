"""Runs shared by the processes of a job, here two of them with two devices each."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import probe
import pytest

from purecc4 import limits
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
loop.train(config, ippo.make_train, probe.ENV)
"""


def run_job(program: str, folder: Path) -> list[tuple[int, str, str]]:
    """Run a program in two processes of a job, with two devices each. Returns each one's status, output and errors."""
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
            [sys.executable, "-c", program],
            cwd=folder,
            env=env | {"JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=300) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path, monkeypatch):
    """Two runs on four devices: the gap is filled, the first process alone prints and writes."""
    (first, said, _), (second, silent, _) = run_job(PROCESS, tmp_path)
    assert (first, second) == (0, 0)
    assert "2 runs of 10 updates" in said and "runs of" not in silent
    monkeypatch.chdir(tmp_path)
    alone = dataclasses.replace(probe.CONFIG, name="alone", seeds=(7,))
    loop.train(alone, ippo.make_train, probe.ENV)
    state, same = (tmp_path / "runs" / name / checkpoint.STATE for name in ("shared", "alone"))
    assert state.read_bytes() == same.read_bytes()


STOPPED = """
import dataclasses, os, signal
from purecc4 import command
from purecc4.train import devices
def main():
    with devices.job():
        import jax, probe
        from purecc4.algos import ippo
        from purecc4.train import loop
        timed = loop.timed
        def signalled(*args):
            if jax.process_index() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return timed(*args)
        loop.timed = signalled
        loop.train(dataclasses.replace(probe.CONFIG, name="stopped"), ippo.make_train, probe.ENV)
command.run("name", main)
"""


@pytest.mark.slow
def test_a_signal_to_one_process_saves_and_ends_all_of_them(tmp_path):
    """With the status of the signal: a cluster takes status 0 for a finished training."""
    ended = run_job(STOPPED, tmp_path)
    assert [status for status, *_ in ended] == [143, 143], ended
    assert "Stopped and saved" in ended[0][1]
    assert checkpoint.read_about(tmp_path / "runs/stopped" / checkpoint.STATE)["update"] == 1


FAILING = """
import os, signal
from functools import partial
import jax
from purecc4 import command
from purecc4.errors import UserError
from purecc4.train import devices
jax.distributed.initialize = partial(jax.distributed.initialize, heartbeat_timeout_seconds=3)
def fail():
    if jax.process_index() == {process}:
        {failure}
def main():
    with devices.job():
        {before} or devices.anywhere(False)
        fail()
        while True:
            devices.anywhere(False)
command.run("name", main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize("before", [False, True], ids=["connected", "unconnected"])
@pytest.mark.parametrize("failure", ["os.kill(os.getpid(), signal.SIGKILL)", "raise UserError('disk full')"])
def test_the_failure_of_one_process_ends_the_others_with_a_sentence(failure, before, process, tmp_path):
    """Before the processes have talked, JAX aborts those that are left; later their collectives fail."""
    ended = run_job(FAILING.format(process=process, failure=failure, before=before), tmp_path)
    status, _, said = ended[1 - process]
    assert status == 1 and "a process of the job has failed" in said.splitlines()[-1]
    if "disk full" in failure:
        assert (ended[process][0], ended[process][2].splitlines()[-1]) == (1, "name: disk full")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"), True),
        (jax.errors.JaxRuntimeError("x"), True),
        (ValueError("unknown arm"), False),
        (UserError("UNKNOWN: x"), False),
    ],
)
def test_errors_of_a_running_program_are_told_apart(error, found):
    assert devices.is_of_xla(error) == found


def test_a_job_without_a_description_is_refused(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"):
        devices.join_job()


@pytest.mark.parametrize(
    ("cores", "num_runs", "together"), [(1, 3, 1), (2, 1, 1), (2, 3, 3), (2, 9, 3), (2, 8, 2), (4, 27, 9), (16, 7, 7)]
)
def test_a_cpu_trains_its_runs_in_equal_rounds(cores, num_runs, together, monkeypatch):
    monkeypatch.setattr(limits, "cores", lambda: cores)
    assert devices.runs_at_a_time(num_runs) == together and num_runs % together == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_only_the_cores_of_the_affinity_count():
    """As under `taskset -c 0`."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from purecc4 import limits; print(limits.cores())"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.check_output([sys.executable, "-c", code], env=env, text=True) == "1\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 8 cores and 64 GB without control groups. Call it to make this process a member of some."""
    monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "self")
    monkeypatch.setattr(limits, "CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(limits, "MEMORY_TABLE", tmp_path / "meminfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    write(tmp_path, meminfo="MemTotal: 65000000 kB\nMemAvailable: 64000000 kB")
    return lambda groups: write(tmp_path, self=groups)


def write(folder: Path, **contents) -> None:
    """Write files by their names, with '__' for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_control_groups_of_version_2(machine):
    """The tightest group on the path from the root counts. File cache is free memory."""
    machine("0::/job/step")
    assert (limits.cores(), limits.free_memory()) == (8, 64_000_000 * 1024)
    write(limits.CONTROL_GROUPS / "job/step", cpu__max="max 100000", memory__max="max", memory__current=5)
    write(limits.CONTROL_GROUPS / "job", cpu__max="350000 100000", memory__max=8_000, memory__current=5_000)
    write(limits.CONTROL_GROUPS / "job", memory__stat="anon 1000\ninactive_file 4000")
    assert (limits.cores(), limits.free_memory()) == (3, 7_000)


def test_control_groups_of_version_1(machine):
    machine("5:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/\n0::/")
    write(limits.CONTROL_GROUPS / "cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    write(limits.CONTROL_GROUPS / "cpu/job", cpu__cfs_quota_us=50000, cpu__cfs_period_us=100000)
    write(limits.CONTROL_GROUPS / "memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=9_000)
    write(limits.CONTROL_GROUPS / "memory/job", memory__limit_in_bytes=6_000, memory__usage_in_bytes=7_000)
    assert (limits.cores(), limits.free_memory()) == (1, 0)
    write(limits.CONTROL_GROUPS / "memory/job", memory__usage_in_bytes=2_000)
    assert limits.free_memory() == 4_000


def test_a_container_that_sees_only_the_root_of_its_groups(machine):
    machine("0::/kubepods/pod1")
    write(limits.CONTROL_GROUPS, cpu__max="200000 100000", memory__max=1_000, memory__current=400)
    assert (limits.cores(), limits.free_memory()) == (2, 600)


def test_a_system_without_control_groups(machine):
    assert (limits.cores(), limits.free_memory()) == (8, 64_000_000 * 1024)


OPTIONS = """
import jax
from purecc4.train import devices
devices.fix_options()
print(jax.random.uniform(jax.random.key(0), (3,)).tolist(), jax.numpy.arange(2) + jax.numpy.zeros((2, 2)))
"""


def test_options_of_jax_do_not_change_random_numbers():
    """Whatever the environment variables are. The message names those that have no effect."""
    names = {"THREEFRY_PARTITIONABLE": "0", "DEFAULT_PRNG_IMPL": "rbg", "ENABLE_X64": "1"}
    names |= {"NUMPY_DTYPE_PROMOTION": "strict", "NUMPY_RANK_PROMOTION": "raise"}
    said = []
    for variables in ({}, {f"JAX_{name}": value for name, value in names.items()}):
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | variables
        ended = subprocess.run([sys.executable, "-c", OPTIONS], env=env, capture_output=True, text=True, check=True)
        said.append(ended.stdout)
        assert all(f"JAX_{name} has no effect" in ended.stderr for name in names) == bool(variables)
    assert said[0] == said[1]


def test_random_numbers_are_those_of_the_published_results():
    """The options of every result: partitionable threefry2x32."""
    assert jax.random.key_data(jax.random.key(7)).tolist() == [0, 7]
    assert jax.random.bits(jax.random.key(7), (3,)).tolist() == [2895194379, 4185947648, 1300703658]


def test_without_a_home_folder_there_is_no_cache(monkeypatch, capsys):
    def lost():
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lost)
    devices.use_compile_cache()
    assert "No home folder" in capsys.readouterr().err


def test_a_large_prime_number_of_runs_has_a_device_per_core(monkeypatch):
    monkeypatch.setattr(limits, "cores", lambda: 4)
    assert devices.runs_at_a_time(999_983) == devices.runs_at_a_time(10**12 + 1) == 4
