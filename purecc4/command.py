"""Exit of a command: success, an error of the user, a closed pipe as in `| head`, or a signal."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from purecc4.errors import Stopped, UserError

PATIENCE = 5.0
"""Seconds after a signal until the program ends without cleaning up."""
SIGNALS = signal.SIGINT, signal.SIGTERM
_timers: list[threading.Timer] = []


def run(name: str, main: Callable[[], int | None]) -> int | None:
    """Run `main` and return its result. A UserError exits with status 1 and its message after the command's name.

    SIGINT (Ctrl-C) exits with status 130, SIGTERM with 143, a closed pipe silently with 1.
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout at exit
        sys.exit(1)
    return result


@contextmanager
def signals() -> Iterator[None]:
    """Context in which SIGINT and SIGTERM raise Stopped."""
    hook, sys.unraisablehook = sys.unraisablehook, once_more
    try:
        with handled_by(end):
            yield
    finally:
        sys.unraisablehook = hook
        for timer in _timers:
            timer.cancel()
        _timers.clear()


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Context in which a function handles SIGINT and SIGTERM."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(number: int, _: FrameType | None) -> None:
    """End the program at once. Used during imports: some libraries turn Stopped into another exception."""
    os._exit(128 + number)


def end(number: int, _: FrameType | None) -> None:
    """Raise Stopped. If a library swallows it or a second signal arrives, the program ends without cleaning up."""
    for each in SIGNALS:
        signal.signal(each, leave)
    _later(PATIENCE, leave, number, None)
    raise Stopped(number)


def once_more(unraisable: Any) -> None:
    """Send the signal again if Python drops its Stopped, as in a callback of the garbage collector."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)
        return
    for each in SIGNALS:
        signal.signal(each, end)
    _later(0.01, os.kill, os.getpid(), unraisable.exc_value.number)


def _later(seconds: float, function: Callable, *args: Any) -> None:
    timer = threading.Timer(seconds, function, args)
    timer.daemon = True
    timer.start()
    _timers.append(timer)
