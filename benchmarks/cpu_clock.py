"""A clock that stands still while other processes have the core."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def cpu_clock() -> Iterator[None]:
    """Lets Python's clocks count the CPU time of this process.

    On a quiet core, a process with one thread sees no difference. On a shared one, a training of so many minutes then
    has the work of as many minutes of a quiet core.
    """
    start = time.time()
    with (
        patch("time.time", lambda: start + time.process_time()),
        patch("time.monotonic", time.process_time),
        patch("time.perf_counter", time.process_time),
    ):
        yield
