"""Play one policy here and in CybORG, and say how far apart the two simulators are.

    purecc4 transfer --cyborg ../cage-challenge-4 --cyborg-python ../cyborg-venv/bin/python \\
        runs/first --arm C11 --seed 42 --episodes 30

CybORG plays in worker processes of its own interpreter, because it wants other versions of the libraries than JAX does.
A trained policy plays there through its NumPy export. The printed margin is the smallest one within which
two one-sided tests call the means equivalent at the 5 % level.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from purecc4.cyborg import export
from purecc4.errors import UserError, user_file
from purecc4.play.episodes import build, stack_params
from purecc4.play.policies import Policy, scripted, trained
from purecc4.play.selection import One
from purecc4.play.tables import ACTIONS, EXECUTED, SUBMITTED, VALUES
from purecc4.report.statistics import CONFIRM_MEAN, smallest_margin, tost, welch
from purecc4.train import devices
from purecc4.train.folder import PARTS

VERSION = "4.0"
WORKER = export.FILES / "play.py"
HOLD = ("red_sessions", "root_hosts")
PACKAGES = '"numpy<2" networkx==3.2 gym==0.26.2 gymnasium pygame prettytable matplotlib'
"""What CybORG 4.0 needs to play."""

Table = dict[str, Float[np.ndarray, "_"]]
"""tables.VALUES by name, a value per episode; fewer from CybORG if it crashes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(One):
    """Which policy, and where CybORG is."""

    policy: Literal["sleep", "random"] | None = None
    """A scripted policy in place of a checkpoint."""
    cyborg: Path = Path("../cage-challenge-4")
    """Checkout of cage-challenge-4."""
    cyborg_python: str = "python3"
    """Interpreter that can import CybORG."""
    red: Literal["fsm", "discovery", "sleep"] = "fsm"
    """Red that CybORG has too."""
    episodes: int = 30
    """Episodes in CybORG."""
    episodes_here: int = 300
    """Episodes in this simulator, where they cost little and narrow the interval."""
    num_steps: int = 500
    """Length of an episode in env steps; both are summed up to CybORG's end, one step earlier."""
    eval_seed: int = 1000
    """Seed of the first episode in CybORG, and of all of them here."""
    workers: int = os.cpu_count() or 1
    """Processes that play CybORG."""
    margin: float = CONFIRM_MEAN
    """Gap that would matter, in points per episode, tested beside the smallest margin."""


def run(config: Config) -> None:
    """Play in both simulators and print how far apart they are."""
    devices.use_compile_cache()
    check(config)
    with tempfile.TemporaryDirectory() as folder:
        policy, name, title = prepare(config, Path(folder) / "policy")
        theirs, ours = play_both(config, policy, name)
    print(report(title, config, theirs, ours))


def check(config: Config) -> None:
    """Raises UserError, with one sentence, if the settings make no sense or CybORG cannot be played."""
    if (config.run is None) == (config.policy is None):
        raise UserError("give either a run folder with --arm and --seed, or --policy.")
    if config.run:
        config.find()
    if min(config.episodes, config.episodes_here, config.num_steps) < 2 or config.workers < 1 or config.margin <= 0:
        raise UserError("episodes and num_steps must be at least 2, workers at least 1, the margin above 0.")
    if not 0 <= config.eval_seed < 2**31:
        raise UserError("--eval-seed must be from 0 to 2147483647.")
    check_cyborg(config.cyborg)
    if shutil.which(config.cyborg_python) is None:
        raise UserError(f"there is no interpreter {config.cyborg_python}: give --cyborg-python one.")
    try:
        with CyborgWorkers(config, "sleep", [()]) as workers:
            list(workers.episodes())
    except UserError as error:
        raise UserError(
            f"{error}; give --cyborg-python the Python of a virtual environment with  pip install {PACKAGES}"
        ) from error


def check_cyborg(folder: Path) -> None:
    """Raises UserError, with one sentence, if it is no checkout of CybORG 4.0."""
    path = folder / "CybORG" / "version.txt"
    if not path.is_file():
        raise UserError(f"{folder} is no CybORG checkout: give --cyborg the folder of cage-challenge-4.")
    with user_file(path):
        version = path.read_text().strip()
    if version != VERSION:
        raise UserError(f"{folder} is CybORG {version}, but CAGE Challenge 4 needs {VERSION}: give --cyborg that one.")


def prepare(config: Config, folder: Path) -> tuple[Policy, str, str]:
    """The policy here, what the worker calls it (exported to `folder` if it is a trained one), and its title."""
    if config.policy:
        return scripted(config.policy), config.policy, config.policy
    arm, seed, env_steps, path = config.find()
    export.write(folder, path, config.mode)
    title = f"{arm} seed {seed} at {env_steps} env steps, {config.mode} actions"
    return trained(path, greedy=config.mode == "greedy"), str(folder), title


def play_both(config: Config, policy: Policy, name: str) -> tuple[Table, Table]:
    """Episodes in CybORG and here."""
    seeds = range(config.eval_seed, config.eval_seed + config.episodes)
    with CyborgWorkers(config, name, [seeds[i :: config.workers] for i in range(config.workers)]) as workers:
        ours = simulate(config, policy)
        played = list(tqdm(workers.episodes(), total=config.episodes, unit="episode", desc="CybORG"))
    episodes = [episode for episode in played if "crash" not in episode]
    if len(episodes) < len(played):
        tqdm.write(f"CybORG itself crashed in {len(played) - len(episodes)} episodes, which are left out.")
    if len(episodes) < 2:
        raise UserError("CybORG finished fewer than two episodes: play more.")
    return {column: np.array([episode.get(column, 0) for episode in episodes], float) for column in VALUES}, ours


class CyborgWorkers:
    """Processes that play CybORG, each its share of the seeds; all write to one pipe, a line of JSON per episode."""

    def __init__(self, config: Config, policy: str, shares: Sequence[Sequence[int]]):
        self.config, self.policy, self.shares = config, policy, shares

    def __enter__(self) -> "CyborgWorkers":
        variables = os.environ | {"PYTHONPATH": str(self.config.cyborg.resolve()), "OMP_NUM_THREADS": "1"}
        command = [self.config.cyborg_python, str(WORKER), self.policy, self.config.red, str(self.config.num_steps)]
        self.errors = tempfile.TemporaryFile("w+")
        self.lines, write = os.pipe()
        self.processes = [
            subprocess.Popen([*command, *map(str, seeds)], env=variables, stdout=write, stderr=self.errors)
            for seeds in self.shares
        ]
        os.close(write)
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.errors.close()

    def episodes(self) -> Iterator[dict]:
        """Episodes as they end. UserError, with a worker's last words, if one fails."""
        with os.fdopen(self.lines) as lines:
            yield from map(json.loads, lines)
        if any([process.wait() for process in self.processes]):
            self.errors.seek(0)
            raise UserError(f"CybORG failed: {self.errors.read().strip().splitlines()[-1]}")


def simulate(config: Config, policy: Policy) -> Table:
    """All episodes in this simulator, up to where CybORG ends."""
    params = stack_params([config.red], config.num_steps)
    values, _ = build(config.num_steps - 1)(
        policy, params, np.uint32(config.eval_seed), np.arange(config.episodes_here)
    )
    return dict(zip(VALUES, np.asarray(values, float)[0].T, strict=True))


def report(title: str, config: Config, theirs: Table, ours: Table) -> str:
    """The gaps of return, its parts and red's final hold with their tests, then both action profiles."""
    counts = len(theirs["return"]), len(ours["return"])
    lines = [
        f"{title}, against {config.red}: "
        f"{counts[0]} episodes in CybORG, {counts[1]} here, {config.num_steps - 1} steps each.",
        "",
        f"{'':14}{'CybORG':>9}{'here':>9}{'gap':>8}{'95 % interval':>19}{'p':>7}{'margin':>8}"
        f"{f'TOST p, {config.margin:g}':>14}",
    ]
    for name in ("return", *PARTS, *HOLD):
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
