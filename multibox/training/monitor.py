"""Watch the steps of a run: read their numbers, and report steps that are not finite and unreadable images."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multibox.training.distributed import ProcessGroup
from multibox.training.loading import Batch
from multibox.training.progress import RunLength
from multibox.training.recipes import TrainConfig
from multibox.training.run_directory import RunDirectory
from multibox.training.state import TrainState
from multibox.training.trainer import StepResult

log = logging.getLogger("multibox")

MAX_CONSECUTIVE_NONFINITE = 20
"""With `skip_bad_steps`, abort after this many consecutive non-finite steps: the weights have diverged."""


DIVERGED_LOSS = 200.0
"""A mean loss of the last steps above this ends a run. A network that has learned nothing has about 4 ln(classes + 1):
12 for 20 classes, 28 for 1,000."""

DIVERGED_STEPS = 10
"""Number of these steps."""


class _Pending(NamedTuple):
    """A step whose numbers may not have arrived from the device yet."""

    step: int
    batch: Batch
    numbers: Tensor
    arrived: torch.cuda.Event | None


class StepMonitor:
    """Adds the numbers of the steps to the state's interval, and reports steps and images that are wrong."""

    def __init__(
        self, state: TrainState, config: TrainConfig, length: RunLength, directory: RunDirectory, group: ProcessGroup
    ) -> None:
        self._state = state
        self._config = config
        self._length = length
        self._directory = directory
        self._group = group
        self._pending: deque[_Pending] = deque()
        self._losses: deque[float] = deque(maxlen=DIVERGED_STEPS)
        self._unreadable: set[str] = set()  # in this process: images that were repaired since do not count

    def add(self, result: StepResult, batch: Batch) -> None:
        """Adds the result of the step just made. A GPU's numbers are read two steps later, so that the GPU never idles.

        Raises:
            ValueError: A step was not finite, or the loss has diverged: see `flush`.
        """
        numbers, arrived = torch.stack([*result[:4], result.nonfinite.float()]), None
        if numbers.is_cuda:
            numbers, arrived = numbers.to("cpu", non_blocking=True), torch.cuda.Event()
            arrived.record()
        self._pending.append(_Pending(self._state.step, batch, numbers, arrived))
        self.flush(pending=2 if arrived else 0)

    def flush(self, *, pending: int = 0) -> None:
        """Reads the numbers of all steps except the last `pending` ones, waiting for them if need be.

        Raises:
            ValueError: A step was not finite and the run does not skip such steps, or there were too many in a row; or
                the mean loss of the last steps is far above that of a network that has learned nothing.
        """
        while len(self._pending) > pending:
            self._read(self._pending.popleft())

    def _read(self, step: _Pending) -> None:
        interval = self._state.interval
        with interval.waiting("device"):
            if step.arrived:
                step.arrived.synchronize()
            localization, confidence, distillation, norm, nonfinite = step.numbers.tolist()
        if nonfinite:
            interval.nonfinite += 1
            self._state.consecutive_nonfinite += 1
            self._report_nonfinite(step, localization, confidence, distillation, norm)
        else:
            self._state.consecutive_nonfinite = 0
            interval.steps += 1
            interval.localization += localization
            interval.confidence += confidence
            interval.distillation += distillation
            interval.gradient_norm += norm
            self._check_loss(localization + confidence)

    def _check_loss(self, loss: float) -> None:
        """Ends the run if the mean loss of the last steps is none of a network that learns."""
        self._losses.append(loss)
        if len(self._losses) == DIVERGED_STEPS and self._mean_loss() > DIVERGED_LOSS:
            raise ValueError(self._rate_too_high())

    def _mean_loss(self) -> float:
        return sum(self._losses) / max(len(self._losses), 1)

    def _rate_too_high(self) -> str:
        return (
            f"loss {self._mean_loss():.3g}: the learning rate of {self._config.learning_rate:g} is too high; start "
            "again in another folder with a lower one (learning_rate, --learning-rate), or with none for the recipe's"
        )

    def _report_nonfinite(
        self, step: _Pending, localization: float, confidence: float, distillation: float, norm: float
    ) -> None:
        """Names the images and boxes of a step that was not finite, and saves its batch."""
        if self._mean_loss() > DIVERGED_LOSS and not self._config.skip_bad_steps:
            raise ValueError(self._rate_too_high())
        file = self._directory.save_batch(step.step, self._group.rank, step.batch)
        shares = self._group.all_gather((file, _images_and_boxes(step.batch)))
        files = ", ".join(str(file) for file, _ in shares if file)
        saved = f"The batch is saved in {files}" if files else "Ten such batches are saved already"
        images = [line for _, lines in shares for line in lines]
        taught = f", the distillation loss {distillation:.3g}" if distillation else ""
        message = (
            f"epoch {self._length.epoch(step.step):.2f}, step {step.step}: the localization loss is "
            f"{localization:.3g}, the confidence loss {confidence:.3g}{taught}, the norm of the gradient {norm:.3g}; "
            f"the step was not taken. {saved}; the images, and their boxes in percent: {'; '.join(images)}"
        )
        if not self._config.skip_bad_steps:
            raise ValueError(
                f"{message}. Look at the boxes; try a lower learning rate (learning_rate, --learning-rate) or "
                "clip_norm=10 (--clip-norm); or go on without such steps: --resume --skip-bad-steps"
            )
        if self._state.consecutive_nonfinite >= MAX_CONSECUTIVE_NONFINITE:
            raise ValueError(
                f"{message}. So were the {MAX_CONSECUTIVE_NONFINITE - 1} steps before it: start again at a lower "
                "learning rate"
            )
        log.warning(message)

    def new_read_errors(self, batch: Batch) -> list[str]:
        """Returns the errors of this process's images in a batch that were not reported yet."""
        return sorted(set(batch.unreadable) - self._unreadable)

    def add_unreadable(self, errors: Sequence[str], images: int) -> None:
        """Logs images that cannot be read. All processes call it when any of them has new errors.

        Args:
            errors: The new errors of this process.
            images: Number of images in the training set.

        Raises:
            ValueError: Too many images cannot be read.
        """
        known = self._unreadable
        for error in sorted({each for share in self._group.all_gather(errors) for each in share}):
            known.add(error)
            if error not in self._state.unreadable:
                self._state.unreadable.append(error)
            log.warning(f"{error}; another image took its place ({len(known)} of {images} so far)")
        if len(known) > self._config.max_unreadable * images:
            raise ValueError(
                f"{len(known)} of {images} images cannot be read, more than max_unreadable="
                f"{self._config.max_unreadable:g} of them; see the log, and mend the files"
            )


def _images_and_boxes(batch: Batch) -> list[str]:
    """Returns a line for each image with its boxes, in percent of the augmented image."""
    lines = []
    for name, boxes, labels in zip(batch.names, batch.boxes, batch.labels, strict=True):
        percent = [[round(100 * value, 1) for value in box] for box in boxes[labels >= 0].tolist()]
        more = f" and {len(percent) - 3} more" if len(percent) > 3 else ""
        lines.append(f"{name} {percent[:3]}{more}")
    return lines
