"""Play one policy here and in CybORG, and say how far apart the two simulators are.

    purecc4 transfer --cyborg ../cage-challenge-4 --cyborg-python ../cyborg-venv/bin/python \\
        runs/first --arm C11 --seed 42 --episodes 30

CybORG plays in worker processes of its own interpreter, because it needs other versions of the libraries than JAX does.
A trained policy plays there through its NumPy export. The printed margin is the smallest one within which
two one-sided tests call the means equivalent at the 5 % level.
"""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from purecc4 import files, limits
from purecc4.cyborg import export
from purecc4.cyborg.cache import EpisodeCache
from purecc4.errors import UserError, user_file
from purecc4.play.episodes import build, stack_params
from purecc4.play.policies import Policy, scripted, trained
from purecc4.play.selection import One
from purecc4.play.tables import ACTIONS, BASELINE_SEED, EXECUTED, MODES, OVERFLOW, SUBMITTED, VALUES, Cell, outgrew
from purecc4.report.statistics import CONFIRM_MEAN, smallest_margin, tost, welch
from purecc4.train import devices
from purecc4.train.run_reader import REWARD_TERMS

VERSION = "4.0"
WORKER = export.FILES / "play.py"
FAST = Path(__file__).parent / "fast.py"
HOLD = ("red_sessions", "root_hosts")
PACKAGES = '"numpy<2" networkx==3.2 gym==0.26.2 gymnasium pygame prettytable matplotlib'
"""What CybORG 4.0 needs to play."""

Table = dict[str, Float[np.ndarray, "_"]]
"""tables.VALUES, from CybORG all but `overflow`, by name: a value per episode; fewer from CybORG if it crashes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(One):
    """Which policy, and where CybORG is."""

    policy: Literal["sleep", "random"] | None = None
    """A policy that needs no checkpoint, in place of a run folder."""
    cyborg: Path = Path("../cage-challenge-4")
    """Checkout of cage-challenge-4."""
    cyborg_python: str = "python3"
    """Python interpreter that can import CybORG."""
    fast: bool = False
    """Replace CybORG's slow functions at run time. Equal seeds give equal episodes, in less than a fifth of the time.
    Leave it out for final figures, which come from the untouched reference."""
    red: Literal["fsm", "discovery", "sleep"] = "fsm"
    """Red agent; CybORG has only these."""
    episodes: int = 30
    """Episodes in CybORG."""
    episodes_here: int = 300
    """Episodes in this simulator. They are cheap, and more of them make the interval narrower."""
    num_steps: int = 500
    """Length of an episode in steps. Both simulators are compared up to CybORG's last step, which is one earlier."""
    eval_seed: int = 1000
    """Seed of the first episode in CybORG, and of all episodes here."""
    workers: int = limits.cores()
    """Processes that play CybORG."""
    to: Path | None = None
    """CSV file for the episodes in CybORG. Those that it has already are not played again: take a new file for a
    network that was trained anew under the same name."""
    margin: float = CONFIRM_MEAN
    """Gap that would matter, in points per episode. It is tested beside the smallest margin."""


def run(config: Config) -> None:
    """Play in both simulators and print how far apart they are."""
    devices.use_compile_cache()
    check(config)
    lock = files.locked(config.to.parent, "transfer") if config.to else nullcontext()
    with lock, tempfile.TemporaryDirectory() as folder:
        policy, name, cell = prepare(config, Path(folder) / "policy")
        theirs, ours = play_both(config, policy, name, EpisodeCache(config.to, cell, config.num_steps))
    print(report(str(cell), config, theirs, ours))


def check(config: Config) -> None:
    """Raises UserError, with one sentence, if settings or checkpoint are wrong, or CybORG cannot be played."""
    if (config.run is None) == (config.policy is None):
        raise UserError("give either a run folder with --arm and --seed, or --policy.")
    if min(config.episodes, config.episodes_here) < 2 or config.workers < 1:
        raise UserError("--episodes and --episodes-here must be at least 2, --workers at least 1.")
    if not (math.isfinite(config.margin) and config.margin > 0):
        raise UserError(f"--margin must be above 0: {config.margin}.")
    if not 0 <= config.eval_seed < 2**31:
        raise UserError("--eval-seed must be from 0 to 2147483647.")
    stack_params([config.red], config.num_steps)
    if config.run:
        config.find()
    check_cyborg(config.cyborg)
    check_python(config)


def check_python(config: Config) -> None:
    """Raises UserError, with one sentence, if the interpreter cannot import CybORG."""
    if shutil.which(config.cyborg_python) is None:
        raise UserError(f"there is no interpreter {config.cyborg_python}: give --cyborg-python one.")
    try:
        with CyborgWorkers(config, "sleep", [()]) as workers:
            if list(workers.lines()) != [{"ready": True}]:
                raise UserError(f"{config.cyborg_python} did not run {WORKER.name}")
    except UserError as error:
        raise UserError(
            f"{error}; give --cyborg-python the Python of a virtual environment with  pip install {PACKAGES}"
        ) from error


def check_cyborg(folder: Path) -> None:
    """Raises UserError, with one sentence, if the folder is no checkout of CybORG 4.0."""
    path = folder / "CybORG" / "version.txt"
    if not path.is_file():
        raise UserError(f"{folder} is no CybORG checkout: give --cyborg the folder of cage-challenge-4.")
    with user_file(path):
        version = path.read_text().strip()
    if version != VERSION:
        raise UserError(
            f"{folder} is CybORG {version}, but CAGE Challenge 4 needs {VERSION}: give --cyborg that version."
        )


def prepare(config: Config, folder: Path) -> tuple[Policy, str, Cell]:
    """The policy here, what the worker calls it (exported to `folder` if it is a trained one), and its cell."""
    if config.policy:
        return scripted(config.policy), config.policy, Cell(config.policy, BASELINE_SEED, 0, config.red, MODES[0])
    arm, seed, env_steps, path = config.find()
    export.write(folder, path, config.mode)
    cell = Cell(arm, seed, env_steps, config.red, config.mode)
    return trained(path, greedy=config.mode == "greedy"), str(folder), cell


def play_both(config: Config, policy: Policy, name: str, kept: EpisodeCache) -> tuple[Table, Table]:
    """Episodes in CybORG, those that were kept among them, and here."""
    seeds = range(config.eval_seed, config.eval_seed + config.episodes)
    missing, crashed = sorted(set(seeds) - set(kept.own["episode"])), 0
    shares = [share for first in range(config.workers) if (share := missing[first :: config.workers])]
    with CyborgWorkers(config, name, shares) as workers:
        ours = simulate(config, policy)
        for episode in tqdm(workers.lines(), total=len(missing), unit="episode", desc="CybORG"):
            if "crash" in episode:
                crashed += 1
            else:
                kept.add(episode)
    theirs = kept.values(seeds)
    if crashed:
        tqdm.write(f"CybORG itself crashed in {crashed} episodes, which are left out.")
    if len(theirs["return"]) < 2:
        raise UserError("CybORG finished fewer than two episodes: play more.")
    return theirs, ours


class CyborgWorkers:
    """Processes that play CybORG, each its share of the seeds; all write to one pipe, a line of JSON per episode."""

    def __init__(self, config: Config, policy: str, shares: Sequence[Sequence[int]]):
        self.config, self.policy, self.shares = config, policy, shares

    def __enter__(self) -> "CyborgWorkers":
        variables = os.environ | {"PYTHONPATH": str(self.config.cyborg.resolve()), "OMP_NUM_THREADS": "1"}
        scripts = [FAST, WORKER] if self.config.fast else [WORKER]
        arguments = [*scripts, self.policy, self.config.red, self.config.num_steps]
        command = [self.config.cyborg_python, *map(str, arguments)]
        self.errors = tempfile.TemporaryFile("w+")
        self.pipe, write = os.pipe()
        streams = {"stdin": subprocess.DEVNULL, "stdout": write, "stderr": self.errors}
        self.processes = [
            subprocess.Popen([*command, *map(str, seeds)], env=variables, **streams) for seeds in self.shares
        ]
        os.close(write)
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.errors.close()

    def lines(self) -> Iterator[dict]:
        """What the workers print, as they print it. UserError, with a worker's last line of errors, if one fails."""
        with os.fdopen(self.pipe) as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise UserError(f"CybORG failed: its process printed {line.strip()[:80]!r}") from error
        if any([process.wait() for process in self.processes]):
            self.errors.seek(0)
            said = self.errors.read().strip() or "its process ended without a message"
            raise UserError(f"CybORG failed: {said.splitlines()[-1]}")


def simulate(config: Config, policy: Policy) -> Table:
    """All episodes in this simulator, up to where CybORG ends. UserError if one of them outgrew its tables."""
    params = stack_params([config.red], config.num_steps)
    values = build(config.num_steps - 1)(policy, params, np.uint32(config.eval_seed), np.arange(config.episodes_here))
    ours = dict(zip(VALUES, np.asarray(values, float)[0].T, strict=True))
    if count := int((ours[OVERFLOW] > 0).sum()):
        raise UserError(outgrew(count))
    return ours


def report(title: str, config: Config, theirs: Table, ours: Table) -> str:
    """The gaps of return, its parts and red's final hold with their tests, then both action profiles."""
    counts = len(theirs["return"]), len(ours["return"])
    lines = [
        f"{title}: {counts[0]} episodes in CybORG, {counts[1]} here, {config.num_steps - 1} steps each.",
        "",
        f"{'':14}{'CybORG':>9}{'here':>9}{'gap':>8}{'95 % interval':>19}{'p':>7}{'margin':>8}"
        f"{f'TOST p, {config.margin:g}':>14}",
    ]
    for name in ("return", *REWARD_TERMS, *HOLD):
        a, b = ours[name], theirs[name]
        found = welch(a, b)
        line = (
            f"{name:14}{b.mean():>9.1f}{a.mean():>9.1f}{found.gap:>+8.1f}{f'{found.low:.1f} to {found.high:.1f}':>19}"
            f"{found.p:>7.3f}{smallest_margin(a, b):>8.1f}"
        )
        lines.append(line if name in HOLD else f"{line}{tost(a, b, config.margin):>14.4f}")
    return "\n".join([*lines, "", *profile(theirs, ours)])


def profile(theirs: Table, ours: Table) -> list[str]:
    """Of each kind of action: share of the submitted ones in per cent, and how many took effect in an episode."""
    lines = [
        f"{'':20}{'submitted, %':>27}{'took effect, per episode':>33}",
        f"{'':20}" + f"{'CybORG':>11}{'here':>8}{'gap':>8}" + f"{'CybORG':>17}{'here':>8}{'gap':>8}",
    ]
    total = [sum(table[name].mean() for name in SUBMITTED) / 100 for table in (theirs, ours)]
    for kind, submitted, executed in zip(ACTIONS, SUBMITTED, EXECUTED, strict=True):
        shares = [table[submitted].mean() / by for table, by in zip((theirs, ours), total, strict=True)]
        effects = [table[executed].mean() for table in (theirs, ours)]
        lines.append(
            f"{kind:20}{shares[0]:>11.2f}{shares[1]:>8.2f}{shares[1] - shares[0]:>+8.2f}"
            f"{effects[0]:>17.1f}{effects[1]:>8.1f}{effects[1] - effects[0]:>+8.1f}"
        )
    return lines
