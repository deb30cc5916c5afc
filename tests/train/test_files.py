"""Files and locks: atomic writes, leftovers of killed processes, one writer per folder."""

import errno
import os
from functools import partial
from pathlib import Path

import pytest

from purecc4 import files
from purecc4.errors import NotWritten, UserError
from purecc4.play import tables
from purecc4.train import definitions, metrics, run_reader


def full_disk(name, unfinished, path):
    """Replaces `files.rename`: the disk is full when a file of this name is written."""
    if path.name == name:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    unfinished.replace(path)


def test_a_failed_write_changes_nothing(tmp_path):
    (tmp_path / "file").write_text("before")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotWritten, match=r"folder: Is a directory"):
        files.write(tmp_path / "folder", b"x")
    with pytest.raises(NotWritten, match=r"below: (Not a directory|File exists)"):
        files.write(tmp_path / "file" / "below", b"x")
    assert (tmp_path / "file").read_text() == "before" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_folder_that_takes_no_files_is_named():
    with pytest.raises(NotWritten, match="no file can be created in /proc"):
        files.write(Path("/proc/x"), b"x")


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    """By the next write in the same folder, or the next lock of a folder above. Files being written are kept."""
    dead = [tmp_path / f"{name}.12345678{files.PART}" for name in ("report/forest.png", "report/gone.csv", "a/b/x.eqx")]
    foreign = tmp_path / "report" / "download.part"
    for path in (*dead, foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with files._begin(tmp_path / "report" / "alive.csv") as alive:
        files.write(tmp_path / "report" / "forest.png", b"whole")
        assert not dead[0].exists() and not dead[1].exists() and dead[2].exists()
        with files.locked(tmp_path, "evaluation"):
            assert Path(alive.name).exists() and not dead[2].exists()
    assert foreign.exists() and (tmp_path / "report" / "forest.png").read_text() == "whole"


def test_a_temporary_file_that_was_removed_before_it_was_locked_is_created_again(tmp_path, monkeypatch):
    lock, cleaned = files.fcntl.flock, []

    def flock(file, kind):
        if not cleaned:
            cleaned.append(file.name)
            Path(file.name).unlink()
        lock(file, kind)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    files.write(tmp_path / "file", b"whole")
    assert cleaned and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_written_atomically(tmp_path, monkeypatch):
    left = tmp_path / f"new{files.PART}" / "half"
    left.parent.mkdir()
    left.write_text("half")
    contents = {"a": b"1", "below/b": b"2"}
    with monkeypatch.context() as patch, pytest.raises(NotWritten, match=r"b: No space left"):
        patch.setattr(files, "rename", partial(full_disk, "b"))
        files.write_folder(tmp_path / "new", contents)
    assert not list(tmp_path.iterdir())
    files.write_folder(tmp_path / "new", contents)
    assert (tmp_path / "new/below/b").read_bytes() == b"2" and len(list(tmp_path.rglob("*"))) == 4
    with pytest.raises(NotWritten, match=r"new: Directory not empty"):
        files.write_folder(tmp_path / "new", contents)


def test_a_run_folder_has_one_evaluation_at_a_time(tmp_path, monkeypatch, held):
    from purecc4.play import evaluate

    monkeypatch.chdir(tmp_path)
    process = held("evaluation")
    config = evaluate.Config(Path("runs/run"), env_steps=("none",), policies=("sleep",))
    with pytest.raises(UserError, match=f"evaluation by process {process.pid}"):
        evaluate.evaluate(config)


def test_links_are_followed_and_pipes_written_to(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    for content in (b"1", b"2"):
        files.write(tmp_path / "link", content)
        assert (tmp_path / "elsewhere" / "file").read_bytes() == content and (tmp_path / "link").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write(tmp_path / "pipe", b"3")
    assert os.read(reader, 9) == b"3" and (tmp_path / "pipe").is_fifo()
    os.close(reader)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_gets_a_warning(number, tmp_path, monkeypatch, capsys):
    def flock(file, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    for _ in range(2):  # the lock file of the first is left over
        with files.locked(tmp_path / "run", "training"):
            files.write(tmp_path / "run" / "file", b"x")
        assert "no file locks" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"file", ".training.lock"}


def test_locks_have_the_permissions_of_their_folder(tmp_path):
    for mode in (0o775, 0o700):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        with files.locked(folder, "evaluation"):
            assert (folder / ".evaluation.lock").stat().st_mode & 0o777 == mode & 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of somebody else")
def test_locks_belong_to_the_owner_and_group_of_their_folder(tmp_path):
    os.chown(tmp_path, 5001, 6000)
    with files.locked(tmp_path, "evaluation"):
        lock = (tmp_path / ".evaluation.lock").stat()
        assert (lock.st_uid, lock.st_gid) == (5001, 6000)


@pytest.mark.parametrize("change", ["removed", "replaced", "moved"])
def test_nothing_is_written_after_the_lock_is_gone(change, tmp_path):
    """Neither into a folder that another process may have locked, nor into a new one of the same name."""
    folder = tmp_path / "run"
    with files.locked(folder, "training"):
        lock = folder / ".training.lock"
        if change == "moved":
            folder.rename(tmp_path / "other")
        else:
            lock.unlink()
        if change == "replaced":
            lock.write_text("")
        for write, content in ((files.write, b"x"), (files.append, "x")):
            with pytest.raises(UserError, match="moved or deleted"):
                write(folder / "new" / "file", content)
        files.write(tmp_path / "outside", b"x")
    assert not (folder / "new").exists()


def test_files_that_never_end_are_refused(tmp_path):
    """In a run folder. `--define` may be a pipe, which is read once."""
    for name in ("config.json", "metrics.csv", "evaluation.csv", "evaluation.json", "definitions.toml"):
        os.mkfifo(tmp_path / name)
    for read in (
        partial(run_reader.read_config, tmp_path),
        partial(metrics.read_metrics, [tmp_path]),
        partial(tables.read_numbers, tmp_path / "evaluation.csv", ()),
        partial(tables.read_evaluation, [tmp_path]),
        partial(definitions.load, None, tmp_path),
    ):
        with pytest.raises(UserError, match="a regular file is needed"):
            read()


def test_definitions_are_read_once(tmp_path):
    """The environment and the run folder have the same, though the file changes or is a pipe."""
    path, folder = tmp_path / "mine.toml", tmp_path / "run"
    path.write_text("[arms.calm]\nrestore_cost = 0.5\n")
    first = definitions.load_to_train(path, folder)
    path.write_text("[arms.calm]\nrestore_cost = 2\n")
    assert definitions.trained(path, folder).tables == first.tables
    assert definitions.trained(path, folder).arms["calm"].restore_cost == 2
