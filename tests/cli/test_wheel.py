"""The package as others install it: a wheel in an environment of its own, used from another folder."""

import os
import shlex
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "python {algos}/ippo.py --name tiny --arm C00 C11 --seeds 1 2 --num-envs 2 --num-steps 20 --num-minibatches 4 "
    "--hidden 32 --total-timesteps 120",
    "purecc4 evaluate runs/tiny --reds fsm --episodes 2 --num-steps 12 --policies sleep",
    "purecc4 report runs/tiny",
    "purecc4 watch runs/tiny --arm C11 --seed 1 --num-steps 12",
    "purecc4 export runs/tiny --arm C11 --seed 1 --to exported",
)
WRITTEN = ("runs/tiny/evaluation.csv", "runs/tiny/report/report.md", "runs/tiny/watch.html", "exported/submission.py")


def output(*command, cwd: Path | None = None) -> str:
    """What a command prints. Its errors fail the test."""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The programs of a fresh environment: the wheel, and beside it the libraries of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    output(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    (wheel,) = folder.glob("purecc4-*.whl")
    venv.create(folder / "env")
    python = folder / "env/bin/python"
    output(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("env/lib/python*/site-packages")
    (packages / "libraries.pth").write_text("\n".join({sysconfig.get_path(name) for name in ("purelib", "platlib")}))
    return python.parent


@pytest.mark.slow
def test_an_installed_wheel_trains_evaluates_and_reports_from_any_folder(programs, tmp_path):
    found = output(programs / "python", "-c", "import purecc4, envs, algos; print(algos.__path__[0])", cwd=tmp_path)
    algos = Path(found.strip())
    assert algos.is_relative_to(programs.parent)
    for command in COMMANDS:
        program, *args = shlex.split(command.format(algos=algos))
        output(programs / program, *args, cwd=tmp_path)
    assert [name for name in WRITTEN if not (tmp_path / name).exists()] == []
