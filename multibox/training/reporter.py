"""Report the progress of a run: rows of `metrics.csv`, lines of the log, callbacks, and TensorBoard."""

import logging
import time
from collections.abc import Callable, Mapping
from math import nan
from types import TracebackType

from PIL import Image

from multibox.evaluation.metrics import Metrics
from multibox.evaluation.precision_recall import PrecisionRecall
from multibox.training.progress import IntervalStats, Progress, RunLength, metrics_row
from multibox.training.recipes import TrainConfig
from multibox.training.run_directory import RunDirectory
from multibox.training.state import TrainState
from multibox.training.tensorboard import TensorBoard

log = logging.getLogger("multibox")

LOG_SECONDS = 60.0
"""Seconds between two lines of the log that say how far a run is."""


class Reporter:
    """Reports on a run, in the main process only. At the end of its context it closes TensorBoard's files."""

    def __init__(
        self,
        directory: RunDirectory,
        length: RunLength,
        *,
        is_main: bool,
        on_progress: Callable[[Progress], None] | None,
        on_row: Callable[[Mapping[str, float | None]], None] | None,
    ) -> None:
        self._directory = directory
        self._length = length
        self._is_main = is_main
        self._on_progress = on_progress
        self._on_row = on_row
        self._tensorboard: TensorBoard | None = None
        self._logged = time.monotonic()

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
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            log.info(f"step {state.step}, {self.progress(state)}")

    def row(self, state: TrainState, metrics: Metrics | None = None, *, validation: bool = False) -> None:
        """Writes a row of the metrics, and starts the next interval of the state.

        Args:
            state: State of the run.
            metrics: Result of the validation at this step.
            validation: Whether this row is of a validation, which gets a line in the log. It need not have metrics.
        """
        progress = self.progress(state)
        row = metrics_row(progress, state.interval, state.seconds, metrics)
        if self._is_main:
            self._directory.write_row(row)
            if self._tensorboard:
                self._tensorboard.add_row(row)
            if self._on_row:
                self._on_row(row)
        if validation:
            self._logged = time.monotonic()
            log.info(_validation_line(progress, state.interval, metrics))
        state.interval = IntervalStats()
        state.row_step, state.row_seconds = state.step, state.seconds

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
        )


def _validation_line(progress: Progress, interval: IntervalStats, metrics: Metrics | None) -> str:
    """Returns the line of the log for a validation: epoch, losses, AP in percent, and speed."""
    parts = [f"epoch {round(progress.epoch, 1):g}, step {progress.step}", *progress.losses()]
    if metrics is not None:
        named = {"AP": metrics.ap, "AP50": metrics.ap50, "AP75": metrics.ap75}
        parts += [f"{name} {100 * value:.1f}" for name, value in named.items() if value is not None]
    parts.append(progress.speed())
    waited = interval.shares()["input"]
    if waited >= 25:
        parts.append(f"{waited:.0f} % of the time spent waiting for images: more --workers may help")
    return ", ".join(parts)
