"""All tests: on the CPU, with key-reuse checking, and with a compile cache that all processes and sessions share."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# two processes share two cores already: code generation in threads only costs time
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1")

import jax

jax.config.update("jax_debug_key_reuse", True)

LONGEST_FIRST = ("algos", "cc4", "play", "train", "cyborg", "report", "arms", "bench", "cli")
"""Folders in the order in which the two processes take their files. Long files come first, so none is left for the end;
`cc4` starts while the other process trains, so its programs are compiled once."""


def pytest_collection_modifyitems(items: list) -> None:
    """Sort files by folder. The order within a folder stays."""
    order = {folder: number for number, folder in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(order)))
