"""The settings of a training run that change nothing of what is learned. A file of `algos/` adds those that do."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from purecc4.errors import UserError
from purecc4.train import track as tracking


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of every `Config` in `algos/`.

    A Config adds at least arm, seeds, total_timesteps, num_envs and num_steps, which the properties here use.
    """

    algorithm: ClassVar[str]
    """Name of the file in `algos/`, without its ending."""

    name: str | None = None
    """Folder under runs/ for the results. Default: the arms joined by '-'."""
    define: Path | None = None
    """TOML file of arms and reds of your own. The run folder keeps a copy."""
    resume: bool = False
    """Go on from the last saved state of the run folder, with its settings."""
    checkpoint_every: int = 50
    """Updates between two checkpoints. One more is written at the end."""
    updates_per_call: int = 1
    """Updates in one call of the compiled program, between two lines of progress."""
    track: tracking.Service | None = None
    """Service to send the metrics to when training is done, one run per arm and seed."""
    distributed: bool = False
    """Share the runs with the other processes of this job, each started with the same command."""

    @property
    def steps_per_update(self) -> int:
        """Env steps of one run in one update."""
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
        return Path("runs") / (self.name or "-".join(self.arm))

    def check(self) -> None:
        """Raises UserError, with one sentence, for settings that make no sense."""
        for field in dataclasses.fields(self):
            if field.type is int and getattr(self, field.name) < 1:
                raise UserError(f"{field.name} must be at least 1.")
        if not self.num_updates:
            raise UserError(f"total_timesteps must be at least {self.steps_per_update}, the env steps of one update.")
        for name, values in (("arm", self.arm), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise UserError(f"{name} needs one or more values, each once.")
        if not all(0 <= seed < 2**32 for seed in self.seeds):
            raise UserError("seeds must be from 0 to 4294967295.")
        if self.folder.parent != Path("runs"):
            raise UserError(f"name must be the name of a folder, without a path: {self.folder.name!r}.")
