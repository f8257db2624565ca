"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A context that gives the place to write to, beside `path`.

    At its end what was written there takes the place of `path`, or is taken away where anything was raised; a process
    that is killed leaves `path` as it was.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.errno and not error.filename:  # a disk that is full does not say where
            error.filename = str(part)
        raise
    finally:
        part.unlink(missing_ok=True)
