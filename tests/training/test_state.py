"""The state on disk: whole or not at all, and a damaged one is passed over."""

import errno
import io
import logging
import os

import pytest
import torch

from multibox.training.state import Checkpoints


@pytest.fixture
def checkpoints(tmp_path):
    """Of the steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.write({"step": step, "weights": torch.arange(4.0) * step})
    return checkpoints


def test_the_last_two_are_kept(checkpoints):
    checkpoints.write({"step": 3})
    assert torch.load(checkpoints.last, weights_only=True) == {"step": 3}
    assert torch.load(checkpoints.previous, weights_only=True)["step"] == 2
    assert sorted(path.name for path in checkpoints.last.parent.iterdir()) == ["last.pt", "previous.pt"]


@pytest.mark.parametrize("said_by", ["Python", "torch"])
def test_a_disk_that_is_full_takes_nothing_away(checkpoints, monkeypatch, said_by):
    class Full(io.BytesIO):
        """Of a few bytes."""

        def write(self, data):
            if self.tell() > 200:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    save = torch.save

    def saved(state, file):
        file.write(b"part of it")
        if said_by == "Python":
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, Full())

    monkeypatch.setattr(torch, "save", saved)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoints.write({"step": 3, "weights": torch.arange(1000)})
    assert sorted(path.name for path in checkpoints.last.parent.iterdir()) == ["last.pt", "previous.pt"]
    assert checkpoints.read().values["step"] == 2


def test_nothing_was_written(tmp_path):
    assert Checkpoints(tmp_path).read() is None


def test_a_flipped_byte_is_recognized(checkpoints, caplog):
    """Or is of no consequence, as in what only fills the file up."""
    whole = checkpoints.last.read_bytes()
    passed_over = 0
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        checkpoints.last.write_bytes(damaged)
        path, values = checkpoints.read()
        step = 2 if path == checkpoints.last else 1
        passed_over += step == 1
        assert values["step"] == step, position
        assert torch.equal(values["weights"], torch.arange(4.0) * step), position
    assert passed_over > 0.2 * len(whole) / 7


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_one_that_was_cut_off_is_recognized(checkpoints, caplog, keep):
    caplog.set_level(logging.WARNING, "multibox")
    whole = checkpoints.last.read_bytes()
    checkpoints.last.write_bytes(whole[:keep])
    path, values = checkpoints.read()
    assert (path, values["step"]) == (checkpoints.previous, 1)
    (said,) = caplog.messages
    assert said.startswith(f"{checkpoints.last}: damaged (")
    assert said.endswith(
        "going on from previous.pt, which was saved before it; the damaged file is kept as last.pt.damaged"
    )
    assert len(checkpoints.last.with_name("last.pt.damaged").read_bytes()) == len(whole[:keep])


def test_both_are_damaged(checkpoints):
    for path in (checkpoints.last, checkpoints.previous):
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(
        ValueError, match=r"last\.pt: damaged .*previous\.pt: damaged .*: start again in another folder"
    ):
        checkpoints.read()


def test_only_the_older_one_is_there(checkpoints):
    """Killed between the two renames."""
    checkpoints.last.unlink()
    assert checkpoints.read().values["step"] == 1
    checkpoints.write({"step": 2})
    assert checkpoints.read().values["step"] == 2
    assert torch.load(checkpoints.previous, weights_only=True)["step"] == 1


@pytest.mark.parametrize("damage", [False, True], ids=["whole", "damaged"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_write_that_ends_at_a_rename_loses_nothing(checkpoints, monkeypatch, damage, at):
    """Nor does a damaged file take the place of the whole one meanwhile."""
    if damage:
        checkpoints.last.write_bytes(b"torn")
    before = checkpoints.read().values["step"]
    replace, calls = os.replace, []

    def killed(source, target):
        calls.append(target)
        if len(calls) == at:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        try:
            checkpoints.write({"step": 3})
        except KeyboardInterrupt:
            assert checkpoints.read().values["step"] == before
    if len(calls) < at:
        assert checkpoints.read().values["step"] == 3
