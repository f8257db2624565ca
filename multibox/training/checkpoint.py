"""The state of a run on disk: written whole or not at all, the last two kept, a damaged one passed over."""

import logging
import os
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch

from multibox.files import atomic_write

log = logging.getLogger("multibox")


class Saved(NamedTuple):
    """A state, and the file that it was read from."""

    path: Path
    state: dict[str, Any]


class Checkpoints:
    """`last.pt`, and `previous.pt` from before it.

    Attributes:
        last: The newer file.
        previous: The older one.
    """

    def __init__(self, folder: Path) -> None:
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"

    def write(self, state: dict[str, Any]) -> None:
        """Writes the state; killed at any moment, it leaves at least one of the two whole.

        Raises:
            OSError: It cannot be written, as where the disk is full; the files are as before.
        """
        with atomic_write(self.last) as part:
            try:
                with part.open("wb") as file:
                    torch.save(state, file)
                    file.flush()
                    os.fsync(file.fileno())
            except RuntimeError as error:  # what torch makes of a disk that fills up in the midst of it
                raise OSError(f"{part}: cannot be written ({error.__context__ or error})") from error
            if self.last.exists():
                os.replace(self.last, self.previous)

    def read(self) -> Saved | None:
        """The newest state that is whole; nothing where none was ever written.

        Raises:
            ValueError: There are files, but each is damaged.
        """
        damaged = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                state = _read(path)
            except (OSError, EOFError, UnpicklingError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
                # torch's own advice about files that it cannot read safely is no good one
                why = "it is not what a run saves" if isinstance(error, UnpicklingError) else str(error)
                damaged.append(f"{path}: damaged ({why})")
                continue
            for complaint in damaged:
                # out of the way, where the next write would let it take the place of the whole one
                aside = self.last.with_name("last.pt.damaged")
                os.replace(self.last, aside)
                log.warning(
                    "%s; going on from %s, which was saved before it; the other is kept as %s",
                    complaint,
                    path.name,
                    aside.name,
                )
            return Saved(path, state)
        if damaged:
            raise ValueError(f"{'; '.join(damaged)}; cannot go on from it: start anew in another folder")
        return None


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:  # torch's reader does not look at the check sums
        damaged = file.testzip()
    if damaged:
        raise ValueError(f"the check sum of {damaged} is wrong")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("it is not what a run saves")
    return state
