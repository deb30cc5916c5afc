"""Measuring and printing of figures."""

import contextlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import PyTree


class Seconds(NamedTuple):
    """Wall-clock and CPU time of a program, each the minimum over its repetitions."""

    wall: float
    cpu: float
    """Process CPU time, summed over all cores."""


class Bench:
    """Measures figures, prints them immediately, and collects them for the table."""

    def __init__(self, repeats: int, quick: bool):
        self.repeats, self.quick = repeats, quick
        self.lines: list[tuple[str, float, str, dict[str, Any]]] = []
        self.machine: dict[str, float] = {}
        """Figures of `machine.peaks`, if measured."""

    @property
    def on_gpu(self) -> bool:
        """True if JAX runs on an accelerator. Starts JAX."""
        return jax.default_backend() != "cpu"

    def report(self, figure: str, value: float, unit: str, **settings: Any) -> None:
        """Print and collect a figure."""
        value = float(f"{value:.4g}")
        self.lines.append((figure, value, unit, settings))
        print(json.dumps({"figure": figure, "value": value, "unit": unit, "settings": settings}), flush=True)

    def report_rate(self, what: str, count: int, seconds: Seconds, **settings: Any) -> None:
        """Report a rate per second and, on a CPU, per CPU second."""
        self.report(f"{what}_per_s", count / seconds.wall, "1/s", **settings)
        if not self.on_gpu:
            self.report(f"{what}_per_cpu_s", count / seconds.cpu, "1/s", **settings)

    def report_share(self, figure: str, rate: float, limit: str, **settings: Any) -> None:
        """Report a rate as a share of a peak rate of the machine, if that was measured."""
        if limit in self.machine:
            self.report(figure, rate / self.machine[limit], "ratio", of=limit, **settings)

    def time(self, program: Callable, *args: Any, repeats: int | None = None) -> Seconds:
        """Time a call after one warm-up call."""
        jax.block_until_ready(program(*args))
        times = [self._time_once(program, args) for _ in range(1 if self.quick else repeats or self.repeats)]
        return Seconds(*map(min, zip(*times, strict=True)))

    @staticmethod
    def _time_once(program: Callable, args: tuple) -> Seconds:
        cpu, wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(program(*args))
        return Seconds(time.perf_counter() - wall, time.process_time() - cpu)

    def compile(self, what: str, function: Callable, *args: Any, **settings: Any) -> jax.stages.Compiled:
        """Compile with an empty and a warm cache, and report both times, tracing included."""
        with tempfile.TemporaryDirectory() as folder, cache_in(folder):
            for cache in ("cold", "warm"):
                jax.clear_caches()
                began = time.perf_counter()
                compiled = jax.jit(function).lower(*args).compile()
                self.report("compile_s", time.perf_counter() - began, "s", what=what, cache=cache, **settings)
        return compiled

    def table(self) -> str:
        """Format all figures as a table."""
        rows = [(f, f"{v:,.6g}", u, ", ".join(f"{k}={x}" for k, x in s.items())) for f, v, u, s in self.lines]
        return aligned([("figure", "value", "unit", "settings"), *rows])


@contextlib.contextmanager
def cache_in(folder: str | None) -> Iterator[None]:
    """Use a folder as the compilation cache within the context, or none."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Align rows in columns, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def cell(text, width):
        return text.rjust(width) if re.match(r"[\d.,\-]+$", text) else text.ljust(width)

    return "\n".join("  ".join(map(cell, row, widths)).rstrip() for row in rows)


def bytes_of(tree: PyTree) -> int:
    """Total size in bytes of a pytree of arrays or shapes."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
