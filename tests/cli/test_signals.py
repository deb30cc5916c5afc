"""Signals: exit status of a command, before, during and after its imports."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from purecc4 import command

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command(number, status):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        command.run("name", lambda: os.kill(os.getpid(), number) or time.sleep(10))
    assert ended.value.code == status and signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_python_drops_is_sent_again(capfd):
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
    """Importing the package as a library leaves signal handlers alone: see `test_signals_end_a_command`."""
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
def test_a_swallowed_signal_still_ends_a_command(number, status):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", SWALLOW], stdout=subprocess.PIPE, env=env)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(30) == status
