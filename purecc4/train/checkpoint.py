"""Files of arrays that say what they are: one line of JSON, then the leaves in order (`eqx.tree_serialise_leaves`).

A run folder holds `checkpoints/<arm>/<seed>/<env_steps>.eqx`, one network each, and `state.eqx`, all that is needed to
go on. A file is written under another name and then moved into place, so that a half-written one is never read.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from purecc4.errors import UserError, user_file

FORMAT = 1
STATE, CONFIG = "state.eqx", "config.json"


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Give `path` its new content at once or, if anything goes wrong on the way, not at all."""
    unfinished = path.with_name(path.name + ".part")
    with user_file(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_atomically(path, lambda file: file.write((json.dumps(content, indent=2) + "\n").encode()))


def save(path: Path, tree: PyTree, about: dict[str, Any]) -> None:
    """Write the arrays of `tree` (no PRNG keys) under a first line with `about` (JSON values)."""
    header = {"purecc4_format": FORMAT, "leaves": _leaves(tree), **about}

    def write(file: IO[bytes]) -> None:
        file.write(json.dumps(header).encode() + b"\n")
        eqx.tree_serialise_leaves(file, tree)

    write_atomically(path, write)


def read_about(path: Path) -> dict[str, Any]:
    """The first line of a file of `save`. UserError if it is missing, foreign or of another format."""
    with _open(path) as file:
        return _header(file, path)


def load(path: Path, like: PyTree) -> PyTree:
    """The arrays of a file of `save`, in the structure of `like` (arrays or their shapes).

    Raises UserError, with one sentence, if the file is missing, foreign, damaged, of another format or other shapes.
    """
    with _open(path) as file:
        if _header(file, path)["leaves"] != _leaves(like):
            raise UserError(f"{path} holds a network of other sizes than the one asked for.")
        try:
            return eqx.tree_deserialise_leaves(file, like)
        except (RuntimeError, ValueError, EOFError) as error:
            raise UserError(f"{path} is damaged: take another checkpoint.") from error


def path_of(folder: Path, arm: str, seed: int, env_steps: int) -> Path:
    """Where the network of a run after so many env steps lies."""
    return folder / "checkpoints" / arm / str(seed) / f"{env_steps}.eqx"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file of `save` by their names in the tree, such as `first.weight`, without knowing its structure.

    Raises UserError, with one sentence, if the file is missing, foreign, damaged or of another format.
    """
    with _open(path) as file:
        names = [name for name, *_ in _header(file, path)["leaves"]]
        try:
            return {name: np.load(file, allow_pickle=False) for name in names}
        except (ValueError, EOFError) as error:
            raise UserError(f"{path} is damaged: take another checkpoint.") from error


def _leaves(tree: PyTree) -> list[list]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        [jax.tree_util.keystr(path, simple=True, separator="."), list(leaf.shape), str(leaf.dtype)]
        for path, leaf in leaves
    ]


def _open(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise UserError(f"there is no file {path}.")
    with user_file(path):
        return path.open("rb")


def _header(file: IO[bytes], path: Path) -> dict[str, Any]:
    try:
        header = json.loads(file.readline(1 << 20))
        version = header["purecc4_format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a file of purecc4.") from error
    if version != FORMAT:
        raise UserError(f"{path} has format {version}, but this version of purecc4 reads format {FORMAT}.")
    return header
