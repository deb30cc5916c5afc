"""A lock held by another process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    """(task) starts a process that holds the lock of runs/run."""
    processes = []

    def hold(task):
        args = [sys.executable, "-c", HOLD, str(tmp_path / "runs/run"), task]
        process = subprocess.Popen(
            args, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        )
        processes.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()
