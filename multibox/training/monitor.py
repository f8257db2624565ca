"""What is looked at while a run goes on: the numbers of each step, steps that are not finite, unreadable images."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multibox.training.distributed import World
from multibox.training.loading import Batch
from multibox.training.progress import Length
from multibox.training.recipes import TrainConfig
from multibox.training.run_directory import Record
from multibox.training.trainer import Run, Step

log = logging.getLogger("multibox")

BAD_STEPS_IN_A_ROW = 20
"""So many end a run that goes on without bad steps: its weights can give nothing else any more."""


class _Sent(NamedTuple):
    """A step whose numbers may still be on their way from the device."""

    step: int
    batch: Batch
    numbers: Tensor
    arrived: torch.cuda.Event | None


class Watch:
    """Adds the numbers of the steps to the run's stretch, and says what is wrong with any of them."""

    def __init__(self, run: Run, config: TrainConfig, length: Length, record: Record, world: World) -> None:
        self._run = run
        self._config = config
        self._length = length
        self._record = record
        self._world = world
        self._sent: deque[_Sent] = deque()
        self._unreadable: set[str] = set()  # since the process began: mended files are not held against a run

    def add(self, step: Step, batch: Batch) -> None:
        """The step that was just made. A GPU's numbers are read two steps later, so that it always has work to do.

        Raises:
            ValueError: A step was not finite: see `read`.
        """
        numbers, arrived = torch.stack([*step[:3], step.bad.float()]), None
        if numbers.is_cuda:
            numbers, arrived = numbers.to("cpu", non_blocking=True), torch.cuda.Event()
            arrived.record()
        self._sent.append(_Sent(self._run.step, batch, numbers, arrived))
        self.read(but=2 if arrived else 0)

    def read(self, *, but: int = 0) -> None:
        """Waits for the numbers of all steps, but the last few.

        Raises:
            ValueError: A step was not finite, and the run is not to go on without it, or had too many in a row.
        """
        stretch = self._run.stretch
        while len(self._sent) > but:
            sent = self._sent.popleft()
            with stretch.waiting("device"):
                if sent.arrived:
                    sent.arrived.synchronize()
                localization, confidence, norm, bad = sent.numbers.tolist()
            if bad:
                stretch.bad_steps += 1
                self._run.bad_in_a_row += 1
                self._look_at_bad_step(sent, localization, confidence, norm)
            else:
                self._run.bad_in_a_row = 0
                stretch.steps += 1
                stretch.localization += localization
                stretch.confidence += confidence
                stretch.gradient_norm += norm

    def _look_at_bad_step(self, sent: _Sent, localization: float, confidence: float, norm: float) -> None:
        """Names what was learned from, and keeps it in a file."""
        file = self._record.save_batch(sent.step, self._world.rank, sent.batch)
        shares = self._world.gather((file, _images_and_boxes(sent.batch)))
        files = ", ".join(str(file) for file, _ in shares if file)
        kept = f"What it saw is in {files}" if files else "Ten batches of such steps are kept already"
        images = [line for _, lines in shares for line in lines]
        what = (
            f"epoch {sent.step / self._length.epoch_steps:.2f}, step {sent.step}: the localization loss is "
            f"{localization:.3g}, the confidence loss {confidence:.3g}, the norm of the gradient {norm:.3g}; the step "
            f"was not taken. {kept}; the images, and their boxes in percent: {'; '.join(images)}"
        )
        if not self._config.skip_bad_steps:
            raise ValueError(
                f"{what}. Look at the boxes; try a lower learning rate (learning_rate, --learning-rate) or "
                "clip_norm=10 (--clip-norm); or go on without such steps: --resume --skip-bad-steps"
            )
        if self._run.bad_in_a_row >= BAD_STEPS_IN_A_ROW:
            raise ValueError(
                f"{what}. So were the {BAD_STEPS_IN_A_ROW - 1} before it: start anew at a lower learning rate"
            )
        log.warning(what)

    def new_complaints(self, batch: Batch) -> list[str]:
        """What was wrong with images of this process's part of a step, where it is not known yet."""
        return sorted(set(batch.unreadable) - self._unreadable)

    def add_unreadable(self, complaints: Sequence[str], images: int) -> None:
        """Lists what was wrong with images; called in all processes where it is news to any.

        Args:
            complaints: Of this process.
            images: How many there are in all.

        Raises:
            ValueError: Too many of them cannot be read.
        """
        known = self._unreadable
        for complaint in sorted({each for share in self._world.gather(complaints) for each in share}):
            known.add(complaint)
            if complaint not in self._run.unreadable:
                self._run.unreadable.append(complaint)
            log.warning(f"{complaint}; another image took its place ({len(known)} of {images} so far)")
        if len(known) > self._config.max_unreadable * images:
            raise ValueError(
                f"{len(known)} of {images} images cannot be read, more than max_unreadable="
                f"{self._config.max_unreadable:g} of them; see the log, and mend the files"
            )


def _images_and_boxes(batch: Batch) -> list[str]:
    """Each image with its boxes, in percent of the image that was learned from."""
    lines = []
    for name, boxes, labels in zip(batch.names, batch.boxes, batch.labels, strict=True):
        percent = [[round(100 * value, 1) for value in box] for box in boxes[labels >= 0].tolist()]
        more = f" and {len(percent) - 3} more" if len(percent) > 3 else ""
        lines.append(f"{name} {percent[:3]}{more}")
    return lines
