"""Save a run: at regular intervals, when it is asked to stop, and when an error ends it."""

import logging
from contextlib import suppress
from typing import NoReturn

from multibox.detector import Detector
from multibox.training.distributed import ProcessGroup
from multibox.training.interrupts import Interrupts
from multibox.training.monitor import StepMonitor
from multibox.training.recipes import TrainConfig
from multibox.training.state import Checkpoints, TrainState, checkpoint_values
from multibox.training.trainer import Trainer

log = logging.getLogger("multibox")


class Saver:
    """Writes the checkpoints of a run."""

    def __init__(
        self,
        trainer: Trainer,
        state: TrainState,
        monitor: StepMonitor,
        checkpoints: Checkpoints,
        *,
        detector: Detector,
        config: TrainConfig,
        group: ProcessGroup,
    ) -> None:
        self._trainer = trainer
        self._state = state
        self._monitor = monitor
        self._checkpoints = checkpoints
        self._detector = detector
        self._config = config
        self._group = group
        self._saved_at = state.seconds

    def save(self) -> None:
        """Writes a checkpoint. All processes call it after the same step, since their pending numbers are read."""
        self._monitor.flush()
        if self._group.is_main:
            self._write()
        self._saved_at = self._state.seconds

    def save_if_due(self) -> None:
        """Writes a checkpoint if the last one is older than `checkpoint_minutes`."""
        if self._state.seconds - self._saved_at >= self._config.checkpoint_minutes * 60:
            self.save()

    def stop(self, interrupts: Interrupts) -> NoReturn:
        """Saves, and stops once all processes are here.

        Otherwise torchrun would end the other processes when the first one leaves.

        Raises:
            KeyboardInterrupt: Always.
        """
        self.save()
        self._group.sync(self._state.seconds)  # returns when all processes are here
        heard = interrupts.heard.name if interrupts.heard else "another process stopped"
        raise KeyboardInterrupt(f"{heard} at step {self._state.step}; all is saved") from None

    def save_after(self, error: BaseException, interrupts: Interrupts) -> None:
        """Saves what can be saved after an error, without waiting for other processes. Never raises.

        Nothing is saved after a second Ctrl-C, which asks for an immediate end.
        """
        hurried = isinstance(error, KeyboardInterrupt) and interrupts.heard is not None
        if not self._group.is_main or self._state.step == 0 or hurried:
            return
        if not self._trainer.consistent:
            log.warning("the error came while the weights were updated, so they were not saved: resume from last.pt")
            return
        if self._group.size == 1:
            with suppress(Exception):
                self._monitor.flush()
        try:
            self._write()
            log.info(f"saved at step {self._state.step}, because an error ends the run")
        except Exception as second:
            log.warning(f"the run could not be saved after the error: {second}")

    def _write(self) -> None:
        self._checkpoints.write(checkpoint_values(self._trainer, self._state, self._detector, self._config))
