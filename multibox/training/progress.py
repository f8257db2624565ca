"""The progress and the length of a run, and the averages since the last row of its metrics."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil, inf, isfinite, isnan, nan

from multibox.evaluation.metrics import Metrics
from multibox.messages import duration, percent
from multibox.training.recipes import TrainConfig

ROWS = 50
"""Number of rows that a run adds to `metrics.csv`, evenly spaced, besides those of its validations."""

LINE_COLUMNS = 80
"""Columns of a terminal in which a line of the log about the progress fits."""

Row = dict[str, float | None]
"""A row of `metrics.csv`: a number or `None` for each of `COLUMNS`."""

COLUMNS = (
    "step",
    "epoch",
    "minutes",
    "learning_rate",
    "localization",
    "confidence",
    "distillation",
    "gradient_norm",
    "nonfinite_steps",
    "images_per_second",
    "time_input",
    "time_host",
    "time_device",
    "ap",
    "ap50",
    "ap75",
)


@dataclass(frozen=True)
class Progress:
    """The progress of a run, as its callbacks receive it.

    Attributes:
        step: Number of steps done.
        fraction_done: Fraction of the run that is done, from 0 to 1.
        epoch: Number of times that each image was seen so far. With balanced classes, the average over the images.
        localization: Localization loss, averaged since the last row of `metrics.csv`.
        confidence: Confidence loss, averaged since the last row.
        gradient_norm: Norm of the gradient before clipping, averaged since the last row.
        learning_rate: Learning rate of the last step.
        images_per_second: Speed of training since the last row, validations left out.
        seconds_left: Estimated seconds to the end of the run, validations included.
        distillation: Weighted distillation loss, averaged since the last row; 0 without a teacher.
    """

    step: int
    fraction_done: float
    epoch: float
    localization: float
    confidence: float
    gradient_norm: float
    learning_rate: float
    images_per_second: float
    seconds_left: float
    distillation: float = 0.0

    def __str__(self) -> str:
        return "  ".join([f"epoch {self.epoch:.1f}", self.loss(), self.speed(), self.time_left()])

    def loss(self) -> str:
        """Returns the loss on the labels, the sum of its two parts, as text."""
        total = self.localization + self.confidence
        return "no finite loss" if isnan(total) else f"loss {total:.{2 if total < 100 else 0}f}"

    def speed(self) -> str:
        """Returns the speed of training as text."""
        return f"{self.images_per_second:.{0 if self.images_per_second >= 10 else 1}f} images/s"

    def time_left(self) -> str:
        """Returns the time to the end of the run as text: `2:10 left`, `1:02:10 left`, `34 h left`."""
        seconds = self.seconds_left if isfinite(self.seconds_left) else 0
        return f"{seconds // 3600:.0f} h left" if seconds >= 36000 else f"{duration(seconds)} left"


@dataclass(frozen=True)
class RunLength:
    """The length of a run in steps and seconds, and the distance between its validations.

    Attributes:
        steps: Number of steps after which the run ends, or `None` for no limit.
        seconds: Seconds after which the run ends, or `None` for no limit.
        epochs: Number of epochs that the config asks for, or `None`.
        epoch_steps: Number of steps in which each image is seen once. It need not be a whole number.
        validation_steps: Number of steps between two validations.
    """

    steps: int | None
    seconds: float | None
    epochs: float | None
    epoch_steps: float
    validation_steps: int

    @classmethod
    def of(cls, config: TrainConfig, *, epoch_steps: float) -> "RunLength":
        """Returns the length that the config asks for. The first limit to be reached ends the run."""
        limits = [] if config.steps is None else [config.steps]
        limits += [] if config.epochs is None else [ceil(config.epochs * epoch_steps)]
        return cls(
            steps=min(limits, default=None),
            seconds=None if config.minutes is None else config.minutes * 60,
            epochs=config.epochs,
            epoch_steps=epoch_steps,
            validation_steps=max(1, round(config.validate_every * epoch_steps)),
        )

    def fraction_done(self, step: int, seconds: float) -> float:
        """Returns the fraction of the run that is done: 0 at its start, 1 or slightly more at its end."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = seconds / self.seconds if self.seconds else 0.0
        return max(by_steps, by_time)

    def position(self, step: int, seconds: float) -> str:
        """Returns the epoch, step or minute of the run and their number: by the limit that is nearest."""
        if self.seconds and seconds / self.seconds >= (step / self.steps if self.steps else 0.0):
            return f"minute {seconds / 60:.1f}/{self.seconds / 60:g}"
        if self.epochs and self.steps == ceil(self.epochs * self.epoch_steps):
            return f"epoch {round(self.epoch(step), 1):g}/{self.epochs:g}"
        return f"step {step}/{self.steps}"

    def left(self, step: int, seconds: float) -> str:
        """Returns how much of the run is left, as text."""
        parts = [] if self.steps is None else [f"{max(0, self.steps - step)} steps"]
        parts += [] if self.seconds is None else [f"{max(0.0, self.seconds - seconds) / 60:.1f} min"]
        return " or ".join(parts)

    def forecast(self, step: int, seconds: float, step_seconds: float, *, device: str) -> str:
        """Returns how long the run will take, or how far it will come, as text.

        Args:
            step: Number of steps done.
            seconds: Seconds of the run so far.
            step_seconds: Seconds that a step takes.
            device: What the run computes on: `CPU`, `GPU`.
        """
        by_steps = inf if self.steps is None else (self.steps - step) * step_seconds
        by_time = inf if self.seconds is None else self.seconds - seconds
        at = f"at {1000 * step_seconds:.3g} ms a step" if step_seconds < 1 else f"at {step_seconds:.3g} s a step"
        if self.seconds is not None and by_time < by_steps:
            epochs = (step + by_time / step_seconds) / self.epoch_steps
            minutes = self.seconds / 60
            is_most = f"{minutes:g} {'minute is' if minutes == 1 else 'minutes are'} at most"
            return f"{is_most} {_about(epochs)} epochs on this {device}, {at}"
        length = (
            f"{self.epochs:g} epoch{'s' * (self.epochs != 1)}"
            if self.epochs and self.position(step, 0.0).startswith("epoch")
            else ""
        )
        length = length or f"{self.steps} steps"
        return (
            f"{length}, about {_duration(seconds + by_steps)} on this {device} without the validations, {at}; "
            "--minutes limits it"
        )

    def epoch(self, step: int) -> float:
        """Returns the epochs after this many steps.

        The last step of a run of 2 epochs fills its batch with images of the third epoch; it still ends at 2.
        """
        return min(step / self.epoch_steps, self.epochs or inf)

    def validation_due(self, step: int) -> bool:
        """Returns whether a validation follows this step."""
        return step % self.validation_steps == 0

    def row_due(self, row_step: int, row_seconds: float, step: int, seconds: float) -> bool:
        """Returns whether a row of the metrics is due after this step, if the last one was at `row_step`."""
        before, now = self.fraction_done(row_step, row_seconds), self.fraction_done(step, seconds)
        return int(now * ROWS + 1e-9) > int(before * ROWS + 1e-9)  # 0.58 * 50 is a little less than 29

    def __str__(self) -> str:
        parts = [] if self.steps is None else [f"{self.steps} steps"]
        parts += [] if self.seconds is None else [f"{self.seconds / 60:g} min"]
        epochs = "" if self.epochs is None else f"{self.epochs:g} epoch{'s' * (self.epochs != 1)}, "
        return f"{epochs}{' or '.join(parts)}, at {self.epoch_steps:.4g} steps per epoch"


@dataclass
class IntervalStats:
    """Sums over the steps since the last row of `metrics.csv`.

    Attributes:
        steps: Number of steps with a finite loss and gradient.
        nonfinite: Number of steps with a loss or gradient that was not finite; they left the weights as they were.
        images: Number of images of all processes.
        localization: Sum of the localization losses of the finite steps.
        confidence: Sum of the confidence losses of the finite steps.
        distillation: Sum of the weighted distillation losses of the finite steps.
        gradient_norm: Sum of the gradient norms of the finite steps.
        seconds: Seconds that the steps took.
        waits: Seconds of that time in which the process waited for the next batch (`input`) and for the device
            (`device`).
    """

    steps: int = 0
    nonfinite: int = 0
    images: int = 0
    localization: float = 0.0
    confidence: float = 0.0
    distillation: float = 0.0
    gradient_norm: float = 0.0
    seconds: float = 0.0
    waits: dict[str, float] = field(default_factory=lambda: {"input": 0.0, "device": 0.0})

    def mean(self, name: str) -> float:
        """Returns the mean of a loss or of `gradient_norm`, by its name, over the finite steps, or NaN."""
        total: float = getattr(self, name)
        return total / self.steps if self.steps else nan

    @contextmanager
    def waiting(self, whom: str) -> Iterator[None]:
        """Counts the time of this block as waiting for the `input` or the `device`."""
        began = time.monotonic()
        yield
        self.waits[whom] += time.monotonic() - began

    def shares(self) -> Mapping[str, float]:
        """Returns the percentages of the time spent on the input, in Python (`host`) and in the network (`device`)."""
        whole = max(self.seconds, 1e-9)
        waits = {whom: 100 * seconds / whole for whom, seconds in self.waits.items()}
        return {"input": waits["input"], "host": max(0.0, 100 - sum(waits.values())), "device": waits["device"]}


def _about(value: float) -> str:
    """Returns a number with two digits."""
    return f"{float(f'{value:.2g}'):g}"


def _duration(seconds: float) -> str:
    """Returns a rounded time: `40 seconds`, `3.5 minutes`, `50 minutes`, `12 hours`."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{_about(seconds / size)} {unit}"
    return f"{_about(seconds)} seconds"


def progress_line(
    progress: Progress, position: str, *, validates: bool = False, metrics: Metrics | None = None, best: bool = False
) -> str:
    """Returns the line of a validation, or of a moment between two, in columns that fit a terminal of 80 columns.

    Args:
        progress: Progress of the run.
        position: Where the run is: see `RunLength.position`.
        validates: Whether the run has a validation set, so that its lines have columns for AP.
        metrics: The result of the validation at this step, if there is one.
        best: Whether its AP is the highest so far.
    """
    kind, _, end = position.partition("/")
    name = kind.partition(" ")[0]
    cells = [position.ljust(len(f"{name} {end}/{end}") + 2), progress.loss() if progress.step else "the start"]
    if validates:
        scores = (metrics.ap50, metrics.ap) if metrics else None
        cells += [
            "AP50 " + percent(scores[0]).replace("100.0", "100") if scores else "",
            "AP " + percent(scores[1]).replace("100.0", "100") if scores else "",
        ]
        cells.append("best" if best else "")
    if progress.step:
        cells += [progress.speed(), progress.time_left()]
    widths = (0, 10, *((9, 7, 4) if validates else ()), 11, 0)
    cells = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
    line = "  ".join(cells).rstrip()
    return line if len(line) <= LINE_COLUMNS else " ".join(cells).rstrip()


def metrics_row(progress: Progress, interval: IntervalStats, seconds: float, metrics: Metrics | None) -> Row:
    """Returns a row of `metrics.csv`. The losses are `None` if no step of the interval was finite.

    Args:
        progress: Progress of the run.
        interval: The sums since the last row.
        seconds: Seconds since the run began.
        metrics: The result of the validation at this step, or `None` between validations.
    """
    values = {
        "step": progress.step,
        "epoch": progress.epoch,
        "minutes": seconds / 60,
        "learning_rate": progress.learning_rate,
        "localization": progress.localization,
        "confidence": progress.confidence,
        "distillation": progress.distillation or None,  # 0 without a teacher
        "gradient_norm": progress.gradient_norm,
        "nonfinite_steps": interval.nonfinite,
        "images_per_second": progress.images_per_second,
        **{f"time_{whom}": share for whom, share in interval.shares().items()},
        "ap": metrics.ap if metrics else None,
        "ap50": metrics.ap50 if metrics else None,
        "ap75": metrics.ap75 if metrics else None,
    }
    return {name: None if value is None or isnan(value) else value for name, value in values.items()}
