"""The names of the files in the folder of a run, and what they say without torch."""

from contextlib import suppress
from pathlib import Path

from multibox.report.files import REPORT_FILES

REPORT = "report"
"""Folder of the report that a run leaves, below its own."""

LIVE = "live"
"""Folder of the report that `multibox report --follow` keeps fresh, apart from the one that the run leaves."""

FILES = (
    *("best.safetensors", "last.safetensors", "metrics.csv", "config.yaml", "log.txt", "problems.csv"),
    *("card.md", "card.json", "curves.png", "validation.jpg", "training.jpg", "labels.jpg", "batch.jpg"),
    *(f"{folder}/{name}" for folder in (REPORT, LIVE) for name in REPORT_FILES),
)
"""The files of a run beside its checkpoints."""

STATE_FILES = ("last.pt", "previous.pt", ".lock")
"""The checkpoints of a run, and its lock. A folder with one of them holds a run."""


def is_run(folder: Path) -> bool:
    """Returns whether a training run has written to the folder."""
    return any((folder / name).exists() for name in STATE_FILES)


def is_running(folder: Path) -> bool:
    """Returns whether a process is writing to the folder of a run now. Without locks, as on some networks, never."""
    lock = folder / ".lock"
    if not lock.exists():
        return False
    from filelock import FileLock, Timeout

    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except (NotImplementedError, OSError):
        return False


def check_run_folder(folder: Path, *, resume: bool) -> None:
    """Checks that a run may write to the folder.

    Raises:
        FileExistsError: The folder holds a run and `resume` is false, or files that a run would replace.
        NotADirectoryError: It is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, not a folder; choose another folder")
    if is_run(folder):
        if not resume:
            raise FileExistsError(
                f"{folder} holds a run already; choose another folder, or go on with it: resume=True, --resume"
            )
    elif theirs := [
        *(name for name in FILES if (folder / name).exists()),
        *sorted(path.name for path in folder.glob("weights-*.safetensors")),
    ]:
        raise FileExistsError(
            f"{folder} holds {', '.join(theirs)}, which no run has written and this one would replace; choose another "
            "folder"
        )


def remove_run(folder: Path) -> None:
    """Removes the files of a run from the folder. All other files stay."""
    for name in (*FILES, *STATE_FILES):
        (folder / name).unlink(missing_ok=True)
    for place in (REPORT, LIVE):
        with suppress(OSError):  # it is not there, or holds files of the user's
            (folder / place).rmdir()
