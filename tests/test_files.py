"""Tests that a file is written whole or not at all, and that no other file is touched."""

import errno
import os
import stat
from pathlib import Path

import pytest

from multibox.files import atomic_write, remove_leftovers


def test_files_beside_it_are_kept(tmp_path: Path):
    mine = tmp_path / "a.txt.part"
    mine.write_text("mine")
    with atomic_write(tmp_path / "a.txt") as first, atomic_write(tmp_path / "a.txt") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first"  # the last to end
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.txt.part"]


def test_a_failure_leaves_everything_as_it_was(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"), atomic_write(file) as part:
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyboardInterrupt), atomic_write(file) as part:
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("last.pt.part", "holiday.part", "last.pt.0123abcd.part.txt"):
        (tmp_path / name).write_text("mine")
    mine = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "last.pt"):
        patch.setattr(Path, "unlink", lambda path, **_: None)  # as if killed
        raise KeyboardInterrupt
    assert len(list(tmp_path.iterdir())) == len(mine) + 1
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == mine


@pytest.mark.skipif(os.name == "nt", reason="there is no umask")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_says_who_may_read_it(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask
