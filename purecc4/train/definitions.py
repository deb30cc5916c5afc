"""User-defined arms and reds of a run folder: `definitions.toml`, a copy of what `--define` named."""

from pathlib import Path

import tomli_w

from purecc4.arms.define import Definitions, read
from purecc4.files import write

DEFINITIONS = "definitions.toml"


def load(define: Path | None, *folders: Path) -> Definitions:
    """Definitions of the file that `--define` names, if any, and of the run folders.

    Raises UserError for an invalid file, and for a name that two files define differently.
    """
    kept = [folder / DEFINITIONS for folder in folders if (folder / DEFINITIONS).exists()]
    return read(*([define] if define else []), *kept)


def keep(folder: Path, definitions: Definitions) -> None:
    """Write definitions into a run folder. Pass the result of `load`, so that no earlier definition is lost."""
    if definitions.tables:
        write(folder / DEFINITIONS, tomli_w.dumps(definitions.tables).encode())
