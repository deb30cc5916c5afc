"""How a command ends: well, with one sentence on a mistake of the user, cut short as by `| head`, or by a signal."""

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
"""Seconds after which a signal ends the program without its cleaning up."""
SIGNALS = signal.SIGINT, signal.SIGTERM
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
    """Let a function handle Ctrl-C and requests to terminate."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(number: int, _: FrameType | None) -> None:
    """End the program at once, as while libraries load: some of them turn Stopped into another exception."""
    os._exit(128 + number)


def end(number: int, _: FrameType | None) -> None:
    """Raise Stopped. Where a library swallows that, or the signal comes again, the program ends at once."""
    for each in SIGNALS:
        signal.signal(each, leave)
    _later(PATIENCE, leave, number, None)
    raise Stopped(number)


def once_more(unraisable: Any) -> None:
    """Send the signal again where Python drops its Stopped, as in a callback of the garbage collector."""
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
