"""Measures variants of detectors in turns, each in a process of its own."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from multibox.benchmark.table import Comparison, Row, ratios
from multibox.benchmark.worker import Task, Turn, Work
from multibox.boxes import box_iou
from multibox.config import PrecisionChoice
from multibox.messages import counted, shortened

STARTS = 3
"""How often each variant is started, unless fewer rounds are asked for."""

FEWEST_ROUNDS, MOST_ROUNDS, SECONDS = 3, 25, 20.0
"""Rounds of a table, unless their number is given: at most so many, and no more after these seconds."""

TURN_SECONDS = 0.1
"""A turn repeats its work for about so long, because the caches are cold after the turns of the others."""

SAME = 0.9
"""Overlap from which two detections of a class are taken for the same one."""

NOTES: Mapping[Work, tuple[str, ...]] = {
    "network": ("From prepared pixels to the outputs; decoding and suppression count where a file has them inside.",)
}

_PACKAGES = Path(__file__).parents[2]
"""The folder that this package is in."""


class Variant(NamedTuple):
    """A way to run a detector.

    Attributes:
        name: Name in the tables.
        path: The weights file or exported file.
        precision: Precision of the computation.
        compile: Whether torch compiles the network.
        torchvision: Whether torchvision's detector with these weights is measured, not ours.
    """

    name: str
    path: Path
    precision: PrecisionChoice = "fp32"
    compile: bool = False
    torchvision: bool = False

    @property
    def megabytes(self) -> float:
        """Size of the file, with the `.bin` of an OpenVINO file, in MB."""
        weights = self.path.with_suffix(".bin")
        both = self.path.suffix == ".xml" and weights.is_file()
        return (self.path.stat().st_size + (weights.stat().st_size if both else 0)) / 1e6


class Measured(NamedTuple):
    """A table, and what it is about.

    Attributes:
        work: What was measured: `detect`, `network`, `batch` or `start`.
        threads: Number of threads.
        batch_size: Number of images at once.
        table: The times.
    """

    work: str
    threads: int
    batch_size: int
    table: Comparison

    def values(self) -> dict[str, Any]:
        """Returns all of it for a JSON file."""
        return {"work": self.work, "threads": self.threads, "batch_size": self.batch_size, **self.table.values()}


class WorkerError(ValueError):
    """A variant cannot be run; the message names it."""


class Worker:
    """The process that runs a variant."""

    def __init__(self, variant: Variant, task: Task, threads: int) -> None:
        """Starts the process, and waits for its first detection.

        Raises:
            WorkerError: The detector cannot be opened or run.
        """
        self._name = variant.name
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed in `close`)
        paths = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "multibox.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        try:
            self._ask(task)
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - began

    def do(self, work: Work, *, image: int = 0, repeats: int = 1) -> Any:
        """Does one turn, and returns what was measured.

        Raises:
            WorkerError: The work failed, or the process ended.
        """
        return self._ask(Turn(work, image, repeats))

    def _ask(self, question: Task | Turn) -> Any:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None and answers is not None
        try:
            requests.write(msgspec.json.encode(question) + b"\n")
            requests.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines() or ["it said nothing"]
            raise WorkerError(f"{self._name}: its process ended with status {status} ({shortened(said[-1])})")
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise WorkerError(f"{self._name}: {answer['error']}")
        return answer["answer"]

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def benchmark(
    variants: Sequence[Variant],
    images: Sequence[Path],
    *,
    score_thresholds: Mapping[Path, float],
    threads: Sequence[int],
    device: str = "cpu",
    batch_size: int = 4,
    rounds: int | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Iterator[Measured]:
    """Measures the variants, and yields each table as soon as it is ready.

    For each number of threads there are up to four tables: from an image file to its detections; the network alone; the
    same files in batches; and start-up, memory and size. On one thread of a CPU, CPU time is measured, which leaves out
    waiting for other programs. Elsewhere it is wall time.

    Args:
        variants: The variants; the first is the reference of the ratios.
        images: Paths of the images.
        score_thresholds: Score threshold by path of the detector's file.
        threads: Numbers of threads.
        device: Device to compute on.
        batch_size: Number of images that go through the network at once in batches; 1 leaves out their table.
        rounds: Number of times that each variant is measured; by default 3 to 25, as many as fit into 20 seconds.
        on_stage: Called with a few words before each table is measured.

    Raises:
        WorkerError: A variant cannot be run.
    """
    for number in threads:
        cpu_time = number == 1 and device == "cpu"
        tasks = {
            variant: Task(
                str(variant.path),
                variant.torchvision,
                device,
                variant.precision,
                variant.compile,
                [str(image) for image in images],
                score_thresholds[variant.path],
                batch_size,
                cpu_time,
            )
            for variant in variants
        }
        where = counted(number, "thread")
        on_stage(f"{where}: starting")
        with _started(tasks, number, min(STARTS, rounds or STARTS)) as (workers, starts):
            works: dict[Work, tuple[str, int]] = {
                "detect": (f"Image file to detections, {where}", 1),
                "network": (f"Network alone, {where}", 1),
            }
            if batch_size > 1:
                works["batch"] = f"Image files to detections, {batch_size} at once, {where}", len(images)
            for work, (title, count) in works.items():
                on_stage(title)
                seconds = _take_turns(list(workers.values()), work, len(images), rounds)
                rows = [
                    Row(variant.name, each, ratios(seconds[0], each))
                    for variant, each in zip(workers, seconds, strict=True)
                ]
                per_image = tuple(row.per(count) for row in rows)
                clock = "CPU time" if cpu_time else "wall time"
                table = Comparison(title, "image", 1, clock, per_image, NOTES.get(work, ()))
                yield Measured(work, number, batch_size if work == "batch" else 1, table)
            on_stage(f"{where}: memory")
            yield Measured("start", number, 1, _start_table(workers, starts, where))


@contextmanager
def _started(
    tasks: Mapping[Variant, Task], threads: int, starts: int
) -> Iterator[tuple[dict[Variant, Worker], dict[Variant, tuple[float, ...]]]]:
    """Starts all variants in turns, so many times; gives the last processes, and the seconds of each start."""
    seconds: dict[Variant, list[float]] = {variant: [] for variant in tasks}
    for _ in range(starts - 1):
        for variant, task in tasks.items():
            with closing(Worker(variant, task, threads)) as worker:
                seconds[variant].append(worker.start_seconds)
    with ExitStack() as stack:
        workers = {
            variant: stack.enter_context(closing(Worker(variant, task, threads))) for variant, task in tasks.items()
        }
        for variant, worker in workers.items():
            seconds[variant].append(worker.start_seconds)
        yield workers, {variant: tuple(each) for variant, each in seconds.items()}


def _take_turns(workers: Sequence[Worker], work: Work, images: int, rounds: int | None) -> list[tuple[float, ...]]:
    """Returns the seconds of each worker in each round."""
    repeats = []
    for worker in workers:
        worker.do(work)  # the first call makes buffers
        repeats.append(max(1, ceil(TURN_SECONDS / max(worker.do(work), 1e-6))) if rounds != 1 else 1)
    seconds: list[list[float]] = [[] for _ in workers]
    began = time.monotonic()
    for turn in range(rounds or MOST_ROUNDS):
        for worker, often, each in zip(workers, repeats, seconds, strict=True):
            each.append(worker.do(work, image=turn % images, repeats=often))
        if rounds is None and turn + 1 >= FEWEST_ROUNDS and time.monotonic() - began > SECONDS:
            break
    return [tuple(each) for each in seconds]


def _start_table(
    workers: Mapping[Variant, Worker], starts: Mapping[Variant, tuple[float, ...]], where: str
) -> Comparison:
    """Returns the table of start-up, peak memory, size of the file, and the detections beside the reference's."""
    found = {variant: worker.do("found") for variant, worker in workers.items()}
    first, reference = next(iter(found.items()))
    rows = []
    for variant, worker in workers.items():
        memory = worker.do("memory")
        extras: dict[str, float | str] = {
            "peak MiB": "" if memory is None else memory / 2**20,
            "file MB": "" if variant.torchvision else variant.megabytes,
            "detections": str(sum(len(one["labels"]) for one in found[variant])),
            "as the first": f"{100 * agreement(reference, found[variant]):.1f} %",
        }
        rows.append(Row(variant.name, starts[variant], ratios(starts[first], starts[variant]), extras))
    title = f"A new process to its first detection, {where}"
    notes = (
        "The peak of resident memory is that of all the work above. *As the first* is the part of the first row's "
        f"detections that a row finds too: of the same class, at an overlap of {SAME} or more.",
    )
    return Comparison(title, "start", 0, "wall time", tuple(rows), notes)


def agreement(reference: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> float:
    """Returns the fraction of the reference's detections that have a partner of their class at their place.

    Args:
        reference: Boxes and labels of each image.
        found: Boxes and labels of each image, by the other detector.
    """
    paired = total = 0
    for one, other in zip(reference, found, strict=True):
        labels = [np.array(each["labels"], np.int64) for each in (one, other)]
        boxes = [np.array(each["boxes"], np.float32).reshape(-1, 4) for each in (one, other)]
        same = (box_iou(*boxes) >= SAME) & (labels[0][:, None] == labels[1])
        paired += int(same.any(axis=1).sum())
        total += len(labels[0])
    return paired / total if total else 1.0
