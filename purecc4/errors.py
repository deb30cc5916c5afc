"""Errors of the user, which end a command with one sentence; bugs in the code show a traceback."""

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path


class UserError(Exception):
    """Invalid input. The message tells the user what to change; a command prints it and exits with status 1."""


class NotWritten(UserError):
    """A file could not be written, for example on a full disk. Its previous content is unchanged."""


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end: SIGINT (Ctrl-C) or SIGTERM."""

    def __init__(self, number: int):
        self.number, self.status = number, 128 + number
        super().__init__(self.status)


_WITHOUT_END = stat.S_ISFIFO, stat.S_ISCHR, stat.S_ISSOCK
"""Tests for files that may be read without end."""


@contextlib.contextmanager
def user_file(path: Path, streams: bool = False) -> Iterator[None]:
    """Context for reading or writing a file that the user named. OSError becomes a UserError with the file's name.

    Raises UserError for a FIFO, a device or a socket, which may never end, unless `streams` is set.
    """
    try:
        if not streams and path.exists() and any(test(path.stat().st_mode) for test in _WITHOUT_END):
            raise UserError(f"{path} is a device, a pipe or a socket: a regular file is needed here.")
        yield
    except OSError as error:
        raise UserError(f"cannot read or write {error.filename or path}: {error.strerror}.") from error
    except UnicodeError as error:
        raise UserError(f"{path} is not UTF-8 text: it is damaged or not a file of purecc4.") from error


@contextlib.contextmanager
def user_values() -> Iterator[None]:
    """Context for passing values of the user to the simulator. Its ValueError becomes a UserError."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error
