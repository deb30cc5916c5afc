"""How a command ends: well, with one sentence on a mistake of the user, cut short as by `| head`, or by a signal."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from purecc4.errors import Stopped, UserError

PATIENCE = 5.0
"""Seconds after which a signal ends the program without its cleaning up."""
_timers: list[threading.Timer] = []


def run(name: str, main: Callable[[], int | None]) -> int | None:
    """Result of `main`. A UserError ends the program with its sentence after the command's name, and status 1.

    Ctrl-C ends it with status 130, a request to terminate with 143. Where nobody reads the output any more, the program
    ends without a word, with status 1.
    """
    try:
        with signals():
            result = main()
            sys.stdout.flush()
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt as stopped:
        sys.exit(stopped.status if isinstance(stopped, Stopped) else 128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes at its end
        sys.exit(1)
    return result


@contextmanager
def signals() -> Iterator[None]:
    """Ctrl-C and requests to terminate raise Stopped."""
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for timer in _timers:
            timer.cancel()
        _timers.clear()


def end(number: int, _: FrameType | None) -> None:
    """Raise Stopped. Where a library swallows that, or the signal comes again, the program ends at once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, _: os._exit(128 + number))
    timer = threading.Timer(PATIENCE, os._exit, (128 + number,))
    timer.daemon = True
    timer.start()
    _timers.append(timer)
    raise Stopped(number)
