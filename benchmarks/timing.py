"""Times variants of the same work in turns: medians, quartiles, and ratios within each round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

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


@dataclass(frozen=True)
class Row:
    """The times of one variant.

    Attributes:
        name: Name of the variant.
        seconds: Time of one unit of the work in each round.
        ratios: How many times as fast as the reference it was in each round.
        extras: Other measurements by the name of their column.
    """

    name: str
    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    extras: Mapping[str, float] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "median_seconds": statistics.median(self.seconds),
            "quartiles_seconds": _quartiles(self.seconds),
            "times_as_fast": statistics.median(self.ratios),
            "quartiles_times_as_fast": _quartiles(self.ratios),
            "rounds": len(self.seconds),
            **self.extras,
        }


@dataclass(frozen=True)
class Comparison:
    """A table of variants; the first is the reference that the others are compared with.

    Attributes:
        title: Title of the table: the work that was done.
        unit: Unit of the work: an image, a step.
        images: Number of images in one unit; 0 if images per second mean nothing.
        clock: Kind of time that was measured.
        rows: Times of the variants.
        notes: Remarks below the table.
    """

    title: str
    unit: str
    images: int
    clock: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        return {**asdict(self), "rows": [self._row(row) for row in self.rows]}

    def _row(self, row: Row) -> dict[str, Any]:
        values = row.values()
        if self.images:
            values["images_per_second"] = self.images / values["median_seconds"]
        return values

    def markdown(self) -> str:
        if not self.rows:
            return f"{self.title}: {' '.join(self.notes)}\n"
        extras = list(dict.fromkeys(name for row in self.rows for name in row.extras))
        header = [self.title, f"ms per {self.unit}", "quartiles", *["images/s"] * bool(self.images)]
        header += ["times as fast", "quartiles", *extras]
        lines = [header, ["---", *["---:"] * (len(header) - 1)]]
        for row in self.rows:
            values = self._row(row)
            low, high = (_number(1000 * value) for value in values["quartiles_seconds"])
            cells = [row.name, _number(1000 * values["median_seconds"]), f"{low} to {high}"]
            cells += [_number(values["images_per_second"])] if self.images else []
            low, high = (f"{value:.2f}" for value in values["quartiles_times_as_fast"])
            cells += [f"{values['times_as_fast']:.2f}", f"{low} to {high}"]
            cells += [_number(row.extras[name]) if name in row.extras else "" for name in extras]
            lines.append(cells)
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        rounds = f"Rounds: {len(self.rows[0].seconds)}, {self.clock}."
        return f"{table}\n\n{' '.join([rounds, *self.notes])}\n"


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
        Row(
            name,
            tuple(values),
            tuple(other / value for other, value in zip(reference, values, strict=True)),
            (extras or {}).get(name, {}),
        )
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


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _number(value: float) -> str:
    """Returns a number with three significant digits, and all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
