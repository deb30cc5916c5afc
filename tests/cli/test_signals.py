"""Signals and the output: exit status of a command, before, during and after its imports."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from purecc4 import command
from purecc4.errors import UserError

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
    [[f"algos/{name}.py"] for name in ("ippo", "ippo_history", "ippo_notebook", "ippo_rnn", "mappo", "pgpe")]
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
from purecc4.errors import UserError
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


def started(*args: str, **kw) -> subprocess.CompletedProcess:
    """A process of this Python, with its errors as text."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | kw.pop("env", {})
    return subprocess.run([sys.executable, *args], stderr=subprocess.PIPE, text=True, env=env, timeout=60, **kw)


PRINT = "from purecc4 import command; command.run('name', lambda: print({!r}))"


def test_a_full_or_closed_output_is_one_line():
    with open("/dev/full", "w") as full:
        for args in (["-c", PRINT.format("x")], ["-c", PRINT.format("x" * 100_000)], ["-m", "purecc4", "--help"]):
            ended = started(*args, stdout=full)
            assert ended.returncode == 1 and "cannot read or write the output: No space left" in ended.stderr
            assert ended.stderr.count("\n") == 1
    shell = f'{sys.executable} -c "{PRINT.format("x")}" >&-'
    ended = subprocess.run(
        shell, shell=True, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (
        ended.returncode == 1
        and ended.stderr == "name: standard output is closed: redirect it to a file or to /dev/null.\n"
    )


def test_characters_that_the_output_lacks_are_replaced():
    ended = started("-c", PRINT.format("±\udcff"), stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "??\n", "")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.EROFS])
def test_errors_of_the_system_are_one_line(number):
    def main():
        raise OSError(number, os.strerror(number), "x" * 5000)

    with pytest.raises(SystemExit, match=f"name: cannot read or write x+...: {os.strerror(number)}") as ended:
        command.run("name", main)
    assert len(str(ended.value)) < 400


def test_other_errors_are_bugs_and_keep_their_traceback():
    with pytest.raises(FileNotFoundError):
        command.run("name", lambda: os.stat("/nowhere"))


@pytest.mark.parametrize("args", [["--arm", "C00", "--arm", "C11"], ["--env-steps=1", "--env_steps", "2"]])
def test_a_flag_given_twice_is_refused(args):
    with pytest.raises(UserError, match=r"--(arm|env-steps) is given twice"):
        command.refuse_repeated(args)
    command.refuse_repeated([args[0], "C00", "C11", "--reds", "fsm"])


NO_PLUGIN = "from purecc4 import command; import jax; command.run('name', jax.devices)"


@pytest.mark.parametrize(("platform", "reason"), [("nonsense", "Unable"), ("rocm", "JAX_PLATFORMS|Unable")])
def test_a_platform_without_a_device_is_one_line(platform, reason):
    """JAX raises a RuntimeError for an unknown platform, and an empty AssertionError without the platform's plugin."""
    ended = started("-c", NO_PLUGIN, env={"JAX_PLATFORMS": platform})
    assert ended.returncode == 1 and re.match(f"name: JAX cannot start: ({reason})", ended.stderr)
    assert ended.stderr.count("\n") == 1


def test_help_in_a_narrow_terminal_and_without_docstrings():
    ended = started("-OO", "-m", "purecc4", "verify", "--help", env={"COLUMNS": "1"}, stdout=subprocess.PIPE)
    assert ended.returncode == 0 and "--episodes" in ended.stdout
