"""Settings of every training: what it trains on, for how long, and where it writes. A file in `algos/` adds its own."""

import copy
import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import tyro
from jaxtyping import Array, Float

from purecc4.arms.define import MAX_NUM_STEPS
from purecc4.command import shortened
from purecc4.envs.cc4.checks import is_float32
from purecc4.errors import UserError
from purecc4.train import definitions

Service = Literal["wandb", "trackio"]
Tunable = Annotated[float | tuple[float, ...], tyro.conf.arg(metavar="FLOAT [FLOAT ...]")]
"""A hyperparameter that changes no shape: one value, or several to train with each. A run sees one value, a
float32 number or array without axes."""
Range = tuple[str, Callable[[Any], bool]]
ABOVE_0: Range = ("above 0", lambda x: x > 0)
FROM_0: Range = ("of at least 0", lambda x: x >= 0)
FROM_0_TO_1: Range = ("from 0 to 1", lambda x: 0 <= x <= 1)
WHOLE: Range = ("at least 1 and below 2147483648", lambda x: 1 <= x < 2**31)
RANGES: dict[str, Range] = {
    "update_epochs": ("from 1 to 1000", lambda x: 1 <= x <= 1000),
    "total_timesteps": ("at least 1", lambda x: x >= 1),
    "num_steps": (f"from 1 to {MAX_NUM_STEPS}", lambda x: 1 <= x <= MAX_NUM_STEPS),
    "learning_rate": ABOVE_0,
    "adam_eps": ABOVE_0,
    "max_grad_norm": ABOVE_0,
    "gamma": FROM_0_TO_1,
    "gae_lambda": FROM_0_TO_1,
    "clip_eps": ABOVE_0,
    "vf_coef": FROM_0,
    "ent_coef": FROM_0,
    "reward_clip": ABOVE_0,
    "reward_scale": ABOVE_0,
    "team_share": FROM_0_TO_1,
    "belief_coef": FROM_0,
    "momentum": ("of at least 0 and below 1", lambda x: 0 <= x < 1),
    "last_noise": FROM_0_TO_1,
    "score_clip": ABOVE_0,
    "critic_warmup": ("from 0 to 2147483647", lambda x: 0 <= x < 2**31),
}
"""Valid range of a setting, in words and as a test. Floats must be float32 numbers; other integers are WHOLE."""


MAX_STEPS = 2**26
"""Most env steps of one update: the indices of all agents' samples stay below 2^31, whatever the network."""
MAX_NAME = 200
"""Longest name of a run folder in bytes. A file system has 255."""


def check_range(name: str, value: int | float) -> None:
    """Raises UserError if a number is out of the range of its setting."""
    words, fits = RANGES.get(name, WHOLE)
    kind = "a float32 number " if isinstance(value, float) else ""
    if (kind and not is_float32(value)) or not fits(value):
        raise UserError(f"{name} must be {kind}{words}: {value}.")


class Variant(NamedTuple):
    """An arm with one value of every tunable. All seeds train it."""

    arm: str
    tunables: dict[str, float]
    swept: tuple[str, ...]
    """Tunables that have several values in this training."""

    @property
    def label(self) -> str:
        """Name in all files: the arm, followed by what differs from other variants of the arm."""
        return " ".join([self.arm, *(f"{name}={self.tunables[name]}" for name in self.swept)])

    @property
    def about(self) -> dict[str, str | float]:
        """The arm and the swept values."""
        return {"arm": self.arm} | {name: self.tunables[name] for name in self.swept}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base class of every `Config` in `algos/`."""

    algorithm: ClassVar[str]
    """Name of the file in `algos/`, without its ending."""

    arm: tuple[str, ...] = ("C11",)
    """Arms to train: names listed by `purecc4 arms` or defined in `--define`."""
    seeds: tuple[int, ...] = (42, 142, 242)
    """Seeds per arm. Arms with the same seed share their random numbers."""
    game: str = "base"
    """Game to train in, where the arm does not vary it: one of those listed by `purecc4 arms` or in `--define`."""
    red: str | None = None
    """Red to train against: fsm, cia_c, cia_i, cia_a, discovery, aggressive, stealthy, impact, sleep, or a name defined
    in `--define`. Default: the game's own, fsm in the base game."""
    total_timesteps: int = 10_000_000
    """Environment steps per run, rounded down to whole updates. All five agents act in each step."""
    num_envs: int = 48
    """Parallel environments per run."""
    num_steps: int = 500
    """Steps per episode. A rollout is one episode."""
    zip: bool = False
    """Pair the values of hyperparameters, the first with the first and so on, instead of all combinations."""
    name: str | None = None
    """Folder under runs/ for the results. Default: the arms joined by '-'."""
    define: Path | None = None
    """TOML file of user-defined arms and reds. The run folder keeps a copy."""
    resume: bool = False
    """Resume from the last saved state of the run folder, with its settings."""
    checkpoint_every: int = 50
    """Updates between two checkpoints. One more is written at the end."""
    updates_per_call: int = 1
    """Updates per call of the compiled program, between two updates of the progress bar."""
    track: Service | None = None
    """Service that receives the metrics of each update, one run per arm, swept values and seed."""
    distributed: bool = False
    """Distribute the runs over the processes of this job, each started with the same command."""

    def resolved(self) -> "Settings":
        """With values in place of defaults that depend on other settings; a resumed run keeps these values."""
        if self.red is not None:
            return self
        own = definitions.load(self.define, self.folder)
        return dataclasses.replace(self, red=own.game(self.game).red)

    @property
    def steps_per_update(self) -> int:
        """Env steps of one run per update."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        return self.total_timesteps // self.steps_per_update

    @property
    def tunables(self) -> dict[str, tuple[float, ...]]:
        """Values of every tunable."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.type == Tunable}
        return {name: x if isinstance(x, tuple) else (x,) for name, x in values.items()}

    @property
    def swept(self) -> dict[str, tuple[float, ...]]:
        """Values of the tunables that have several."""
        return {name: values for name, values in self.tunables.items() if len(values) > 1}

    @property
    def variants(self) -> list[Variant]:
        """Every arm with every combination, or pair, of swept values; all those of the first arm first."""
        tunables, swept = self.tunables, self.swept
        fixed = {name: values[0] for name, values in tunables.items() if name not in swept}
        rows = list(zip(*swept.values(), strict=True)) if self.zip else list(product(*swept.values()))
        chosen = [fixed | dict(zip(swept, row, strict=True)) for row in rows]
        return [Variant(arm, values, tuple(swept)) for arm in self.arm for values in chosen]

    @property
    def runs(self) -> list[tuple[str, int]]:
        """(label, seed) of each run, all seeds of the first variant first. Without a sweep the label is the arm."""
        return [(variant.label, seed) for variant in self.variants for seed in self.seeds]

    def with_tunables(self, swept: Mapping[str, Float[Array, ""]]) -> "Settings":
        """The settings of one run, with arrays for the swept tunables.

        The others are float32 constants: a product of two has the same last digit whether they are swept or not.
        """
        fixed = {name: np.float32(values[0]) for name, values in self.tunables.items() if name not in swept}
        changed = copy.copy(self)
        vars(changed).update(fixed | dict(swept))  # `dataclasses.replace` would check the types of the command line
        return changed

    @property
    def folder(self) -> Path:
        return Path("runs") / ("-".join(self.arm) if self.name is None else self.name)

    def check(self) -> None:
        """Raises UserError for invalid settings."""
        for field in dataclasses.fields(self):
            if field.type is int:
                check_range(field.name, getattr(self, field.name))
        self.check_sweep()
        if self.steps_per_update > MAX_STEPS:
            raise UserError(
                f"num_envs times num_steps must be at most {MAX_STEPS}, the env steps of one update: "
                f"{self.steps_per_update}."
            )
        if not 1 <= self.num_updates < 2**31:
            raise UserError(
                f"total_timesteps must be at least {self.steps_per_update}, the env steps of one update, and below "
                f"2^31 times that: {self.total_timesteps}."
            )
        for name, values in (("arm", self.arm), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise UserError(f"{name} needs at least one value, without duplicates.")
        if not all(0 <= seed < 2**32 for seed in self.seeds):
            raise UserError("seeds must be from 0 to 4294967295.")
        if self.swept and any(len(os.fsencode(variant.label)) > MAX_NAME for variant in self.variants):
            raise UserError(f"names of runs would exceed {MAX_NAME} bytes: sweep fewer of {', '.join(self.swept)}.")
        name = self.folder.name
        if (
            not re.fullmatch(r"\w[\w.+-]*", name)
            or self.folder.parent != Path("runs")
            or len(os.fsencode(name)) > MAX_NAME
        ):
            raise UserError(
                f"name must be a folder name of letters, digits, '_', '-', '+' and '.', at most {MAX_NAME} bytes long, "
                f"without a path: {shortened(repr(name))}."
            )

    def check_sweep(self) -> None:
        """Raises UserError for tunables out of range, without a value, or with values that do not pair or repeat."""
        for name, values in self.tunables.items():
            for value in values:
                check_range(name, value)
            if not values:
                raise UserError(f"{name} needs at least one value.")
        lengths = {name: len(values) for name, values in self.swept.items()}
        if self.zip and (len(lengths) < 2 or len(set(lengths.values())) > 1):
            found = ", ".join(f"{length} of {name}" for name, length in lengths.items()) or "none"
            raise UserError(f"--zip pairs equally many values of two or more hyperparameters, but there are {found}.")
        for names in [tuple(lengths)] if self.zip else [(name,) for name in lengths]:
            rows = list(zip(*(np.float32(self.swept[name]) for name in names), strict=True))
            if len(set(rows)) < len(rows):
                raise UserError(f"{' with '.join(names)} has a value twice, as a float32 number: give each once.")


@dataclasses.dataclass(frozen=True)
class Scheduled(Settings):
    """Settings of an algorithm whose learning rate decays to 0."""

    schedule_timesteps: int | None = None
    """Environment steps over which learning rate and entropy bonus decay to 0. Default: total_timesteps."""

    @property
    def schedule_updates(self) -> int:
        """Updates after which the learning rate is 0."""
        steps = self.total_timesteps if self.schedule_timesteps is None else self.schedule_timesteps
        return steps // self.steps_per_update

    def resolved(self) -> "Scheduled":
        """With the length of the schedule as a number, which a longer training does not change."""
        if self.schedule_timesteps is not None:
            return super().resolved()
        return dataclasses.replace(super().resolved(), schedule_timesteps=self.total_timesteps)

    def check(self) -> None:
        """Raises UserError for invalid settings."""
        super().check()
        if self.num_updates > self.schedule_updates:
            raise UserError(
                f"total_timesteps = {self.total_timesteps} exceeds schedule_timesteps = {self.schedule_timesteps}, "
                "after which the learning rate is 0: start a new run with a longer schedule."
            )
