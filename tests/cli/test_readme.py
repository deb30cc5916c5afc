"""Every command and example of the README runs, at small sizes. A command that nothing here knows how to run fails.

The long ones, and those of the pages of folders, are slow tests.
"""

import importlib
import itertools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import equinox as eqx
import jax
import pytest
from packaging.requirements import Requirement
from probe import TINY
from purecc4.envs.cc4.constants import NUM_ACTIONS, NUM_BLUE, NUM_OBS

from purecc4 import arms
from purecc4.__main__ import main
from purecc4.arms import define
from purecc4.cyborg import transfer
from purecc4.play import policies
from purecc4.train.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"(\w+=\S+ )*(python[\d.]*|purecc4 \w+|pip|pytest)\b")


def code_of(page: str) -> tuple[list[tuple[str, str]], list[str]]:
    """The fenced blocks of a page, each with its language, and the code within its prose."""
    spans = re.findall(r"`([^`]+)`", FENCE.sub("", page))
    return FENCE.findall(page), [" ".join(span.split()) for span in spans]


def shell_of(page: str) -> list[str]:
    """The blocks of shell of a page and the commands within its prose."""
    blocks, spans = code_of(page)
    return [text for language, text in blocks if language == "bash"] + sorted(filter(COMMAND.match, set(spans)))


BLOCKS, SPANS = code_of(PAGE)
(DEFINITIONS,) = (text for language, text in BLOCKS if language == "toml")
SHELL = shell_of(PAGE)
FURTHER = [text for page in ("algos", "purecc4") for text in shell_of((ROOT / page / "README.md").read_text("utf-8"))]
LONG = (
    "--name strong",
    "results/strong",
    "--name notebook_arms",
    "--name study",
    "results/study",
    "--name calm",
    "tests/distribution.py",
    "tests/replay.py",
)
SLOW = {text for text in SHELL if any(part in text for part in LONG)} | set(FURTHER) - set(SHELL)

TRAINING = f"--arm C00 C11 --seeds 42 142 {TINY}"
EVALUATION = "--reds fsm discovery --episodes 3 --num-steps 12"
PROGRAMS = {
    r"algos/\w+\.py": TRAINING,
    r"purecc4 (arms|compare|export|report|track)": "",
    r"purecc4 bench": "--quick --figures launch_s",
    r"purecc4 (evaluate|nudge)": EVALUATION,
    r"purecc4 verify": "--arm C00 --seeds 142 --episodes 2",
    r"purecc4 watch": "--num-steps 12",
    r"tests/replay\.py": "--first 1",
    r"tests/distribution\.py": "--episodes 16",
}
"""Python programs, and the flags behind the written ones that make them short (of two, the last counts).

They have the sizes of other tests, so that all share their compiled programs."""


def simple_commands(text: str) -> Iterator[list[str]]:
    """The words of each command in lines of shell."""
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for is_operator, words in itertools.groupby(lexer, lambda word: set(word) <= set("();<>|&")):
            if not is_operator:
                yield list(words)


def run_program(words: list[str]) -> None:
    """Run a Python program in this process, at a small size."""
    while "=" in words[0]:
        words = words[1:]
    name, args = words[1] if words[0] == "python" else " ".join(words[:2]), words[2:]
    (small,) = (flags for pattern, flags in PROGRAMS.items() if re.fullmatch(pattern, name))
    if "--define" in args and name.endswith(".py"):
        small += " --arm C00 calm"
    args = [str(ROOT / "tests/golden") if name.startswith("tests/") and word == "DIR" else word for word in args]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*name.split(), *args, *small.split()])
        assert not (run_file(ROOT / name) if name.endswith(".py") else main())


def run_file(path: Path) -> str | int | None:
    """Run a file as a script. Returns its exit status."""
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        return end.code


def run_on_a_trained_run(words: list[str]) -> None:
    """Run a program on a run folder; one that the page only speaks of is a copy of runs/NAME."""
    for run in (Path(word) for word in words if word.startswith("runs/")):
        if not run.exists():
            shutil.copytree("runs/NAME", run)
        if "report" in words and not (run / "evaluation.csv").exists():
            run_program(["purecc4", "evaluate", str(run)])
    run_program(words)


def refuse_without_cyborg(words: list[str]) -> None:
    """Needs CybORG, as in `test_cyborg_block`: here its flags are read, and the missing checkout is said."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as refusal:
        patch.setattr(sys, "argv", words)
        main()
    assert "is no CybORG checkout" in refusal.value.code and "\n" not in refusal.value.code


def look_up_extras(words: list[str]) -> None:
    """Installs this project, from the network: its extras exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(Requirement(f"x{words[-1][1:]}").extras) <= set(project["optional-dependencies"])


def look_up_packages(words: list[str]) -> None:
    """Installs CybORG's packages, from the network: all that `transfer` asks for are among them."""
    assert set(shlex.split(transfer.PACKAGES)) <= set(words)
    assert all(Requirement(word).name for word in words[words.index("install") + 1 :])


def look_up_tests(words: list[str]) -> None:
    """This very suite: the files and markers that it is asked for exist."""
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    for option, word in itertools.pairwise([*words, ""]):
        assert option != "-m" or any(marker.startswith(f"{word}:") for marker in markers)
        assert not option.startswith("tests/") or (ROOT / option).exists()


def leave_to_cyborg(words: list[str]) -> None:
    """Needs CybORG, its packages or a folder of its own: run by `test_cyborg_block`, except for the installation."""


WAYS: dict[str, Callable[[list[str]], None]] = {
    r"pip install -e \.\S*": look_up_extras,
    r"\S+/bin/pip install .+": look_up_packages,
    r"(\w+=\S+ )*pytest( .+)?": look_up_tests,
    r"(python3\.11 -m venv \S+)|(\w+=\S+)|(cd \S+)|(\$P -m CybORG\.Evaluation\.evaluation .+)": leave_to_cyborg,
    r"purecc4 transfer .+": refuse_without_cyborg,
    r"(\w+=\S+ )*(python|purecc4) \S+.* runs/\w+( .+)?": run_on_a_trained_run,
    rf"(\w+=\S+ )*(python )?({'|'.join(PROGRAMS)})( .+)?": run_program,
}
"""How the commands that match are run, or why not; the first that matches counts."""


def way_of(words: list[str]) -> Callable[[list[str]], None]:
    """How a command is run. ValueError if nobody knows."""
    for pattern, way in WAYS.items():
        if re.fullmatch(pattern, " ".join(words)):
            return way
    raise ValueError(f"the README has a command that tests/cli/test_readme.py cannot run: {' '.join(words)}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a trained run."""
    home = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        run_program(shlex.split("python algos/ippo.py --arm C00 C11 miss --name NAME"))
    return home / "runs/NAME"


@pytest.fixture
def home(trained, tmp_path, monkeypatch):
    """An own current folder with runs/NAME, results and mine.toml; stand-ins for services that metrics are sent to."""
    shutil.copytree(trained, tmp_path / "runs/NAME")
    (tmp_path / "results").symlink_to(ROOT / "results")
    (tmp_path / "mine.toml").write_text(DEFINITIONS)
    monkeypatch.chdir(tmp_path)
    run = types.SimpleNamespace(log=lambda *args, **settings: None, finish=lambda: None)
    for service in ("wandb", "trackio"):
        library = types.ModuleType(service)
        library.init = lambda **settings: run
        monkeypatch.setitem(sys.modules, service, library)
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, marks=pytest.mark.slow if text in SLOW else ()) for text in dict.fromkeys(SHELL + FURTHER)],
    ids=lambda text: " ".join(text.split())[:60],
)
def test_command(text, home):
    for words in simple_commands(text):
        way_of(words)(words)


def test_no_command_escapes():
    assert {language for language, _ in BLOCKS} == {"bash", "python", "toml", "text"}
    assert len(SHELL) > 20 and all(next(simple_commands(text)) for text in SHELL)
    for unknown in ("purecc4 dance", "make", "python algos/ippo", "curl x | sh", "ruff check ."):
        with pytest.raises(ValueError, match="cannot run"):
            [way_of(words) for words in simple_commands(unknown)]


def test_examples(monkeypatch, tmp_path):
    """The Python blocks, one after another; then a step against the red that they made, and a network of their arm.

    Their arm and red are those that the TOML block defines.
    """
    (tmp_path / "mine.toml").write_text(DEFINITIONS)
    own = define.read(tmp_path / "mine.toml")
    monkeypatch.setitem(arms.ARMS, "calm", None)
    names = {}
    for language, text in BLOCKS:
        if language == "python":
            exec(text, names)
    assert names["obs"].flat.shape == (NUM_BLUE, NUM_OBS) and arms.ARMS["calm"] == own.arms["calm"]
    key_step, key_arm = jax.random.split(jax.random.key(1))
    params = names["params"]
    assert eqx.tree_equal(names["loud"], own.reds["loud"])
    _, state, reward, *_ = names["step"](key_step, names["state"], names["actions"], params)
    assert reward <= 0 and state.step == 2
    calm = jax.tree.map(lambda x: x[1], names["arm"])
    assert jax.jit(arms.sample)(key_arm, calm, params).restore_cost == 0.5


def test_algorithms_offer_what_the_page_asks_for():
    names = sorted(path.stem for path in (ROOT / "algos").glob("*.py"))
    assert names == sorted(policies.ALGORITHMS)
    for name in names:
        module = importlib.import_module(f"purecc4.algos.{name}")
        assert issubclass(module.Config, Settings) and module.Config.algorithm == name and callable(module.make_train)
        methods = ("init_kwargs", "initial_carry", "logits", "update_carry")
        assert all(hasattr(module.ActorCritic, method) for method in methods)


@pytest.mark.parametrize("line", [span for span in SPANS if span.startswith("from ")])
def test_adapters(line):
    pytest.importorskip(line.split()[1].rpartition(".")[2])
    names = {}
    exec(line, names)
    for call in (span for span in SPANS if span.startswith("CC4(")):
        assert eval(call, names).action_space("blue_agent_0").n == NUM_ACTIONS


def test_links_and_extras():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert links and all((ROOT / link).exists() for link in links)
    for extra in re.findall(r"\.\[(\w+)\]", PAGE):
        look_up_extras([f".[{extra}]"])


@pytest.mark.slow
@pytest.mark.skipif("CYBORG_PATH" not in os.environ, reason="needs a checkout of CybORG: CYBORG_PATH, CYBORG_PYTHON")
def test_cyborg_block(home):
    """All of the block but the installation, by the shell; CYBORG_PYTHON needs Ray, too."""
    (text,) = (text for text in SHELL if "CybORG.Evaluation" in text)
    text = re.sub(r"^python3\.11 -m venv .*\n", "", text, flags=re.M)
    text = re.sub(r"\S*\.\./cyborg-venv/bin/python", os.environ.get("CYBORG_PYTHON", "python3"), text)
    text = text.replace("../cage-challenge-4", os.environ["CYBORG_PATH"]).replace("/tmp/out", str(home / "out"))
    text = re.sub(r"--episodes \d+", "--episodes 2 --episodes-here 4 --num-steps 20", text)
    text = re.sub("^purecc4", f"{shlex.quote(sys.executable)} -m purecc4", text, flags=re.M)
    done = subprocess.run(["bash", "-ec", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert re.search(r"Average reward is: -\d+", done.stdout) and "2 episodes in CybORG, 4 here" in done.stdout


@pytest.mark.slow
def test_all_figures_of_the_bench(home):
    done = subprocess.run([sys.executable, "-m", "purecc4", "bench", "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert re.search(r"^train_steps_per_s ", done.stdout, re.M)
