"""Mistakes of the user, told apart from mistakes in the code: the former are one sentence, the latter a traceback."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class UserError(Exception):
    """What the user has to change, in one sentence. A command prints it and ends with status 1."""


class NotWritten(UserError):
    """A file could not be written, such as on a full disk; what it held before is unchanged."""


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end: Ctrl-C or a request to terminate."""

    def __init__(self, number: int):
        self.number, self.status = number, 128 + number
        super().__init__(self.status)


@contextlib.contextmanager
def user_file(path: Path) -> Iterator[None]:
    """Reading or writing a file that the user named. Raises UserError, naming the file, where the system refuses."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read or write {error.filename or path}: {error.strerror}.") from error
    except UnicodeError as error:
        raise UserError(f"{path} is no text in UTF-8: it is damaged or foreign.") from error


@contextlib.contextmanager
def user_values() -> Iterator[None]:
    """Passing what the user wrote to the simulator. Raises UserError with the sentence of its ValueError."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error
