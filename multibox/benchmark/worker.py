"""The process of one variant: it opens the detector, then does what each line on its standard input asks for.

The first line is a `Task`, each further line a `Turn`. Each is answered with a line.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
from jaxtyping import Shaped

from multibox.detections import Detections
from multibox.detector import Detector

Work = Literal["detect", "network", "batch", "found", "memory"]
"""One image from its file to detections; the network alone on that image, which is prepared before; a batch of all
images from their files to detections; the detections of all images; the peak of the memory."""


class Task(msgspec.Struct, frozen=True):
    """What a process is to measure.

    Attributes:
        model: Path of the weights file or exported file.
        torchvision: Whether torchvision's own detector of the same weights is measured, not ours.
        device: Device to compute on.
        precision: Precision of the computation.
        compile: Whether torch compiles the network.
        images: Paths of the images.
        score_threshold: Detections score above this.
        batch_size: Number of images that go through the network at once in a batch.
        cpu_time: Whether to measure CPU time, not wall time.
    """

    model: str
    torchvision: bool
    device: str
    precision: Literal["fp32", "bf16", "auto"]
    compile: bool
    images: list[str]
    score_threshold: float
    batch_size: int
    cpu_time: bool


class Turn(msgspec.Struct, frozen=True):
    """What a process does next.

    Attributes:
        work: The work.
        image: Number of the image, for the works of one image.
        repeats: How often the work is done.
    """

    work: Work
    image: int = 0
    repeats: int = 1


@runtime_checkable
class Subject(Protocol):
    """A detector that is measured."""

    def detect(self, path: str) -> Any:
        """Finds the objects in one image."""

    def detect_all(self, paths: Sequence[str]) -> Any:
        """Finds the objects in many images, some at once."""

    def prepare(self, path: str) -> Any:
        """Returns an image as `run` takes it."""

    def run(self, prepared: Any) -> Any:
        """Runs the network."""

    def found(self, path: str) -> Detections:
        """Returns the objects in one image."""


class OurDetector:
    """A detector of multibox, on any engine."""

    def __init__(self, task: Task) -> None:
        self._detector = Detector.load(task.model, device=task.device, precision=task.precision, compile=task.compile)
        self._score_threshold, self._batch_size = task.score_threshold, task.batch_size
        self._settings = self._detector.config.postprocess.override(score_threshold=task.score_threshold)

    def detect(self, path: str) -> Detections:
        return self._detector.detect(path, score_threshold=self._score_threshold)

    found = detect

    def detect_all(self, paths: Sequence[str]) -> list[Detections]:
        rules: dict[str, Any] = {"score_threshold": self._score_threshold, "batch_size": self._batch_size}
        return list(self._detector.detect(iter(paths), **rules))

    def prepare(self, path: str) -> Shaped[np.ndarray, "1 3 height width"]:
        return self._detector.prepare(path)

    def run(self, prepared: Shaped[np.ndarray, "1 3 height width"]) -> object:
        return self._detector.runtime(prepared, settings=self._settings)


def open_subject(task: Task) -> Subject:
    """Returns the detector of the task.

    Raises:
        ImportError: A package is missing.
        ValueError: The file is damaged, or cannot be run as the task says.
    """
    if task.torchvision:
        from multibox.benchmark.torchvision_detector import TorchvisionDetector

        return TorchvisionDetector(
            task.model, device=task.device, score_threshold=task.score_threshold, batch_size=task.batch_size
        )
    return OurDetector(task)


def answer(task: Task, subject: Subject, turn: Turn) -> object:
    """Does the work and returns what is measured: the seconds of it, the detections, or the bytes of memory."""
    path = task.images[turn.image]
    match turn.work:
        case "memory":
            return peak_memory()
        case "found":
            every = [subject.found(path) for path in task.images]
            return [{"boxes": one.boxes.tolist(), "labels": one.labels.tolist()} for one in every]
        case "detect":
            return _seconds(lambda: subject.detect(path), turn.repeats, task)
        case "network":
            prepared = subject.prepare(path)
            return _seconds(lambda: subject.run(prepared), turn.repeats, task)
        case "batch":
            return _seconds(lambda: subject.detect_all(task.images), turn.repeats, task)


def _seconds(run: Callable[[], object], repeats: int, task: Task) -> float:
    clock = time.process_time if task.cpu_time else time.perf_counter
    began = clock()
    for _ in range(repeats):
        run()
    return (clock() - began) / repeats


def peak_memory() -> int | None:
    """Returns the peak of this process's resident memory in bytes; None where the system does not tell it."""
    status = Path("/proc/self/status")
    if status.exists():  # what `resource` says on Linux begins with the memory of the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an engine prints is no answer
    requests = sys.stdin.buffer

    def send(**values: object) -> None:
        answers.write(msgspec.json.encode(values) + b"\n")
        answers.flush()

    task = msgspec.json.decode(requests.readline(), type=Task)
    try:
        subject = open_subject(task)
        subject.detect(task.images[0])
        send(answer="ready")
        for line in requests:
            send(answer=answer(task, subject, msgspec.json.decode(line, type=Turn)))
    except Exception as error:
        send(error=str(error) or type(error).__name__)
        raise


if __name__ == "__main__":
    main()
