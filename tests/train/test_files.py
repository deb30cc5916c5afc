"""Files and locks: atomic writes, leftovers of killed processes, one writer per folder."""

import errno
import os
from functools import partial
from pathlib import Path

import pytest

from purecc4 import files
from purecc4.errors import NotWritten, UserError


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
