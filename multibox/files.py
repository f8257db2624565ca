"""Write a file completely or not at all."""

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
