"""List the files of a data set once, find them by name in any spelling, and read them as text."""

import os
import unicodedata
from collections.abc import Collection, Hashable, Iterable
from pathlib import Path
from urllib.parse import unquote

from multibox.data.sample import DatasetError
from multibox.files import read_text
from multibox.images import IMAGE_SUFFIXES

SET_SUFFIXES = IMAGE_SUFFIXES | {".xml", ".json", ".txt", ".yaml", ".yml", ".names", ".labels", ".data", ".csv"}
"""Suffixes of the files that may belong to a data set, or that a message names."""


def nfc(name: str) -> str:
    """Returns the name in Unicode's composed form (NFC). macOS stores an accent apart from its letter (NFD)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


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

    Hidden files and folders, and the `__MACOSX` of archives, are left out. Links to folders are followed, unless they
    lead to a folder below this one or to one that was visited before.
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
        folders[:] = [
            name for name in folders if not name.startswith((".", "__MACOSX")) and is_new(os.path.join(parent, name))
        ]
        for name in names:
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith("."):
                found.append(Path(parent, name))
    return sorted(found)


class FileTree:
    """The files of a data set. Each folder is listed once.

    Attributes:
        root: The folder of the data set.
        files: All files below it that may belong to a data set, sorted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = list_files(root, SET_SUFFIXES)
        self._elsewhere: dict[Path, list[Path]] = {}

    def select(self, suffixes: Collection[str]) -> list[Path]:
        """Returns the files with one of these suffixes, in lower or upper case."""
        return [file for file in self.files if file.suffix.lower() in suffixes]

    def images(self) -> list[Path]:
        """Returns all images."""
        return self.select(IMAGE_SUFFIXES)

    def below(self, folder: Path, suffixes: Collection[str]) -> list[Path]:
        """Returns the files with one of these suffixes below a folder, which may also lie elsewhere."""
        if folder == self.root:
            return self.select(suffixes)
        within = f"{folder}{os.sep}"
        if ".." not in folder.parts and (found := [file for file in self.files if str(file).startswith(within)]):
            return [file for file in found if file.suffix.lower() in suffixes]
        if folder not in self._elsewhere:
            self._elsewhere[folder] = list_files(folder, SET_SUFFIXES)
        return [file for file in self._elsewhere[folder] if file.suffix.lower() in suffixes]


def stem_of(name: str) -> str:
    """Returns a name without the suffix of an image; other names stay whole."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _decoded(name: str) -> str:
    return nfc(unquote(name))


def folded(name: str) -> str:
    """Returns the name URL-decoded, in composed Unicode and lower case: all its spellings give the same."""
    return _decoded(name).casefold()


SPELLINGS = (nfc, _decoded, folded)
"""Ever looser readings of a name: in composed Unicode, then URL-decoded, then in any case."""


class FileIndex:
    """Finds files by a key and a name. What has the name as written comes before looser `SPELLINGS`."""

    def __init__(self, entries: Iterable[tuple[Hashable, str, Path]]) -> None:
        """Takes the key, the name and the path of each file."""
        self._entries = list(entries)
        self._levels: list[dict[tuple[Hashable, str], list[Path]]] = []

    def find(self, key: Hashable, name: str) -> list[Path]:
        """Returns the files of that key and name, in their order."""
        for level, spell in enumerate(SPELLINGS):
            if level == len(self._levels):
                table: dict[tuple[Hashable, str], list[Path]] = {}
                for each, stem, path in self._entries:
                    table.setdefault((each, spell(stem)), []).append(path)
                self._levels.append(table)
            if found := self._levels[level].get((key, spell(name))):
                return found
        return []


class FileFinder:
    """Finds files by their path, in any of the `SPELLINGS` of their name. Lists each folder only once."""

    def __init__(self) -> None:
        self._folders: dict[Path, FileIndex] = {}

    def find(self, file: Path) -> Path | None:
        """Returns the path of the file with the spelling that it has on disk, or None if there is no such file."""
        index = self._folders.get(file.parent)
        if index is None:
            names = sorted(os.listdir(file.parent)) if os.path.isdir(file.parent) else []
            index = FileIndex((None, _lower_suffix(name), file.with_name(name)) for name in names)
            self._folders[file.parent] = index
        found = index.find(None, _lower_suffix(file.name))
        return next((path for path in found if path.name == file.name), found[0]) if found else None


def _lower_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem + suffix.lower()
