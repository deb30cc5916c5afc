"""Every command, example and link of the README and of docs/ works; commands run at small sizes.

A command that nothing here knows how to run fails. All are slow tests.
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
from typing import Any

import equinox as eqx
import jax
import pytest
from packaging.requirements import Requirement
from probe import TINY

from purecc4 import arms
from purecc4.__main__ import main
from purecc4.arms import define
from purecc4.cyborg import transfer
from purecc4.envs.cc4.constants import NUM_ACTIONS
from purecc4.play import policies
from purecc4.train.settings import Settings

ROOT = Path(__file__).parents[2]
README, EXTENDING = ROOT / "README.md", ROOT / "docs/extending.md"
PAGES = {path: path.read_text("utf-8") for path in (README, *sorted((ROOT / "docs").glob("*.md")))}
LINKING = [
    *ROOT.glob("*.md"),
    *(page for room in ("docs", "algos", "envs", "purecc4", "results") for page in (ROOT / room).rglob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"(\w+=\S+ )*(python[\d.]*|purecc4 \w+|pip|pytest)\b")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return [text for found, text in FENCE.findall(PAGES[page]) if found == language]


def spans(page: Path) -> list[str]:
    """The code within the prose of a page."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", PAGES[page]))]


SHELL = {page: blocks(page, "bash") + sorted(filter(COMMAND.match, set(spans(page)))) for page in PAGES}
(DEFINITIONS,) = blocks(EXTENDING, "toml")

TRAINING = f"--arm C00 C11 --seeds 42 142 {TINY}"
EVALUATION = "--reds fsm discovery --episodes 3 --num-steps 12"
PROGRAMS = {
    r"algos/(?!pgpe)\w+\.py": TRAINING,
    r"algos/pgpe\.py": "--arm C00 --seeds 42 142 --num-envs 2 --num-steps 20 --total-timesteps 120",
    r"examples/dictionary_agent\.py": "--episodes 2 --num-steps 20",
    r"examples/perfect_sight\.py": f"--updates 1 --num-envs 4 --num-steps 20 --run {ROOT / 'results/champion'}",
    r"purecc4 (arms|compare|export|report|track)": "",
    r"purecc4 bench": "--quick --figures launch_s",
    r"purecc4 (evaluate|nudge)": EVALUATION,
    r"purecc4 verify": "--arm C00 --seeds 142 --episodes 2",
    r"purecc4 watch": "--num-steps 12",
    r"purecc4 (replay|one-step)": "--first 1",
    r"purecc4 distribution": "--episodes 16",
}
"""Programs, and the flags that replace or join the written ones to make them short.

They have the sizes of other tests, so that all share their compiled programs."""


def simple_commands(text: str) -> Iterator[list[str]]:
    """The words of each command in lines of shell."""
    for line in text.replace("\\\n", " ").splitlines():
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
        small = small.replace("--arm C00 C11", "--arm C00 calm")
    if re.fullmatch(r"purecc4 (replay|one-step|distribution)", name):
        args = [str(ROOT / "tests/golden") if word == "DIR" else word for word in args]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*name.split(), *replaced(args, small.split())])
        assert not exit_status(ROOT / name if name.endswith(".py") else None)


def replaced(args: list[str], flags: list[str]) -> list[str]:
    """Arguments with some flags, and their values, in place of their own."""
    kept, keep = [], True
    for word in args:
        keep = word.replace("_", "-") not in flags if word.startswith("--") else keep
        kept += [word] * keep
    return kept + flags


def exit_status(path: Path | None) -> str | int | None:
    """Run a file as a script, or the command `purecc4`. Returns its exit status."""
    try:
        runpy.run_path(str(path), run_name="__main__") if path else main()
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
    """Needs CybORG, as in `test_cyborg`: here its flags are read, and the missing checkout is reported."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as refusal:
        patch.setattr(sys, "argv", words)
        main()
    assert "is no CybORG checkout" in refusal.value.code


def look_up_extras(words: list[str]) -> None:
    """Installs this project, from the network: its extras exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(Requirement(f"x{words[-1][1:]}").extras) <= set(project["optional-dependencies"])


def look_up_packages(words: list[str]) -> None:
    """Installs CybORG's packages, from the network: all that `transfer` asks for are among them."""
    assert set(shlex.split(transfer.PACKAGES)) <= set(words)


def look_up_tests(words: list[str]) -> None:
    """This very suite: the files that it is asked for exist."""
    assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))


def leave_to_torch(words: list[str]) -> None:
    """Needs PyTorch: run by tests/play/test_adapters.py."""


def leave_to_cyborg(words: list[str]) -> None:
    """Needs CybORG and its packages: run by `test_cyborg`, except for the installation."""


WAYS: dict[str, Callable[[list[str]], None]] = {
    r"pip install -e \.\S*": look_up_extras,
    r"\S+/bin/pip install .+": look_up_packages,
    r"(\w+=\S+ )*pytest( .+)?": look_up_tests,
    r"(python3\.11 -m venv \S+)|(\w+=\S+)|(cd \S+)|(\$P -m CybORG\.Evaluation\.evaluation .+)": leave_to_cyborg,
    r"python examples/torch_ppo\.py": leave_to_torch,
    r"purecc4 (transfer|leaderboard) .+": refuse_without_cyborg,
    r"(\w+=\S+ )*(python|purecc4) \S+.* runs/\w+( .+)?": run_on_a_trained_run,
    rf"(\w+=\S+ )*(python )?({'|'.join(PROGRAMS)})( .+)?": run_program,
}
"""Runner of each kind of command, or the reason for none; the first match counts."""


def way_of(words: list[str]) -> Callable[[list[str]], None]:
    """Runner of a command. Raises ValueError for an unknown one."""
    for pattern, way in WAYS.items():
        if re.fullmatch(pattern, " ".join(words)):
            return way
    raise ValueError(f"tests/cli/test_readme.py cannot run this command of a page: {' '.join(words)}")


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


def name_of(page: Path) -> str:
    """Name of a page in the ids of tests; `-k "not docs_"` leaves the README."""
    return page.stem if page == README else f"docs_{page.stem}"


def commands() -> Iterator[Any]:
    """Every block of shell and command of the pages, once, named for its page."""
    seen = set()
    for page, texts in SHELL.items():
        for text in texts:
            if text not in seen:
                seen.add(text)
                yield pytest.param(text, id=f"{name_of(page)}: {' '.join(text.split())[:60]}")


@pytest.mark.slow
@pytest.mark.parametrize("text", list(commands()))
def test_command(text, home):
    for words in simple_commands(text):
        way_of(words)(words)


@pytest.mark.parametrize("unknown", ["purecc4 dance", "make", "python algos/ippo", "curl x | sh", "ruff check ."])
def test_no_command_escapes(unknown):
    with pytest.raises(ValueError, match="cannot run"):
        [way_of(words) for words in simple_commands(unknown)]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_examples(page, monkeypatch, tmp_path):
    """The Python blocks of a page run, one after another. Those of docs/extending.md define what its TOML does."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "mine.toml").write_text(DEFINITIONS)
    own = define.read(tmp_path / "mine.toml")
    monkeypatch.setitem(arms.ARMS, "calm", None)
    names = {}
    # the check for used keys reports a nested vmap of an update, which uses each once
    with jax.debug_key_reuse(False):
        for text in blocks(page, "python"):
            exec(text, names)
    if page == EXTENDING:
        assert arms.ARMS["calm"] == own.arms["calm"] and eqx.tree_equal(names["loud"], own.reds["loud"])


def test_algorithms_offer_what_extending_asks_for():
    names = sorted(path.stem for path in (ROOT / "algos").glob("*.py"))
    assert names == sorted(policies.ALGORITHMS)
    for name in names:
        module = importlib.import_module(f"purecc4.algos.{name}")
        assert issubclass(module.Config, Settings) and module.Config.algorithm == name and callable(module.make_train)
        methods = ("init_kwargs", "initial_carry", "logits", "update_carry")
        assert all(hasattr(getattr(module, policies.ALGORITHMS[name]), method) for method in methods)


@pytest.mark.parametrize("line", sorted({span for page in PAGES for span in spans(page) if span.startswith("from ")}))
def test_adapters(line):
    pytest.importorskip(line.split()[1].rpartition(".")[2])
    names = {}
    exec(line, names)
    (call,) = (span for page in PAGES for span in spans(page) if span.startswith("CC4("))
    assert eval(call, names).action_space("blue_agent_0").n == NUM_ACTIONS


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    """Linked files exist, and have the linked headings."""
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", FENCE.sub("", page.read_text("utf-8"))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.slow
@pytest.mark.skipif("CYBORG_PATH" not in os.environ, reason="needs a checkout of CybORG: CYBORG_PATH, CYBORG_PYTHON")
def test_cyborg(home):
    """The blocks of docs/cyborg.md but the installation, by the shell; CYBORG_PYTHON needs Ray, too."""
    _, *texts = blocks(ROOT / "docs/cyborg.md", "bash")
    text = re.sub(r"\S*\.\./cyborg-venv/bin/python", os.environ.get("CYBORG_PYTHON", "python3"), "".join(texts))
    text = text.replace("../cage-challenge-4", os.environ["CYBORG_PATH"]).replace("/tmp/out", str(home / "out"))
    text = re.sub(r"--episodes \d+", "--episodes 2 --episodes-here 4 --num-steps 20", text)
    text = re.sub("^purecc4", f"{shlex.quote(sys.executable)} -m purecc4", text, flags=re.M)
    done = subprocess.run(["bash", "-ec", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Average reward is: -\d+", done.stdout)


@pytest.mark.slow
def test_all_figures_of_the_bench(home):
    done = subprocess.run([sys.executable, "-m", "purecc4", "bench", "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^train_steps_per_s ", done.stdout, re.M)
