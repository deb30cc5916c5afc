"""Checkpoint selection by arm, training seed and env steps, shared by all commands."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from purecc4.errors import UserError, user_file
from purecc4.play.tables import Mode

SHOWN = 12
"""Most numbers that a message lists."""


class Saved(NamedTuple):
    """A checkpoint of a run folder."""

    arm: str
    seed: int
    env_steps: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class One:
    """Settings of a command that plays one checkpoint."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Run folder of the checkpoint."""
    arm: str | None = None
    """Training arm."""
    seed: int | None = None
    """Training seed."""
    env_steps: int | Literal["last"] = "last"
    """Checkpoint in env steps."""
    mode: Mode = "sampled"
    """Sample actions, or take the likeliest."""

    def find(self) -> Saved:
        """Find the checkpoint. Raises UserError if the settings are incomplete or it does not exist."""
        if self.run is None or self.arm is None or self.seed is None:
            raise UserError("no checkpoint selected: give a run folder with --arm and --seed.")
        (found,) = choose(self.run, (self.arm,), (self.seed,), (self.env_steps,))
        return found


def saved(run: Path) -> list[Saved]:
    """List all checkpoints of a run folder, sorted by arm, seed and env steps. Raises UserError if there are none."""
    if not run.is_dir():
        raise UserError(f"there is no run folder {run}: give a folder written by a script of algos/.")
    with user_file(run):
        for folder in (run, run / "checkpoints", *run.glob("checkpoints/*"), *run.glob("checkpoints/*/*")):
            if folder.is_dir():
                os.scandir(folder).close()  # raises an error if it cannot be read, which glob ignores
    found = [
        Saved(path.parent.parent.name, int(path.parent.name), int(path.stem), path)
        for path in run.glob("checkpoints/*/*/*.eqx")
        if path.parent.name.isdecimal() and path.stem.isdecimal()
    ]
    if not found:
        raise UserError(f"{run} has no checkpoints: train first.")
    return sorted(found)


def choose(
    run: Path, arms: Collection[str] = (), seeds: Collection[int] = (), env_steps: Sequence[int | str] = ("last",)
) -> list[Saved]:
    """Select checkpoints of a run folder by arm, seed and env steps. Empty arms or seeds select all of them.

    `env_steps` is ("last",), ("all",) or numbers. Raises UserError if any requested checkpoint is missing.
    """
    found = saved(run)
    for arm, seed in product(arms or [None], seeds or [None]):
        if not any(arm in (None, each.arm) and seed in (None, each.seed) for each in found):
            wanted = [f"of arm {arm}"] * (arm is not None) + [f"with seed {seed}"] * (seed is not None)
            known = ", ".join(dict.fromkeys(each.arm for each in found))
            raise UserError(f"{run} has no checkpoint {' '.join(wanted)}; its arms are {known}.")
    kept = [each for each in found if (not arms or each.arm in arms) and (not seeds or each.seed in seeds)]
    return [each for _, of_run in groupby(kept, lambda each: each[:2]) for each in _at(run, list(of_run), env_steps)]


def _at(run: Path, of_run: Sequence[Saved], env_steps: Sequence[int | str]) -> list[Saved]:
    """Checkpoints of one training run at `env_steps`."""
    if tuple(env_steps) == ("last",):
        return list(of_run[-1:])
    if tuple(env_steps) == ("all",):
        return list(of_run)
    known = {each.env_steps: each for each in of_run}
    for wanted in env_steps:
        if isinstance(wanted, str):
            raise UserError(f"--env-steps takes numbers or a single word: {wanted} cannot be combined.")
        if wanted not in known:
            arm, seed, *_ = of_run[0]
            raise UserError(
                f"{run} has no checkpoint of arm {arm} with seed {seed} at {wanted} env steps, only at {listed(known)}."
            )
    return [known[wanted] for wanted in sorted(set(env_steps))]


def shared(runs: Mapping[str, Collection[int]], what: str, env_steps: int | str = "last") -> int:
    """Env steps at which to compare runs: the requested number, or the last one that all runs have.

    `runs` maps the name of each run to its env steps. Raises UserError if no run has that number, or if they have none
    in common.
    """
    known, common = set().union(*runs.values()), set.intersection(*map(set, runs.values()))
    if env_steps != "last":
        if env_steps not in known:
            raise UserError(f"no run has {what} at {env_steps} env steps, only at {listed(known)}.")
        return int(env_steps)
    if not common:
        least, most = (pick(runs, key=lambda run: max(runs[run])) for pick in (min, max))
        raise UserError(
            f"the runs share no env steps with {what} and cannot be compared: {least} ends at {max(runs[least])}, "
            f"{most} at {max(runs[most])}."
        )
    return int(max(common))


def listed(numbers: Collection[int]) -> str:
    """Numbers in ascending order, abbreviated to the first and last if there are many."""
    ordered = list(map(str, sorted(numbers)))
    return ", ".join(ordered) if len(ordered) <= SHOWN else ", ".join([*ordered[:3], "...", ordered[-1]])
