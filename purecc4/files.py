"""Files of a run folder: one way to write them, whole or not at all, and one lock against two writers."""

import csv
import fcntl
import io
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from purecc4.errors import NotWritten, UserError, user_file

PART = ".purecc4-part"
"""Ending of a file that is being written."""


def write(path: Path, content: bytes) -> None:
    """Give `path` its new content at once or, if anything goes wrong on the way, not at all.

    Raises NotWritten, with the file's name, where the system refuses; then nothing is left of the attempt. What killed
    processes left in the same folder goes.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clean(path.parent.glob(f"*{PART}"))
        with _begin(path) as file:
            unfinished = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                rename(unfinished, path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise NotWritten(f"cannot read or write {path}: {error.strerror}.") from error


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Make a new folder with files by their names, all at once or not at all. Raises as `write` does."""
    unfinished = folder.with_name(folder.name + PART)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        for name, content in contents.items():
            write(unfinished / name, content)
        rename(unfinished, folder)
    except OSError as error:
        raise NotWritten(f"cannot read or write {folder}: {error.strerror}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _begin(path: Path) -> BinaryIO:
    """A new file beside `path`. It is locked while it is open, and `clean` leaves it alone."""
    while True:
        file = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}").open("xb")
        with suppress(OSError):  # on a file system without locks, where nothing is cleaned either
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # cleaned before it was locked


def rename(unfinished: Path, path: Path) -> None:
    """Move a finished file into place, and make the system remember it."""
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def append(path: Path, text: str) -> None:
    """Add text to the end of a file. Raises NotWritten, with the file's name, where the system refuses."""
    try:
        with path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise NotWritten(f"cannot read or write {path}: {error.strerror}.") from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    write(path, (json.dumps(content, indent=2) + "\n").encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; floats keep 8 significant digits."""
    write(path, csv_text([columns, *rows]).encode())


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows of a table as CSV; floats keep 8 significant digits."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([f"{x:.8g}" if isinstance(x, float) else x for x in row] for row in rows)
    return text.getvalue()


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises UserError, naming it, if it is missing or is none."""
    try:
        with user_file(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON: it is damaged or foreign.") from None


def clean(paths: Iterable[Path]) -> None:
    """Of files that end in PART, remove those that no process has open any more."""
    for path in list(paths):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextmanager
def locked(folder: Path, task: str) -> Iterator[None]:
    """Make the folder, and let nobody else do the same task in it; a process that dies lets go of it.

    What killed processes left anywhere in it goes, whatever their task was.

    Raises UserError, naming the process that holds the lock and since when, if another one does.
    """
    lock, about = FileLock(folder / f".{task}.lock"), folder / f".{task}.json"
    with user_file(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{folder} is in use: {_holder(about)}; wait for it, or choose another folder.") from None
    try:
        clean(folder.rglob(f"*{PART}"))
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(about, {"task": task, "pid": os.getpid(), "host": socket.gethostname(), "since": since})
        yield
    finally:
        with suppress(OSError):
            about.unlink(missing_ok=True)
        lock.release()


def _holder(about: Path) -> str:
    try:
        return "{task} by process {pid} on {host} since {since}".format(**json.loads(about.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return "another process has just started"
