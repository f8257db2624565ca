"""Find the files of a data set by name in either Unicode form, and read them as text in the usual encodings."""

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from multibox.data.sample import DatasetError
from multibox.files import read_text


def nfc(name: str) -> str:
    """Returns the name in Unicode's composed form (NFC). macOS stores an accent apart from its letter (NFD)."""
    return unicodedata.normalize("NFC", name)


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Returns the lines that are not blank, stripped, with their numbers from 1. Raises what `read_text` raises."""
    lines = enumerate(read_text(file).split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_list(file: Path) -> list[tuple[int, str]]:
    """Returns the `read_lines` of a file that the data set requires.

    Raises:
        DatasetError: The file cannot be read.
    """
    try:
        return read_lines(file)
    except ValueError as error:
        raise DatasetError(f"{file}: {error}") from error


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Returns all files below a folder that have one of these suffixes, in lower or upper case, sorted.

    Hidden files and folders are left out. Links to folders are followed, unless they lead to a folder below this one
    or to one that was visited before.
    """
    found = []
    root = os.path.realpath(folder)
    seen = {root}

    def is_new(path: str) -> bool:
        place = os.path.realpath(path)
        new = place not in seen and not (os.path.islink(path) and Path(place).is_relative_to(root))
        seen.add(place)
        return new

    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and is_new(os.path.join(parent, name))]
        for name in names:
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith("."):
                found.append(Path(parent, name))
    return sorted(found)


def path_variants(name: str) -> tuple[str, ...]:
    """Returns the path as written, and the path with slashes in place of Windows' backslashes."""
    return tuple(dict.fromkeys((name, name.replace("\\", "/"))))


class FileFinder:
    """Finds files whose names differ in Unicode form or in the case of the suffix. Lists each folder only once."""

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, str]] = {}

    def find(self, file: Path) -> Path | None:
        """Returns the path of the file with the spelling that it has on disk, or None if there is no such file."""
        listing = self._listings.get(file.parent)
        if listing is None:
            names = sorted(os.listdir(file.parent)) if os.path.isdir(file.parent) else []
            listing = {_match_key(name): name for name in names} | {name: name for name in names}
            self._listings[file.parent] = listing
        name = listing.get(file.name) or listing.get(_match_key(file.name))
        return None if name is None else file.with_name(name)


def _match_key(name: str) -> str:
    """Returns the same text for names that differ only in Unicode form or in the case of the suffix."""
    stem, suffix = os.path.splitext(nfc(name))
    return stem + suffix.lower()
