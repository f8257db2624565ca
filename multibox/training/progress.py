"""How far a run is, how it does, and who waits for whom."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil, isfinite, nan

from multibox.training.recipes import TrainConfig


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: Steps done.
        part: Of the run, from 0 to 1.
        epoch: How often each image was seen; with balanced classes, on average.
        localization: The localization loss, averaged since the last validation.
        confidence: The confidence loss, averaged since the last validation.
        gradient_norm: The norm of the gradient before clipping, averaged since the last validation.
        learning_rate: Of the last step.
        images_per_second: Of training since the last validation.
        seconds_left: To the end of the run, validations included, at the rate so far.
    """

    step: int
    part: float
    epoch: float
    localization: float
    confidence: float
    gradient_norm: float
    learning_rate: float
    images_per_second: float
    seconds_left: float

    def __str__(self) -> str:
        minutes, seconds = divmod(ceil(self.seconds_left), 60) if isfinite(self.seconds_left) else (0, 0)
        return (
            f"epoch {self.epoch:.1f}  localization {self.localization:.3f}  confidence {self.confidence:.3f}  "
            f"{self.images_per_second:.0f} images/s  {minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"
        )


@dataclass(frozen=True)
class Length:
    """How long a run is, in steps and seconds, and how far apart its validations are.

    Attributes:
        steps: Or no limit.
        seconds: Or no limit.
        epoch_steps: How many steps see each image once.
        validation_steps: Between two validations.
    """

    steps: int | None
    seconds: float | None
    epoch_steps: float
    validation_steps: int

    @classmethod
    def of(cls, config: TrainConfig, *, epoch_steps: float) -> "Length":
        limits = [] if config.steps is None else [config.steps]
        limits += [] if config.epochs is None else [ceil(config.epochs * epoch_steps)]
        return cls(
            steps=min(limits, default=None),
            seconds=None if config.minutes is None else config.minutes * 60,
            epoch_steps=epoch_steps,
            validation_steps=max(1, round(config.validate_every * epoch_steps)),
        )

    def part(self, step: int, seconds: float) -> float:
        """How much of the run is done, from 0 to 1 (and above, where a step took it past the end)."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = seconds / self.seconds if self.seconds else 0.0
        return max(by_steps, by_time)

    def validation_due(self, step: int) -> bool:
        return step % self.validation_steps == 0


@dataclass
class Stretch:
    """Sums over the steps since the last validation.

    Attributes:
        steps: Those that were good.
        bad_steps: Those that were not, and left the weights as they were.
        images: Of all processes.
        localization: Sum of the losses.
        confidence: Sum of the losses.
        gradient_norm: Sum of the norms.
        seconds: All of the time.
        waits: Of that, for the input (a batch was not there yet) and for the device (its work was not done yet).
    """

    steps: int = 0
    bad_steps: int = 0
    images: int = 0
    localization: float = 0.0
    confidence: float = 0.0
    gradient_norm: float = 0.0
    seconds: float = 0.0
    waits: dict[str, float] = field(default_factory=lambda: {"input": 0.0, "device": 0.0})

    def mean(self, name: str) -> float:
        """Of a good step's localization, confidence or gradient_norm; not a number where there was none."""
        total: float = getattr(self, name)
        return total / self.steps if self.steps else nan

    @contextmanager
    def waiting(self, whom: str) -> Iterator[None]:
        """The time in this block is spent waiting for the input, or the device."""
        began = time.monotonic()
        yield
        self.waits[whom] += time.monotonic() - began

    def shares(self) -> dict[str, float]:
        """Percent of the time in which the input, the host and the device were waited for."""
        whole = max(self.seconds, 1e-9)
        waits = {whom: 100 * seconds / whole for whom, seconds in self.waits.items()}
        return {"input": waits["input"], "host": max(0.0, 100 - sum(waits.values())), "device": waits["device"]}
