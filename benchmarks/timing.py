"""Times variants of the same work in turns: medians, quartiles, and ratios within each round."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from multibox.benchmark.table import Comparison, Row, ratios

MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of the command line; `None` leaves the choice to each part.

    Attributes:
        device: Device that is measured: `cpu` or `cuda`.
        threads: Number of torch's threads on the CPU.
        rounds: Number of times that each variant is measured.
        batch_sizes: Numbers of images in a batch.
        precisions: Precisions of the convolutions: `fp32`, `bf16`.
        models: Names of presets.
        images: Number of images in the set that is evaluated.
        compile: Whether compiled variants of the training step take part.
        quick: Whether to use the smallest sizes and one round, to test that a part runs.
    """

    device: str = "cpu"
    threads: int = 1
    rounds: int | None = None
    batch_sizes: tuple[int, ...] | None = None
    precisions: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    images: int | None = None
    compile: bool = False
    quick: bool = False

    @property
    def clock(self) -> str:
        if self.device != "cpu":
            return "time with the device synchronized"
        return "CPU time" if self.threads == 1 else "wall time"


def compare(
    title: str,
    variants: Mapping[str, Callable[[], object]],
    settings: Settings,
    *,
    rounds: int,
    warm_up: int = 1,
    unit: str = "image",
    units: int = 1,
    images: int = 1,
    extras: Mapping[str, Mapping[str, float]] | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """Times the variants in turns, so that other work on the machine slows all of them alike.

    On one thread of a CPU, CPU time is measured, which leaves out waiting for other processes. For several threads it
    is wall time, because their CPU time would include waiting for each other.

    Args:
        title: Title of the table.
        variants: Functions that do the work, by name; the first is the reference.
        settings: Options of the command line: clock, and number of rounds if it was given.
        rounds: Number of rounds otherwise.
        warm_up: Number of rounds before these that do not count.
        unit: Unit of the work.
        units: Number of units that a call does.
        images: Number of images in one unit; 0 if images per second mean nothing.
        extras: Other measurements of each variant.
        notes: Remarks below the table.
    """
    rounds, warm_up = (1, 0) if settings.quick else (settings.rounds or rounds, warm_up)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warm_up + rounds):
        for name, run in variants.items():
            took = _measure(run, settings)
            if turn >= warm_up:
                seconds[name].append(took / units)
    reference = next(iter(seconds.values()))
    rows = tuple(
        Row(name, tuple(values), ratios(reference, values), (extras or {}).get(name, {}))
        for name, values in seconds.items()
    )
    return Comparison(title, unit, images, settings.clock, rows, tuple(notes))


def peak_memory(run: Callable[[], object], *, device: str) -> float:
    """Returns the peak memory in MiB of the tensors that `run` allocates."""
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return (torch.cuda.max_memory_allocated() - before) / MEBIBYTE
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    held = most = 0
    # the profiler's summaries are by operation; the peak is found in the single events, in the order of time
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most / MEBIBYTE


def synchronize(device: str) -> None:
    """Waits until the device has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize()


def _measure(run: Callable[[], object], settings: Settings) -> float:
    clock = time.process_time if settings.clock == "CPU time" else time.perf_counter
    synchronize(settings.device)
    began = clock()
    run()
    synchronize(settings.device)
    return clock() - began
