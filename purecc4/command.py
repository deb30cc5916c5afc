"""Exit of a command: success, an error of the user or of the system, a closed pipe as in `| head`, or a signal."""

import errno
import io
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from purecc4.errors import Stopped, UserError

PATIENCE = 5.0
"""Seconds after a signal until the program ends without cleaning up."""
SIGNALS = signal.SIGINT, signal.SIGTERM
_OF_THE_SYSTEM = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOSPC, errno.EDQUOT),
    *(errno.EFBIG, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EBADF),
}
"""Errors that permissions, disks and limits cause, and no bug."""
LEAST_COLUMNS = 40
"""Narrowest terminal that help texts are formatted for."""
_timers: list[threading.Timer] = []


def run(name: str, main: Callable[[], int | None]) -> int | None:
    """Run `main` and return its result. A UserError exits with status 1 and its message after the command's name.

    An error of the system, such as a full disk or a missing GPU, does the same. SIGINT (Ctrl-C) exits with status 130,
    SIGTERM with 143, a closed pipe silently with 1.
    """
    try:
        with signals():
            prepare_output()
            try:
                result = main()
            except SystemExit:  # --help
                sys.stdout.flush()
                raise
            sys.stdout.flush()
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt as stopped:
        sys.exit(stopped.status if isinstance(stopped, Stopped) else 128 + signal.SIGINT)
    except BrokenPipeError:
        drop_output()
        sys.exit(1)
    except (RuntimeError, AssertionError) as error:
        if has_device():
            raise
        reason = str(error) or "JAX_PLATFORMS names no device of this machine that the installed JAX supports."
        sys.exit(f"{name}: JAX cannot start: {reason.splitlines()[0]}")
    except OSError as error:
        if error.errno not in _OF_THE_SYSTEM:
            raise
        drop_output()
        sys.exit(f"{name}: cannot read or write {shortened(error.filename or 'the output')}: {error.strerror}.")
    return result


def has_device() -> bool:
    """False if JAX was imported and finds no device of JAX_PLATFORMS."""
    try:
        return "jax" not in sys.modules or bool(sys.modules["jax"].devices())
    except (RuntimeError, AssertionError):  # JAX raises an empty AssertionError without the plugin of a known platform
        return False


def prepare_output() -> None:
    """Replace characters that the output cannot show. Raises UserError without a standard output."""
    if shutil.get_terminal_size().columns < LEAST_COLUMNS:
        os.environ["COLUMNS"] = str(LEAST_COLUMNS)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        raise UserError("standard output is closed: redirect it to a file or to /dev/null.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def refuse_repeated(args: Sequence[str]) -> None:
    """Raises UserError for a flag that is given twice, of which only the last would count."""
    flags = [arg.partition("=")[0].replace("_", "-") for arg in args if arg.startswith("--")]
    for flag in flags:
        if flags.count(flag) > 1:
            raise UserError(f"{flag} is given twice: give it once, with all of its values.")


def drop_output() -> None:
    """Discard what standard output still holds, which Python would write at exit."""
    with suppress(OSError, ValueError):  # a test's replacement has no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def shortened(path: object, most: int = 200) -> str:
    """A path as text, cut to a length that a line can show."""
    text = str(path)
    return text if len(text) <= most else f"{text[:most]}..."


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
