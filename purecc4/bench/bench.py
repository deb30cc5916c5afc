"""How fast it is, and how fast it could be: `purecc4 bench`.

Prints one JSON line per figure, `{"figure", "value", "unit", "settings"}`, and a table at the end. Rates are the best
of several repetitions, as anything else on the machine only makes them worse; beside a rate per second stands one per
second of a core (`per_cpu_s`), which others disturb less. Compile times are of one compilation without a compile cache.
Close other programs, and compare ratios of one run (--against) rather than rates of two.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import jax

from purecc4 import limits
from purecc4.bench import against, game, learning, machine, target
from purecc4.bench.measure import Bench
from purecc4.errors import UserError
from purecc4.train import devices


@dataclass(frozen=True)
class Config:
    """Time the simulator, training and evaluation on this machine."""

    quick: bool = False
    """Each figure at its smallest size (flag)."""
    figures: tuple[str, ...] = ()
    """Only figures whose name starts with one of these, and those measured with them (names; default: all)."""
    repeats: int = 5
    """Repetitions of which the best counts; with --against, of each checkout (number)."""
    against: Path | None = None
    """Another checkout of this project: time both in turn and print this one's figures over its (a folder)."""
    target: str | None = None
    """A card to compile for, which need not be there: h100, or a text proto of another (a name or a file)."""
    cyborg: Path | None = None
    """A checkout of the reference simulator to time beside ours (a folder)."""
    cyborg_python: str = "python3"
    """The interpreter that can import it (a command)."""

    def check(self) -> None:
        """Raises UserError, with one sentence, for settings that make no sense."""
        if self.repeats < 1:
            raise UserError("repeats must be at least 1.")
        known = list(dict.fromkeys(figure for figures in PARTS.values() for figure in figures))
        for wanted in self.figures:
            if not any(figure.startswith(wanted) for figure in known):
                raise UserError(f"there is no figure {wanted}; known are {', '.join(known)}.")
        if self.target and (self.against or self.figures or self.cyborg):
            raise UserError("--target runs nothing here: leave out --against, --figures and --cyborg.")
        if self.against and self.cyborg:
            raise UserError("--against times two checkouts of this project: leave out --cyborg.")

    def wants(self, figures: tuple[str, ...]) -> bool:
        """Whether any of these figures is asked for."""
        return not self.figures or any(figure.startswith(self.figures) for figure in figures)


PARTS = {
    machine.limits: ("copy_bytes_per_s", "matmul_flops_per_s", "launch_s", "state_traffic", "minibatch_arithmetic"),
    game.program_sizes: ("state_bytes", "compile_s", "hlo_instructions", "hlo_fusions", "kernels"),
    game.env_rates: ("env_steps_per_s", "env_steps_per_cpu_s", "state_traffic"),
    learning.learning: (
        *("compile_s", "train_steps_per_s", "train_steps_per_cpu_s", "update_s", "trajectory_bytes"),
        *("update_to_minibatches", "minibatch_arithmetic"),
    ),
    learning.evaluation: ("evaluation_steps_per_s", "evaluation_steps_per_cpu_s"),
    machine.reference: ("reference_steps_per_s",),
}
"""What measures figures, and their names."""


def run(config: Config) -> None:
    """Measure and print."""
    config.check()
    if config.against:
        against.report(config.against, config.figures, config.repeats, config.quick)
    elif config.target:
        target.report(Bench(config.repeats, config.quick), config.target)
    else:
        measure(config)


def measure(config: Config) -> None:
    """The figures of this checkout on this machine."""
    devices.use_cores(max(limits.cores(), 3))
    bench = Bench(config.repeats, config.quick)
    device = jax.devices()[0]
    print(json.dumps({"device": device.device_kind, "devices": jax.device_count(), "jax": jax.__version__}))
    for part, figures in PARTS.items():
        if config.wants(figures):
            part(bench, *([config.cyborg, config.cyborg_python] if part is machine.reference else []))
    print(bench.table())
