"""Commands whose output is cut short, as by `| head`."""

import os
import sys
from collections.abc import Callable


def run(main: Callable[[], int | None]) -> int | None:
    """Result of `main`; where nobody reads its output any more, the program ends without a word, with status 1."""
    try:
        result = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes at its end
        sys.exit(1)
    return result
