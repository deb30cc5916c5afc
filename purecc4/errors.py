"""Mistakes of the user, told apart from mistakes in the code: the former are one sentence, the latter a traceback."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class UserError(Exception):
    """What the user has to change, in one sentence. A command prints it and ends with status 1."""


@contextlib.contextmanager
def user_file(path: Path) -> Iterator[None]:
    """Reading or writing a file that the user named. Raises UserError, naming the file, where the system refuses."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read or write {error.filename or path}: {error.strerror}.") from error


@contextlib.contextmanager
def user_values() -> Iterator[None]:
    """Passing what the user wrote to the simulator. Raises UserError with the sentence of its ValueError."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error
