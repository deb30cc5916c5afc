"""CybORG with its slow functions replaced plays the same episodes. Needs a checkout of CybORG and minutes of time."""

import os
import subprocess
from pathlib import Path

import pytest

from purecc4.cyborg import transfer

EQUAL_SEEDS = Path(__file__).with_name("equal_seeds.py")
NUM_STEPS = 500
SUBMISSION = """
from CybORG.Agents import SleepAgent
from CybORG.Agents.Wrappers import BlueFixedActionWrapper

class Submission:
    NAME = TEAM = TECHNIQUE = "sleep"
    AGENTS = {f"blue_agent_{i}": SleepAgent(f"blue_agent_{i}") for i in range(5)}
    wrap = BlueFixedActionWrapper
"""
needs_cyborg = pytest.mark.skipif(
    "CYBORG_PATH" not in os.environ, reason="needs a checkout of CybORG: CYBORG_PATH, CYBORG_PYTHON"
)


def run(*scripts):
    """Start the scripts in CybORG's Python. Sets of names iterate in the same order in each process."""
    variables = os.environ | {"PYTHONPATH": str(Path(os.environ["CYBORG_PATH"]).resolve()), "PYTHONHASHSEED": "0"}
    command = [os.environ.get("CYBORG_PYTHON", "python3"), *map(str, scripts)]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@needs_cyborg
def test_equal_seeds_give_equal_steps():
    """Five policies against two reds: observations and rewards of all agents, and the state of the random generator."""
    runs = [run(*scripts, EQUAL_SEEDS, NUM_STEPS) for scripts in ((), (transfer.FAST,))]
    reference, fast = (run.communicate() for run in runs)
    assert [run.returncode for run in runs] == [0, 0], reference[1] + fast[1]
    lines = reference[0].splitlines()
    assert len(lines) == 5 * (NUM_STEPS + 1)
    for expected, line in zip(lines, fast[0].splitlines(), strict=True):
        assert line == expected


@pytest.mark.slow
@needs_cyborg
def test_the_challenge_evaluates(tmp_path):
    """The challenge's own evaluation, run as a module. Its example submission has a syntax error."""
    (tmp_path / "submission.py").write_text(SUBMISSION)
    arguments = ["--max-eps", 2, "--seed", 1, tmp_path, tmp_path / "out"]
    evaluation = run(transfer.FAST, "-m", "CybORG.Evaluation.evaluation", *arguments)
    output, errors = evaluation.communicate()
    assert evaluation.returncode == 0, errors
    assert "Average reward is: -" in output


@needs_cyborg
def test_another_cyborg_is_refused(tmp_path):
    """A function that is not the one its replacement was compared with."""
    script = tmp_path / "other.py"
    script.write_text(
        "import fast\n"
        "def step(self): pass\n"
        "fast.SimulationController.step = step\n"
        "try:\n    fast.apply()\n"
        "except RuntimeError as error: print(error)\n"
        "else: print('applied')\n"
    )
    variables = os.environ | {"PYTHONPATH": f"{os.environ['CYBORG_PATH']}{os.pathsep}{transfer.FAST.parent}"}
    python = os.environ.get("CYBORG_PYTHON", "python3")
    done = subprocess.run([python, script], env=variables, capture_output=True, text=True)
    assert done.stdout.startswith("SimulationController.step differs from commit 8c3c50c"), done.stderr
