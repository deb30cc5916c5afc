"""User-defined arms, reds and games of a run folder: `definitions.toml`, a copy of what `--define` named."""

from collections.abc import Iterable
from pathlib import Path

import tomli_w

from purecc4.arms.define import Definitions, parse, pool, read
from purecc4.errors import user_file
from purecc4.files import write

DEFINITIONS = "definitions.toml"
_trained: dict[tuple[Path | None, Path], Definitions] = {}
"""Definitions of a training that was built and not yet started, by `--define` and run folder."""


def load(define: Path | None, *folders: Path) -> Definitions:
    """Definitions of the file that `--define` names, if any, and of the run folders.

    Raises UserError for an invalid file, and for a name that two files define differently.
    """
    return read(*([define] if define else []), *_kept(folders))


def refuse_unlike_matches(folders: Iterable[Path]) -> None:
    """Raises UserError for a red or a game that two run folders define differently."""
    kinds = "reds", "games"
    pool({path: {kind: parse(path).get(kind, {}) for kind in kinds} for path in _kept(folders)})


def _kept(folders: Iterable[Path]) -> list[Path]:
    """Files of definitions in run folders."""
    found = [folder / DEFINITIONS for folder in folders if (folder / DEFINITIONS).exists()]
    for path in found:
        with user_file(path):
            pass  # only `--define` may be a pipe
    return found


def load_to_train(define: Path | None, folder: Path) -> Definitions:
    """Definitions of a training, as `load`. `trained` returns the same, even if the files have changed since."""
    _trained[define, folder] = load(define, folder)
    return _trained[define, folder]


def trained(define: Path | None, folder: Path) -> Definitions:
    """Definitions that the environment of a training was built with. A training in another environment has those of
    `load`."""
    found = _trained.pop((define, folder), None)
    return load(define, folder) if found is None else found


def keep(folder: Path, definitions: Definitions) -> None:
    """Write definitions into a run folder. Pass the result of `load`, so that no earlier definition is lost."""
    if definitions.tables:
        write(folder / DEFINITIONS, tomli_w.dumps(definitions.tables).encode())
