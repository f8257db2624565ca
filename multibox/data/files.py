"""The files of a data set: found by name in either Unicode form, read as text in the encodings that people have."""

import codecs
import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from multibox.data.sample import DatasetError


def name_key(name: str) -> str:
    """Equal for names that are written alike: macOS stores an accent apart from its letter (NFD), others together."""
    return unicodedata.normalize("NFC", name)


def read_text(file: Path) -> str:
    """The text of a file in UTF-8, with or without byte order mark, or in UTF-16 with one.

    Raises:
        ValueError: It cannot be read or is in another encoding; the message goes behind the name of the file.
    """
    try:
        data = file.read_bytes()
        utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if utf_16 else "utf-8-sig")
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save the file as UTF-8") from error


def read_lines(file: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, stripped, with their numbers from 1; raises as `read_text`."""
    lines = enumerate(read_text(file).split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_list(file: Path) -> list[tuple[int, str]]:
    """`read_lines` of a file that the set cannot be read without.

    Raises:
        DatasetError: It cannot be read.
    """
    try:
        return read_lines(file)
    except ValueError as error:
        raise DatasetError(f"{file}: {error}") from error


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """All files below a folder with one of these suffixes, in lower or upper case, sorted; hidden ones are left out.

    Links to folders are followed, unless they lead to a folder below this one, or to one that was seen already.
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


def spellings(name: str) -> tuple[str, ...]:
    """A path as it is written, and then as Windows means it, whose backslashes are slashes."""
    return tuple(dict.fromkeys((name, name.replace("\\", "/"))))


class FileFinder:
    """Finds files although their names differ in Unicode form or in the case of the suffix; lists each folder once."""

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, str]] = {}

    def find(self, file: Path) -> Path | None:
        """The file of this name; None where there is none."""
        listing = self._listings.get(file.parent)
        if listing is None:
            names = sorted(os.listdir(file.parent)) if os.path.isdir(file.parent) else []
            listing = {_loose(name): name for name in names} | {name: name for name in names}
            self._listings[file.parent] = listing
        name = listing.get(file.name) or listing.get(_loose(file.name))
        return None if name is None else file.with_name(name)


def _loose(name: str) -> str:
    stem, suffix = os.path.splitext(name_key(name))
    return stem + suffix.lower()
