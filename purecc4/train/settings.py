"""Settings of every training: what it trains on, for how long, and where it writes. A file in `algos/` adds its own."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from purecc4.arms.define import MAX_NUM_STEPS
from purecc4.command import shortened
from purecc4.envs.cc4.checks import is_float32
from purecc4.errors import UserError

Service = Literal["wandb", "trackio"]
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


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base class of every `Config` in `algos/`."""

    algorithm: ClassVar[str]
    """Name of the file in `algos/`, without its ending."""

    arm: tuple[str, ...] = ("C11",)
    """Arms to train: names listed by `purecc4 arms` or defined in `--define`."""
    seeds: tuple[int, ...] = (42, 142, 242)
    """Seeds per arm. Arms with the same seed share their random numbers."""
    red: str = "fsm"
    """Red to train against: fsm, cia_c, cia_i, cia_a, discovery, sleep, or a name defined in `--define`."""
    total_timesteps: int = 10_000_000
    """Environment steps per run, rounded down to whole updates. All five agents act in each step."""
    num_envs: int = 48
    """Parallel environments per run."""
    num_steps: int = 500
    """Steps per episode. A rollout is one episode."""
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
    """Service that receives the metrics of each update, one run per arm and seed."""
    distributed: bool = False
    """Distribute the runs over the processes of this job, each started with the same command."""

    def resolved(self) -> "Settings":
        """With numbers in place of defaults that depend on other settings; a resumed run keeps these numbers."""
        return self

    @property
    def steps_per_update(self) -> int:
        """Env steps of one run per update."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        return self.total_timesteps // self.steps_per_update

    @property
    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed) of each run, all seeds of the first arm first."""
        return [(arm, seed) for arm in self.arm for seed in self.seeds]

    @property
    def folder(self) -> Path:
        return Path("runs") / ("-".join(self.arm) if self.name is None else self.name)

    def check(self) -> None:
        """Raises UserError for invalid settings."""
        for field in dataclasses.fields(self):
            if field.type in (int, float):
                check_range(field.name, getattr(self, field.name))
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


@dataclasses.dataclass(frozen=True)
class Scheduled(Settings):
    """Settings of an algorithm whose learning rate decays to 0."""

    schedule_timesteps: int | None = None
    """Environment steps over which learning rate and entropy bonus decay to 0. Default: total_timesteps."""

    @property
    def schedule_updates(self) -> int:
        """Updates after which the learning rate is 0."""
        return self.resolved().schedule_timesteps // self.steps_per_update

    def resolved(self) -> "Scheduled":
        """With the length of the schedule as a number, which a longer training does not change."""
        if self.schedule_timesteps is not None:
            return self
        return dataclasses.replace(self, schedule_timesteps=self.total_timesteps)

    def check(self) -> None:
        """Raises UserError for invalid settings."""
        super().check()
        if self.num_updates > self.schedule_updates:
            raise UserError(
                f"total_timesteps = {self.total_timesteps} exceeds schedule_timesteps = {self.schedule_timesteps}, "
                "after which the learning rate is 0: start a new run with a longer schedule."
            )
