"""Benchmark two checkouts alternately, so that other load on the machine affects both alike."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from purecc4.bench.measure import aligned
from purecc4.errors import UserError

HERE = Path(__file__).parents[2]
Figures = dict[tuple[str, str], float]
"""Values by figure name and settings."""


def report(other: Path, figures: Sequence[str], repeats: int, quick: bool) -> None:
    """Print the ratio of every figure of this checkout to that of `other`: median, minimum and maximum.

    Each repetition runs one process per checkout, in alternating order. Raises UserError if `other` is not a checkout
    with this command, or a process fails.
    """
    if not (other / "purecc4" / "__main__.py").is_file():
        raise UserError(f"{other} is not a checkout of this project: it has no purecc4/__main__.py.")
    flags = ["--repeats", "1", *(["--quick"] if quick else []), *(["--figures", *figures] if figures else [])]
    pairs: list[dict[Path, Figures]] = []
    with tempfile.TemporaryDirectory() as cache:
        for number in range(repeats):
            order = (HERE, other.resolve())[:: 1 if number % 2 == 0 else -1]
            pairs.append({checkout: measure(checkout, flags, cache) for checkout in order})
            print(f"repetition {number + 1} of {repeats} done", file=sys.stderr)
    rows = ratios([(pair[HERE], pair[other.resolve()]) for pair in pairs])
    for (figure, settings), values in rows.items():
        line = {"figure": figure, "value": round(statistics.median(values), 4), "unit": "ratio", "ratios": values}
        print(json.dumps(line | {"settings": json.loads(settings) | {"against": str(other)}}))
    print(table(rows))
    single = sorted({figure for pair in pairs for of_one in pair.values() for figure, _ in of_one.keys() - rows.keys()})
    if single:
        print(f"Only in one checkout, or with different settings: {', '.join(single)}.")


def measure(checkout: Path, flags: list[str], cache: str) -> Figures:
    """Run a checkout's bench once with a compilation cache in a folder. Raises UserError if it fails."""
    command = [sys.executable, "-m", "purecc4", "bench", *flags]
    env = os.environ | {"PYTHONPATH": str(checkout), "JAX_COMPILATION_CACHE_DIR": cache}
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"the bench of {checkout} failed: {last}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"figure"')]
    return {(line["figure"], json.dumps(line["settings"])): line["value"] for line in lines}


def ratios(pairs: Sequence[tuple[Figures, Figures]]) -> dict[tuple[str, str], list[float]]:
    """Ratio of the first to the second value per repetition, for the figures that both have."""
    both = [key for key in pairs[0][0] if all(key in this and that.get(key) for this, that in pairs)]
    return {key: [round(this[key] / that[key], 4) for this, that in pairs] for key in both}


def table(rows: dict[tuple[str, str], list[float]]) -> str:
    """Format the ratios, a row per figure."""
    cells = [("figure, this / other", "median", "min", "max", "settings")]
    for (figure, settings), values in rows.items():
        shown = ", ".join(f"{name}={x}" for name, x in json.loads(settings).items())
        cells.append((figure, *(f"{f(values):.3f}" for f in (statistics.median, min, max)), shown))
    return aligned(cells)
