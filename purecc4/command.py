"""How a command ends: well, with one sentence on a mistake of the user, or cut short as by `| head`."""

import os
import sys
from collections.abc import Callable

from purecc4.errors import UserError


def run(name: str, main: Callable[[], int | None]) -> int | None:
    """Result of `main`. A UserError ends the program with its sentence after the command's name, and status 1.

    Where nobody reads the output any more, the program ends without a word, with status 1.
    """
    try:
        result = main()
        sys.stdout.flush()
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes at its end
        sys.exit(1)
    return result
