"""The installed package: a wheel or a checkout in a fresh environment, used from another folder.

The wheel is built here, unless PURECC4_WHEEL names one.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "python -m purecc4.algos.ippo --name tiny --arm C00 C11 --seeds 1 2 --num-envs 2 --num-steps 20 "
    "--num-minibatches 4 --hidden 32 --total-timesteps 120",
    "purecc4 evaluate runs/tiny --reds fsm --episodes 2 --num-steps 12 --policies sleep",
    "purecc4 report runs/tiny",
    "purecc4 watch runs/tiny --arm C11 --seed 1 --num-steps 12",
    "purecc4 export runs/tiny --arm C11 --seed 1 --to exported",
)
WRITTEN = ("runs/tiny/evaluation.csv", "runs/tiny/report/report.md", "runs/tiny/watch.html", "exported/submission.py")


def output(*command, cwd: Path | None = None) -> str:
    """Output of a command. Its errors fail the test."""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(folder: Path, *checkouts: Path) -> Path:
    """A fresh environment that finds libraries in checkouts, as after `pip install -e`, then in that of the tests.

    Returns the folder of its programs.
    """
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    libraries = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (packages / "libraries.pth").write_text("\n".join(map(str, [*checkouts, *libraries])))
    return folder / "bin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The programs of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    if "PURECC4_WHEEL" in os.environ:
        built = Path(os.environ["PURECC4_WHEEL"]).absolute()
    else:
        output(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
        (built,) = folder.glob("purecc4-*.whl")
    programs = environment(folder / "env")
    output(
        sys.executable, "-m", "pip", "--python", programs / "python", "install", "-q", "--no-deps", "--no-index", built
    )
    return programs


@pytest.mark.slow
def test_an_installed_wheel_trains_evaluates_and_reports_from_any_folder(wheel, tmp_path):
    for command in COMMANDS:
        program, *args = shlex.split(command)
        output(wheel / program, *args, cwd=tmp_path)
    assert [name for name in WRITTEN if not (tmp_path / name).exists()] == []


def test_one_version_everywhere():
    """The package, its citation and the newest release of the changelog agree."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == version
    assert re.findall(r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)[0] == version


@pytest.mark.slow
def test_a_wheel_installs_one_package(wheel):
    """`envs` and `algos` of another distribution stay as they are."""
    (packages,) = wheel.parent.glob("lib/python*/site-packages")
    assert {path.name for path in packages.iterdir() if path.is_dir() and path.suffix != ".dist-info"} == {"purecc4"}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["checkout", "wheel"])
def test_folders_of_the_user_with_the_same_names(how, tmp_path, request):
    """A working directory with packages named `envs` and `algos`."""
    for name in ("envs", "algos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported a package of the user')")
    if how == "wheel":
        python = request.getfixturevalue("wheel") / "python"
    else:
        python = environment(tmp_path / "env", ROOT) / "python"
    output(python, "-c", "from purecc4.adapters.pettingzoo import CC4; from purecc4.algos import ippo", cwd=tmp_path)
    assert "C11" in output(python, "-m", "purecc4", "arms", cwd=tmp_path)
