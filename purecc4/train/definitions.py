"""The arms and reds of the user's own that a run folder was made with: `definitions.toml`, kept beside its settings."""

from pathlib import Path

import tomli_w

from purecc4.arms.define import Definitions, read
from purecc4.files import write

DEFINITIONS = "definitions.toml"


def load(define: Path | None, *folders: Path) -> Definitions:
    """What `--define` names, if anything, together with what the run folders keep.

    Raises UserError, with one sentence, for a file that is wrong, and for a name that two of them define differently.
    """
    kept = [folder / DEFINITIONS for folder in folders if (folder / DEFINITIONS).exists()]
    return read(*([define] if define else []), *kept)


def keep(folder: Path, definitions: Definitions) -> None:
    """Write a copy into a run folder, whole or not at all. Give it what `load` found, so that nothing kept is lost."""
    if definitions.tables:
        write(folder / DEFINITIONS, tomli_w.dumps(definitions.tables).encode())
