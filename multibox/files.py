"""Write a file whole or not at all, and read text in the usual encodings."""

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to, and moves the file to `path` at the end of the block.

    If the block raises, the temporary file is removed. If the process is killed, `path` stays as it was.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.errno and not error.filename:  # the error of a full disk names no file
            error.filename = str(part)
        raise
    finally:
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
