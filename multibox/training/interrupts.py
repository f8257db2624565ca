"""Ctrl-C and SIGTERM, heard between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """While it is entered, a signal to stop is remembered instead of ending the program in the midst of something.

    A second Ctrl-C ends it at once; not a second SIGTERM, which managers of jobs send to a process and once more to its
    group. Signals that were ignored before stay ignored, and threads other than the main one hear of none.

    Attributes:
        heard: The signal that asked to stop, if one did.
    """

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.heard = signal.Signals(number)
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, self._before.pop(signal.SIGINT))

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def ignore_interrupts(worker: int) -> None:
    """In a process that reads images: a signal to the whole group must not end it before the run has saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
