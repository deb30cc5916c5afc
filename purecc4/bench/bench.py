"""Benchmark speed and size: `purecc4 bench`.

Prints one JSON line per figure, `{"figure", "value", "unit", "settings"}`, and a table at the end. Rates are the best
of several repetitions, because other load can only slow them down. Each rate per second comes with a rate per CPU
second (`per_cpu_s`), which is less sensitive to other load. Compile times are of a single compilation without a
compilation cache. Close other programs, and prefer ratios within one run (--against) to rates from two runs.
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
    """Benchmark the simulator, training and evaluation on this machine."""

    quick: bool = False
    """Use the smallest size of every benchmark."""
    figures: tuple[str, ...] = ()
    """Prefixes of figures to measure (default: all). Figures from the same benchmark are included."""
    repeats: int = 5
    """Repetitions, of which the best counts. With --against, repetitions per checkout."""
    against: Path | None = None
    """Another checkout of this project. Benchmark both alternately and print the ratio of this one to it."""
    target: str | None = None
    """GPU to compile for without having it: h100, or a file with a GpuTargetConfig."""
    cyborg: Path | None = None
    """Checkout of CybORG to benchmark as well."""
    cyborg_python: str = "python3"
    """Python interpreter that can import CybORG."""

    def check(self) -> None:
        """Raise UserError for invalid settings."""
        if self.repeats < 1:
            raise UserError("--repeats must be at least 1.")
        known = list(dict.fromkeys(figure for figures in PARTS.values() for figure in figures))
        for wanted in self.figures:
            if not any(figure.startswith(wanted) for figure in known):
                raise UserError(f"there is no figure {wanted}; known are {', '.join(known)}.")
        if self.target and (self.against or self.figures or self.cyborg):
            raise UserError("--target only compiles: leave out --against, --figures and --cyborg.")
        if self.against and self.cyborg:
            raise UserError("--against compares two checkouts of this project: leave out --cyborg.")

    def wants(self, figures: tuple[str, ...]) -> bool:
        """Return True if any of these figures is selected."""
        return not self.figures or any(figure.startswith(self.figures) for figure in figures)


PARTS = {
    machine.peaks: ("copy_bytes_per_s", "matmul_flops_per_s", "launch_s", "state_traffic", "minibatch_arithmetic"),
    game.program_sizes: ("state_bytes", "compile_s", "hlo_instructions", "hlo_fusions", "kernels"),
    game.env_rates: ("env_steps_per_s", "env_steps_per_cpu_s", "state_traffic"),
    game.raw_speed: ("raw_to_flat",),
    learning.learning: (
        *("compile_s", "train_steps_per_s", "train_steps_per_cpu_s", "update_s", "trajectory_bytes"),
        *("minibatches_s", "update_to_minibatches", "minibatch_arithmetic"),
    ),
    learning.evaluation: ("evaluation_steps_per_s", "evaluation_steps_per_cpu_s"),
    machine.reference: ("reference_steps_per_s",),
}
"""Benchmarks and the names of their figures."""


def run(config: Config) -> None:
    """Run the benchmarks and print their figures."""
    config.check()
    if config.against:
        against.report(config.against, config.figures, config.repeats, config.quick)
    elif config.target:
        target.report(Bench(config.repeats, config.quick), config.target)
    else:
        measure(config)


def measure(config: Config) -> None:
    """Benchmark this checkout on this machine."""
    devices.use_cores(max(limits.cores(), 3))
    bench = Bench(config.repeats, config.quick)
    device = jax.devices()[0]
    print(json.dumps({"device": device.device_kind, "devices": jax.device_count(), "jax": jax.__version__}))
    for part, figures in PARTS.items():
        if config.wants(figures):
            part(bench, *([config.cyborg, config.cyborg_python] if part is machine.reference else []))
    print(bench.table())
