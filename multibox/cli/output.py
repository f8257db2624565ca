"""Check where commands write. A command never removes or replaces a file that it did not make itself in this run.

Each check raises before any real work begins, and makes nothing.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from multibox.cli.arguments import UsageError

STANDARD_OUTPUT = Path("-")
"""Value of `--json` and `--csv` that prints the JSON or the table instead of writing a file."""


def check_folder(folder: Path) -> None:
    """Checks that the folder is there and can be written to, or that it can be made.

    Raises:
        OSError: The folder cannot be made or written to.
    """
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        where = "" if place == folder else f"{folder}: "
        raise NotADirectoryError(f"{where}{place} is a file, not a folder; choose another folder")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{folder}: {place} cannot be written to; choose another folder")


def check_empty(folder: Path, *, by: str | None = None) -> None:
    """Checks that the folder is empty, or can be made.

    Args:
        folder: The folder that the command will write to.
        by: The command whose own files the user asked to overwrite, although the folder holds none.

    Raises:
        FileExistsError: Something is in the folder.
        OSError: The folder cannot be made or written to.
    """
    check_folder(folder)
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if names and by:
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise FileExistsError(f"{folder} holds files that no {by} wrote ({listed}); choose another folder")
    if names:
        raise FileExistsError(f"{folder} is not empty; choose another folder")


def check_outside(path: Path, folder: Path, flag: str, *, what: str = "the data set, which is not changed") -> None:
    """Checks that a file or folder to write is not in a folder, whether it is there yet or not.

    Args:
        path: The file or folder to write.
        folder: The folder, or a single file, where the command must not write.
        flag: The flag that says where to write, for the message.
        what: What the folder is, for the message.

    Raises:
        UsageError: The path is the folder, or in it.
    """
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UsageError(f"{flag} {path} is in {what}; choose a place outside of {folder}")


def check_new(files: Sequence[Path], *, overwrite: bool, read: Iterable[str | Path]) -> None:
    """Checks that the files can be written, and that none of them is there already unless the user said `--overwrite`.

    Args:
        files: The files to write.
        overwrite: Whether the user said `--overwrite`.
        read: The files that the command reads, which it never replaces, and the folders with such files.

    Raises:
        FileExistsError: A file is there already.
        UsageError: A folder has the name of the file, the command reads the file, or it would write it twice.
        OSError: The folder of a file cannot be made or written to.
    """
    inputs = {os.path.realpath(path) for path in read}
    for file in filter(os.path.lexists, files):
        place = Path(os.path.realpath(file))
        if not inputs.isdisjoint(map(str, (place, *place.parents))):
            raise UsageError(f"{file} is among the files that are read, so it is not replaced; choose another name")
    places = Counter(map(os.path.abspath, files))
    for file in files:
        if places[os.path.abspath(file)] > 1:
            raise UsageError(f"{file} is named twice for what the command writes; choose another name for one of them")
    for folder in dict.fromkeys(file.parent for file in files):
        check_folder(folder)
    for file in files:
        if file.is_dir() or any(Path(os.path.abspath(file)) in Path(place).parents for place in places):
            raise UsageError(f"{file} is a folder; give the name of a file")
    there = [] if overwrite else [file for file in files if os.path.lexists(file)]
    if there:
        others = f", and {len(there) - 1} more of the files to write" if len(there) > 1 else ""
        raise FileExistsError(f"{there[0]} is there already{others}; choose another name, or --overwrite")
