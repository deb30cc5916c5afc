"""Checkpoints: files with a JSON header in the first line, then the leaves in order (`eqx.tree_serialise_leaves`).

A run folder holds `checkpoints/<arm>/<seed>/<env_steps>.eqx`, one network each, and `state.eqx`, the training state
that `--resume` needs. The header has a checksum of the rest of the file, which every reader verifies. Files of older
versions have no checksum; they are read if their arrays are complete.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from purecc4 import files
from purecc4.errors import UserError, user_file

FORMAT = 1
STATE, CONFIG = "state.eqx", "config.json"
CHECKSUM = "sha256"


def save(path: Path, tree: PyTree, about: dict[str, Any]) -> None:
    """Write the arrays of `tree` (no PRNG keys) behind a header with `about` (JSON values) and the checksum."""
    body = io.BytesIO()
    eqx.tree_serialise_leaves(body, tree)
    header = {"purecc4_format": FORMAT, "leaves": _leaves(tree), **about}
    header |= {CHECKSUM: _checksum(header, body.getvalue())}
    files.write(path, json.dumps(header).encode() + b"\n" + body.getvalue())


def read_about(path: Path) -> dict[str, Any]:
    """Read the header of a file that `save` wrote. Raises UserError as `load` does."""
    return _read(path)[0]


def load(path: Path, like: PyTree) -> PyTree:
    """Read the arrays of a file that `save` wrote, into the structure of `like` (arrays or their shapes).

    Raises UserError if the file is missing, was not written by `save`, was changed or moved, has another format or
    other shapes, or holds a number that is not finite.
    """
    header, body = _read(path)
    if header["leaves"] != _leaves(like):
        raise UserError(f"{path} holds a network of other sizes than requested.")
    with io.BytesIO(body) as file:
        try:
            tree = eqx.tree_deserialise_leaves(file, like)
        except (RuntimeError, ValueError, EOFError) as error:
            raise _damaged(path) from error
        _check(path, file, dict(zip(_names(header), jax.tree.leaves(tree), strict=True)))
    return tree


def path_of(folder: Path, arm: str, seed: int, env_steps: int) -> Path:
    """Path of the network of one run after a number of env steps."""
    return folder / "checkpoints" / arm / str(seed) / f"{env_steps}.eqx"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file that `save` wrote by their names in the tree, such as `first.weight`.

    The structure of the tree is not needed.

    Raises UserError as `load` does.
    """
    header, body = _read(path)
    with io.BytesIO(body) as file:
        try:
            arrays = {name: np.load(file, allow_pickle=False) for name in _names(header)}
        except (ValueError, EOFError) as error:
            raise _damaged(path) from error
        found = [[name, list(array.shape), str(array.dtype)] for name, array in arrays.items()]
        if found != header["leaves"]:
            raise _damaged(path)
        _check(path, file, arrays)
    return arrays


def _leaves(tree: PyTree) -> list[list]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        [jax.tree_util.keystr(path, simple=True, separator="."), list(leaf.shape), str(leaf.dtype)]
        for path, leaf in leaves
    ]


def _names(header: dict[str, Any]) -> list[str]:
    return [name for name, *_ in header["leaves"]]


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged or was changed: use another checkpoint.")


def _check(path: Path, file: io.BytesIO, arrays: dict[str, Any]) -> None:
    """Raises UserError if data follows the arrays, or a number in them is not finite."""
    if file.read(1):
        raise _damaged(path)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path} holds numbers that are not finite in {name}: use another checkpoint.")


def _checksum(header: dict[str, Any], body: bytes) -> str:
    return hashlib.sha256(json.dumps(header).encode() + b"\n" + body).hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Read and verify a file that `save` wrote. Returns its header and its body."""
    if not path.is_file():
        raise UserError(f"there is no file {path}.")
    with user_file(path):
        first, _, body = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(first)
        version, leaves = header["purecc4_format"], header["leaves"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} was not written by purecc4.") from error
    if version != FORMAT:
        raise UserError(f"{path} has format {version!r}, but this version of purecc4 reads format {FORMAT}.")
    expected = header.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(header, body):
        raise _damaged(path)
    if not isinstance(leaves, list) or not all(isinstance(leaf, list) and len(leaf) == 3 for leaf in leaves):
        raise _damaged(path)
    _check_place(path, header)
    return header, body


def _check_place(path: Path, header: dict[str, Any]) -> None:
    """Raises UserError if the header of a checkpoint names another run or other env steps than its path."""
    place = path.absolute().with_suffix("").parts[-4:]
    if place[0] != "checkpoints":
        return
    for name, there in zip(("arm", "seed", "env_steps"), place[1:], strict=True):
        if str(header.get(name, there)) != there:
            raise UserError(f"{path} holds a checkpoint with {name} {header[name]}: move it back to its original path.")
