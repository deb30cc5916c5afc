"""Atomic writes of files, and a lock against concurrent writers of a folder."""

import csv
import errno
import fcntl
import io
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from purecc4.errors import NotWritten, UserError, user_file

PART = ".purecc4-part"
"""Suffix of a file that is being written."""
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
"""Errors of `flock` on a file system without locks."""
_held: dict[Path, tuple[Path, int]] = {}
"""Lock files that this process holds: their folder and open descriptor."""


def write(path: Path, content: bytes) -> None:
    """Write a file atomically, and remove what killed processes left in its folder.

    A symbolic link is followed. A device or FIFO is written to directly.

    Raises NotWritten, with the file's name, if the system refuses; then the previous content is unchanged and no
    temporary file remains. Raises UserError as `check_locks` does.
    """
    check_locks(path)
    try:
        if is_special(path):
            with path.open("wb") as file:
                file.write(content)
        else:
            _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        no_place = error.errno == errno.ENOENT and path.parent.is_dir()  # as in /proc
        reason = f"no file can be created in {path.parent}" if no_place else error.strerror
        raise NotWritten(f"cannot read or write {path}: {reason}.") from error


def is_special(path: Path) -> bool:
    """True for a device, FIFO or socket: an existing file that holds no content of its own."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _replace(path: Path, content: bytes) -> None:
    """Write a temporary file and move it to `path`."""
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


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Create a new folder with files, by their names, atomically. Raises NotWritten as `write` does."""
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
    """Create a temporary file in the folder of `path`. It is locked while open, so `clean` skips it."""
    while True:
        file = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}").open("xb")
        with suppress(OSError):  # a file system without locks, on which `clean` removes nothing either
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process removed it before it was locked


def rename(unfinished: Path, path: Path) -> None:
    """Move a finished file into place, and flush its folder to disk."""
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def append(path: Path, text: str) -> None:
    """Append text to a file. Raises NotWritten, with the file's name, if the system refuses.

    Raises UserError as `check_locks` does.
    """
    check_locks(path)
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
    """Content of a JSON file. Raises UserError, with the file's name, if it is missing or invalid."""
    try:
        with user_file(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not valid JSON: it is damaged or not a file of purecc4.") from None


def clean(paths: Iterable[Path]) -> None:
    """Remove temporary files that no process has open."""
    for path in list(paths):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextmanager
def locked(folder: Path, task: str) -> Iterator[None]:
    """Create a folder and hold its lock for a task. The system releases the lock if the process dies.

    Temporary files that killed processes left in the folder are removed, whatever their task was. On a file system
    without locks, a warning says that other processes are not kept out.

    Raises UserError, with the process that holds the lock and its start time, if another process does.
    """
    lock, about = folder / f".{task}.lock", folder / f".{task}.json"
    with user_file(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = _lock(lock)
    if file is None:
        raise UserError(f"{folder} is in use: {_holder(about)}. Wait for it, or choose another folder.")
    _held[lock] = folder, file
    try:
        clean(folder.rglob(f"*{PART}"))
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(about, {"task": task, "pid": os.getpid(), "host": socket.gethostname(), "since": since})
        yield
    finally:
        if _is_at(file, lock):
            with suppress(OSError):
                about.unlink(missing_ok=True)
        del _held[lock]
        os.close(file)


def _lock(path: Path) -> int | None:
    """Open and lock a file, which gets the permissions of its folder. None if another process holds the lock.

    It gets the folder's group, too, if this user is in it; from root also the owner.
    """
    while True:
        is_new = not path.exists()
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if is_new:
                folder = path.parent.stat()
                with suppress(OSError):
                    os.fchown(file, -1 if os.geteuid() else folder.st_uid, folder.st_gid)
                os.fchmod(file, folder.st_mode & 0o666 | 0o600)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(file)
                raise
            print(f"{path.parent} has no file locks: start no second command that writes to it.", file=sys.stderr)
        if _is_at(file, path):
            return file
        os.close(file)  # another process removed it before it was locked


def _is_at(file: int, path: Path) -> bool:
    """True if a path still leads to an open file."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(file), path.stat())
    return False


def check_locks(path: Path) -> None:
    """Raises UserError if the lock of the folder of `path` is gone, so that another process may write there.

    The folder was moved or deleted, or the lock file was.
    """
    for lock, (folder, file) in _held.items():
        if path.is_relative_to(folder) and not _is_at(file, lock):
            raise UserError(
                f"{folder} or its {lock.name} was moved or deleted: stopped, as another process may use the folder."
            )


def _holder(about: Path) -> str:
    try:
        return "{task} by process {pid} on {host} since {since}".format(**json.loads(about.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return "another process has just started"
