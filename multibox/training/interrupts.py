"""Ctrl-C and SIGTERM are remembered and handled between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """A context in which Ctrl-C and SIGTERM are remembered instead of ending the program at once.

    A second Ctrl-C ends the program at once. A second SIGTERM does not, because job managers send it to a process and
    again to its process group. Signals that were ignored before stay ignored. Python delivers signals to the main
    thread only; in other threads this context does nothing.

    Attributes:
        heard: The signal that asked to stop, or `None`.
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
    """Makes a reader process ignore both signals: a signal to the whole group must not end it before the run saves."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class Stopped(KeyboardInterrupt):
    """Raised in all processes of a run, after the same step, when one of them was asked to stop."""
