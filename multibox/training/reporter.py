"""Report the progress of a run: rows of `metrics.csv`, lines of the log, callbacks, and TensorBoard."""

import logging
import time
from collections.abc import Callable, Mapping
from math import nan
from types import TracebackType

from PIL import Image

from multibox.evaluation.metrics import Metrics
from multibox.evaluation.precision_recall import PrecisionRecall
from multibox.training.progress import IntervalStats, Progress, Row, RunLength, metrics_row, progress_line
from multibox.training.recipes import TrainConfig
from multibox.training.run_directory import RunDirectory
from multibox.training.state import TrainState
from multibox.training.tensorboard import TensorBoard

log = logging.getLogger("multibox")

LOG_SECONDS = 60.0
"""Seconds between two lines of the log that say how far a run is."""


FORECAST_STEPS, FORECAST_SECONDS = 10, 20.0
"""The forecast of a run's length is made after so many steps, or after fewer that took so long."""

PERCENT = ("ap", "ap50", "ap75")
"""Columns of `metrics.csv` that people see in percent."""


class Reporter:
    """Reports on a run, in the main process only. At the end of its context it closes TensorBoard's files."""

    def __init__(
        self,
        directory: RunDirectory,
        length: RunLength,
        *,
        is_main: bool,
        device: str,
        validates: bool,
        on_progress: Callable[[Progress], None] | None,
        on_validation: Callable[[int, int], None] | None,
        on_row: Callable[[Mapping[str, float | None]], None] | None,
    ) -> None:
        self._directory = directory
        self._length = length
        self._is_main = is_main
        self._device = device
        self._validates = validates
        self._on_progress = on_progress
        self._on_validation = on_validation
        self._on_row = on_row
        self._tensorboard: TensorBoard | None = None
        self._logged = time.monotonic()
        self._measured_from: tuple[int, float] | None = None
        self._forecast = False

    def open_trackers(self, config: TrainConfig, *, step: int) -> None:
        """Opens the files of the trackers that the config names, for a run that has made this many steps."""
        if self._is_main and "tensorboard" in config.trackers:
            self._tensorboard = TensorBoard(self._directory.folder, config, step=step)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._tensorboard:
            self._tensorboard.close()

    def step(self, state: TrainState) -> None:
        """Reports a step to the callback, and now and then to the log."""
        if not self._is_main:
            return
        if self._on_progress:
            self._on_progress(self.progress(state))
        if not self._forecast:
            self._say_forecast(state)
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            line = self._line(state)
            if self._on_progress:  # whoever listens sees the progress: the terminal keeps the lines of validations
                self._directory.note(line)
            else:
                log.info(line)

    def validating(self, done: int, total: int) -> None:
        """Reports the number of validation images that are done, and of all, to the callback."""
        if self._is_main and self._on_validation:
            self._on_validation(done, total)

    def row(
        self, state: TrainState, metrics: Metrics | None = None, *, validation: bool = False, best: bool = False
    ) -> None:
        """Writes a row of the metrics, and starts the next interval of the state.

        Args:
            state: State of the run.
            metrics: Result of the validation at this step.
            validation: Whether this row is of a validation, which gets a line in the log. It need not have metrics.
            best: Whether the validation has the highest AP so far.
        """
        row = metrics_row(self.progress(state), state.interval, state.seconds, metrics)
        if self._is_main:
            self._directory.write_row(row)
            if self._tensorboard:
                self._tensorboard.add_row(row)
            if self._on_row:
                self._on_row(row)
        if validation:
            self._logged = time.monotonic()
            log.info(self._line(state, metrics, best=best))
            if self._is_main:
                self._directory.note(_details(row))
        state.interval = IntervalStats()
        state.row_step, state.row_seconds = state.step, state.seconds

    def _line(self, state: TrainState, metrics: Metrics | None = None, *, best: bool = False) -> str:
        position = self._length.position(state.step, state.seconds)
        return progress_line(self.progress(state), position, validates=self._validates, metrics=metrics, best=best)

    def _say_forecast(self, state: TrainState) -> None:
        """Logs how long the run will take, once the first steps have been measured; nothing near the run's end."""
        if self._measured_from is None:  # the first step of a process is slower than the others
            self._measured_from = state.step, state.seconds
            return
        step, began = self._measured_from
        steps, seconds = state.step - step, state.seconds - began
        if steps < FORECAST_STEPS and not (steps >= 2 and seconds >= FORECAST_SECONDS):
            return
        self._forecast = True
        waited = state.interval.shares()["input"]
        if waited >= 25 and state.interval.seconds >= 1:
            log.info(f"{waited:.0f} % of the time is spent waiting for images: more --workers may help")
        if self._length.fraction_done(state.step, state.seconds) < 0.5:
            log.info(self._length.forecast(state.step, state.seconds, seconds / steps, device=self._device))

    def pr_curves(self, step: int, curves: Callable[[], Mapping[str, PrecisionRecall]]) -> None:
        """Writes precision by recall for TensorBoard. The curves are computed only if TensorBoard is used."""
        if self._tensorboard:
            self._tensorboard.add_pr_curves(step, curves())

    def image(self, step: int, name: str, image: Image.Image) -> None:
        """Writes an image for TensorBoard."""
        if self._tensorboard:
            self._tensorboard.add_image(step, name, image)

    def progress(self, state: TrainState) -> Progress:
        """Returns the progress of the run."""
        interval = state.interval
        fraction = min(self._length.fraction_done(state.step, state.seconds), 1.0)
        return Progress(
            step=state.step,
            fraction_done=fraction,
            epoch=self._length.epoch(state.step),
            localization=interval.mean("localization"),
            confidence=interval.mean("confidence"),
            gradient_norm=interval.mean("gradient_norm"),
            learning_rate=state.learning_rate,
            images_per_second=interval.images / max(interval.seconds, 1e-9),
            seconds_left=state.seconds * (1 - fraction) / fraction if fraction else nan,
            distillation=interval.mean("distillation"),
        )


def _details(row: Row) -> str:
    """Returns the numbers of a row for `log.txt`, those that the line of the terminal leaves out among them."""
    parts = [f"{name} {value:.4g}" for name, value in row.items() if value is not None and name not in PERCENT]
    parts += [f"{name} {100 * value:.1f}" for name in PERCENT if (value := row[name]) is not None]
    return ", ".join(parts)
