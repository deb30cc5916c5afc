"""Compare a policy in this simulator and in CybORG, with an equivalence test.

    purecc4 transfer --cyborg ../cage-challenge-4 --cyborg-python ../cyborg-venv/bin/python \\
        runs/first --arm C11 --seed 42 --episodes 30

CybORG runs in worker processes with its own interpreter, as it needs other library versions than JAX. Trained policies
run there through their NumPy export, and `game.py` sets the game. The printed margin is the smallest one within which
two one-sided tests (TOST) find the means equivalent at the 5 % level.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from purecc4 import files, limits
from purecc4.arms.define import Definitions
from purecc4.cyborg import export, game_file
from purecc4.cyborg.cache import EpisodeCache
from purecc4.envs.cc4.checks import is_float32
from purecc4.errors import UserError, user_file
from purecc4.play.episodes import MAX_EPISODES, build, stack_params
from purecc4.play.policies import Policy, scripted, trained
from purecc4.play.selection import One
from purecc4.play.tables import (
    ACTIONS,
    BASELINE_SEED,
    EXECUTED,
    MODES,
    OVERFLOW,
    OWN_ZONES,
    SUBMITTED,
    VALUES,
    Cell,
    outgrew,
)
from purecc4.report.statistics import CONFIRM_MEAN, smallest_margin, tost, welch
from purecc4.train import definitions, devices
from purecc4.train.progress import counted
from purecc4.train.run_reader import REWARD_TERMS

VERSION = "4.0"
WORKER = export.FILES / "play.py"
FAST, GAME = export.GAME.with_name("fast.py"), export.GAME
FOOTPRINT = ("red_sessions", "root_hosts")
START_SECONDS = 120.0
"""Longest wait for CybORG's interpreter to import it."""
PACKAGES = '"numpy<2" networkx==3.2 gym==0.26.2 gymnasium pygame prettytable matplotlib'
"""Requirements of CybORG 4.0."""

Table = dict[str, Float[np.ndarray, "_"]]
"""tables.VALUES by name, one value per episode; CybORG's has cache.THEIRS and lacks the episodes that crashed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(One):
    """Compare a policy in both simulators."""

    policy: Literal["sleep", "random"] | export.Script | None = None
    """Scripted policy instead of a checkpoint."""
    cyborg: Path = Path("../cage-challenge-4")
    """Checkout of cage-challenge-4."""
    cyborg_python: str = "python3"
    """Python interpreter that can import CybORG."""
    fast: bool = False
    """Replace CybORG's slow functions at run time. Equal seeds give equal episodes, in about a seventh of the time.
    Leave it out for final figures, which come from the untouched reference."""
    game: str = "base"
    """Game to play in both simulators."""
    red: str | None = None
    """Red agent (default: the game's own). CybORG cannot play those that hunt roles."""
    define: Path | None = None
    """TOML file with your own games and reds, in addition to those saved in the run folder."""
    episodes: int = 30
    """Episodes in CybORG."""
    episodes_here: int = 300
    """Episodes in this simulator. They are cheap and narrow the interval."""
    num_steps: int = 500
    """Episode length in env steps. CybORG ends one step early, so both simulators play one step fewer."""
    eval_seed: int = 1000
    """Seed of the first episode in CybORG, and of all episodes here."""
    workers: int = limits.cores()
    """Number of CybORG processes."""
    to: Path | None = None
    """CSV file that caches the episodes in CybORG; cached ones are not replayed. Use a new file after retraining a
    network under the same name."""
    margin: float = CONFIRM_MEAN
    """Equivalence margin in points per episode, tested in addition to the smallest one."""


def run(config: Config) -> None:
    """Play in both simulators and print the comparison."""
    check(config)
    theirs, ours = play(config)
    print(report(str(cell_of(config)), config, theirs, ours))


def play(config: Config) -> tuple[Table, Table]:
    """Play in both simulators with checked settings. Returns the episodes in CybORG and those here."""
    devices.use_compile_cache()
    lock = files.locked(config.to.parent, "transfer") if config.to else nullcontext()
    with lock, tempfile.TemporaryDirectory() as folder:
        policy, name = prepare(config, Path(folder) / "policy")
        return play_both(config, policy, name, EpisodeCache(config.to, kept_as(config), config.num_steps))


def check(config: Config) -> None:
    """Raise UserError for invalid settings, a missing checkpoint, or a CybORG that cannot run."""
    check_settings(config)
    check_cyborg(config.cyborg)
    check_python(config)


def check_settings(config: Config) -> None:
    """Raise UserError for invalid settings or a missing checkpoint."""
    if (config.run is None) == (config.policy is None):
        raise UserError("give either a run folder with --arm and --seed, or --policy.")
    if not (2 <= config.episodes <= MAX_EPISODES and 2 <= config.episodes_here <= MAX_EPISODES) or config.workers < 1:
        raise UserError(
            f"--episodes and --episodes-here must be at least 2 and at most {MAX_EPISODES}, --workers at least 1."
        )
    if not (is_float32(config.margin) and config.margin > 0):
        raise UserError(f"--margin must be a float32 number above 0: {config.margin}.")
    if not 0 <= config.eval_seed < 2**31:
        raise UserError("--eval-seed must be from 0 to 2147483647.")
    if config.run:
        config.find()
    stack_params([match(config).name], config.num_steps, match(config).own)


def check_python(config: Config) -> None:
    """Raise UserError if the interpreter cannot import CybORG."""
    if shutil.which(config.cyborg_python) is None:
        raise UserError(f"there is no interpreter {config.cyborg_python}: correct --cyborg-python.")
    try:
        with CyborgWorkers(config, "sleep", [()]) as workers, workers.killed_after(START_SECONDS):
            if list(workers.lines()) != [{"ready": True}]:
                raise UserError(f"{config.cyborg_python} cannot run {WORKER.name}")
    except UserError as error:
        raise UserError(
            f"{error}; set --cyborg-python to the Python of a virtual environment with `pip install {PACKAGES}`."
        ) from error


def check_cyborg(folder: Path) -> None:
    """Raise UserError if the folder is not a checkout of CybORG 4.0."""
    path = folder / "CybORG" / "version.txt"
    if not path.is_file():
        raise UserError(f"{folder} is no CybORG checkout: set --cyborg to the folder of cage-challenge-4.")
    with user_file(path):
        version = path.read_text().strip()
    if version != VERSION:
        raise UserError(
            f"{folder} is CybORG {version}, but CAGE Challenge 4 needs {VERSION}: set --cyborg to that version."
        )


class Match(NamedTuple):
    """A red in a game."""

    own: Definitions
    name: str
    """As the tables have it."""
    numbers: str
    """For `game.py`."""


@cache  # --define may be a pipe
def match(config: Config) -> Match:
    """The red and the game. Raises UserError for unknown ones, and for a red that CybORG cannot play."""
    own = definitions.load(config.define, *([config.run] if config.run else []))
    name = own.match(config.red, config.game)
    return Match(own, name, game_file.written(own, name))


def cell_of(config: Config) -> Cell:
    """The policy and its match, as the tables name them."""
    red = match(config).name
    if config.policy:
        return Cell(config.policy, BASELINE_SEED, 0, red, MODES[0])
    arm, seed, env_steps, _ = config.find()
    return Cell(arm, seed, env_steps, red, config.mode)


def kept_as(config: Config) -> Cell:
    """The cell of cached episodes. Own reds and games may change, so the digest of their numbers is in its name."""
    cell, (own, name, numbers) = cell_of(config), match(config)
    if (own.reds.keys() | own.games.keys()) & set(name.split("@")):
        return cell._replace(red=f"{name} {hashlib.sha256(numbers.encode()).hexdigest()[:12]}")
    return cell


def prepare(config: Config, folder: Path) -> tuple[Policy, str]:
    """Load the policy. Returns it, and its name or exported folder for the workers."""
    if config.policy:
        if config.policy not in get_args(export.Script):
            return scripted(config.policy), config.policy
        export.write_script(folder, config.policy)
        return scripted(config.policy), str(folder)
    path = config.find().path
    export.write(folder, path, config.mode)
    return trained(path, greedy=config.mode == "greedy"), str(folder)


def play_both(config: Config, policy: Policy, name: str, cache: EpisodeCache) -> tuple[Table, Table]:
    """Play the episodes in both simulators. Returns those in CybORG, cached ones included, and those here."""
    seeds = range(config.eval_seed, config.eval_seed + config.episodes)
    missing, crashed = sorted(set(seeds) - set(cache.own["episode"])), 0
    shares = [share for first in range(config.workers) if (share := missing[first :: config.workers])]
    with CyborgWorkers(config, name, shares) as workers:
        ours = simulate(config, policy)
        bar = tqdm(workers.lines(), total=len(missing), unit="episode", desc="CybORG", disable=not missing)
        for episode in bar:
            if "crash" in episode:
                crashed += 1
            else:
                cache.add(episode)
    theirs = cache.values(seeds)
    if crashed:
        tqdm.write(f"CybORG itself crashed in {counted(crashed, 'episode')}, which the comparison excludes.")
    if len(theirs["return"]) < 2:
        raise UserError("CybORG finished fewer than two episodes: increase --episodes.")
    return theirs, ours


class CyborgWorkers:
    """CybORG processes that share the seeds. All write to one pipe, a line of JSON per episode."""

    def __init__(self, config: Config, policy: str, shares: Sequence[Sequence[int]]):
        self.config, self.policy, self.shares = config, policy, shares

    def __enter__(self) -> "CyborgWorkers":
        variables = os.environ | {"PYTHONPATH": str(self.config.cyborg.resolve()), "OMP_NUM_THREADS": "1"}
        self.game = tempfile.NamedTemporaryFile("w", suffix=".json")
        self.game.write(match(self.config).numbers)
        self.game.flush()
        scripts = [*([FAST] * self.config.fast), GAME, self.game.name, WORKER]
        command = [self.config.cyborg_python, *map(str, [*scripts, self.policy, self.config.num_steps])]
        self.errors = tempfile.TemporaryFile("w+")
        self.pipe, write = os.pipe()
        streams = {"stdin": subprocess.DEVNULL, "stdout": write, "stderr": self.errors}
        # an interpreter may be a shell script, whose own processes have to end with it
        options = {"env": variables, "process_group": 0, **streams}
        self.processes = [subprocess.Popen([*command, *map(str, seeds)], **options) for seeds in self.shares]
        os.close(write)
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        for process in self.processes:
            process.wait()
        self.errors.close()
        self.game.close()

    def kill(self) -> None:
        """Kill the processes that have not been waited for, with those that they started."""
        for process in self.processes:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)

    @contextmanager
    def killed_after(self, seconds: float) -> Iterator[None]:
        """Context that raises UserError if its end is not reached in time."""

        def kill():
            late.append(True)
            self.kill()

        late: list[bool] = []
        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            yield
        except UserError as error:
            raise UserError(f"CybORG did not start in {seconds:g} seconds") if late else error from None
        finally:
            timer.cancel()

    def lines(self) -> Iterator[dict]:
        """Yield the lines of the workers as they arrive. Raises UserError with a worker's last error if one fails."""
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
    """Play all episodes in this simulator, up to CybORG's last step. Raises UserError on an overflow."""
    params = stack_params([match(config).name], config.num_steps, match(config).own, policy.observation)
    values = build(config.num_steps - 1)(policy, params, np.uint32(config.eval_seed), np.arange(config.episodes_here))
    ours = dict(zip(VALUES, np.asarray(values, float)[0].T, strict=True))
    if count := int((ours[OVERFLOW] > 0).sum()):
        raise UserError(outgrew(count))
    return ours


def report(title: str, config: Config, theirs: Table, ours: Table) -> str:
    """Format the gaps in return, reward terms and final red presence with their tests, then both action profiles."""
    lines = [
        f"{title}: {counted(len(theirs['return']), 'episode')} in CybORG, {len(ours['return'])} here, "
        f"{config.num_steps - 1} steps each.",
        "",
        f"{'':14}{'CybORG':>9}{'here':>9}{'gap':>8}{'95 % interval':>19}{'p':>7}{'margin':>8}"
        f"{f'TOST p, {config.margin:g}':>14}",
    ]
    for name in ("return", OWN_ZONES, *REWARD_TERMS, *FOOTPRINT):
        a, b = ours[name], theirs[name]
        if np.isnan(b).any():  # of an older cache
            continue
        found = welch(a, b)
        line = (
            f"{name:14}{b.mean():>9.1f}{a.mean():>9.1f}{found.gap:>+8.1f}{f'{found.low:.1f} to {found.high:.1f}':>19}"
            f"{found.p:>7.3f}{smallest_margin(a, b):>8.1f}"
        )
        lines.append(line if name in FOOTPRINT else f"{line}{tost(a, b, config.margin):>14.4f}")
    return "\n".join([*lines, "", *profile(theirs, ours)])


def profile(theirs: Table, ours: Table) -> list[str]:
    """Format, per action type, the share of submitted actions in per cent and the executed actions per episode."""
    lines = [
        f"{'':20}{'submitted, %':>27}{'executed per episode':>33}",
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
