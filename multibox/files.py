"""Write a file completely or not at all, read text in the usual encodings, and hash a file."""

import codecs
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a new, empty file beside `path` to write to, and moves it to `path` at the end of the block.

    If the block raises, the new file is removed. If the process is killed, `path` stays as it was, and the new file
    stays beside it until `remove_leftovers`.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    part.touch(exist_ok=False)  # like any new file, readable as the process's umask says
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.errno and not error.filename:  # the error of a full disk names no file
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes the files that `atomic_write` left in a folder when it was killed. Nobody may be writing there now."""
    for part in folder.glob("*.part"):
        if re.search(r"\.[0-9a-f]{8}\.part$", part.name):
            part.unlink(missing_ok=True)


def read_text(file: Path) -> str:
    """Returns the text of a file in UTF-8, with or without byte order mark, or in UTF-16 with one.

    Raises:
        ValueError: The file cannot be read or has another encoding. The message is meant to follow the file's name.
    """
    try:
        data = file.read_bytes()
        utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if utf_16 else "utf-8-sig")
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save the file as UTF-8") from error


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
