"""The state of a run: its numbers, and the checkpoints that hold them together with the weights.

A checkpoint is written completely or not at all, the last two are kept, and a damaged one is set aside.
"""

import dataclasses
import logging
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch

from multibox.config import DetectorConfig
from multibox.data.sample import compare_classes
from multibox.detector import Detector
from multibox.files import atomic_write
from multibox.training.data import DatasetFingerprints
from multibox.training.progress import IntervalStats
from multibox.training.recipes import TrainConfig
from multibox.training.trainer import Trainer

log = logging.getLogger("multibox")


@dataclass
class TrainState:
    """The numbers of a run that a checkpoint holds beside the weights and the optimizer.

    Attributes:
        data: Size and fingerprint of the data sets.
        step: Number of steps done.
        seconds: Seconds of training and validation, including those before a resume.
        validation_seconds: Seconds of that time that the validations took.
        validated: Step of the last validation; -1 before the validation of a start that knows classes of the data.
        best_ap: Highest AP of the validations so far, or -1.
        best_step: Step of the validation with that AP.
        score_thresholds: Score threshold with the highest F1 at the last validation, by class name.
        validations_since_best: Number of validations after that step.
        consecutive_nonfinite: Number of steps in a row, up to the last step, whose loss or gradient was not finite.
        learning_rate: Learning rate of the last step.
        row_step: Step of the last row of `metrics.csv`.
        row_seconds: Seconds of the run at that row.
        interval: Sums over the steps since that row.
        unreadable: Errors of the training images that were replaced by others.
    """

    data: DatasetFingerprints
    step: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    validated: int = 0
    best_ap: float = -1.0
    best_step: int = 0
    score_thresholds: dict[str, float] = field(default_factory=dict)
    validations_since_best: int = 0
    consecutive_nonfinite: int = 0
    learning_rate: float = 0.0
    row_step: int = 0
    row_seconds: float = 0.0
    interval: IntervalStats = field(default_factory=IntervalStats)
    unreadable: list[str] = field(default_factory=list)


class Checkpoint(NamedTuple):
    """A checkpoint that was read, and its file."""

    path: Path
    values: dict[str, Any]


class Checkpoints:
    """The two checkpoint files of a run: `last.pt`, and the one before it, `previous.pt`.

    Attributes:
        last: Path of the newer file.
        previous: Path of the older file.
    """

    def __init__(self, folder: Path) -> None:
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"

    def write(self, values: dict[str, Any]) -> None:
        """Writes a checkpoint. If the process is killed at any moment, at least one of the two files is complete.

        Raises:
            OSError: The checkpoint cannot be written, for example because the disk is full. The files are then as
                before.
        """
        with atomic_write(self.last) as part:
            try:
                with part.open("wb") as file:
                    torch.save(values, file)
                    file.flush()
                    os.fsync(file.fileno())
            except RuntimeError as error:  # torch's error for a disk that fills up while it writes
                raise OSError(f"{self.last}: cannot be written ({error.__context__ or error})") from error
            if self.last.exists():
                os.replace(self.last, self.previous)

    def read(self) -> Checkpoint | None:
        """Returns the newest checkpoint that is complete, or `None` if none was ever written.

        Raises:
            ValueError: There are files, but each of them is damaged.
        """
        damaged = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                values = _read(path)
            except (OSError, EOFError, UnpicklingError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
                # torch's own advice about files that it cannot read safely is misleading here
                why = "it is not a checkpoint of a run" if isinstance(error, UnpicklingError) else str(error)
                damaged.append(f"{path}: damaged ({why})")
                continue
            for message in damaged:
                # set aside, because the next write would otherwise replace the complete file by it
                aside = self.last.with_name("last.pt.damaged")
                os.replace(self.last, aside)
                log.warning(
                    "%s; going on from %s, which was saved before it; the damaged file is kept as %s",
                    message,
                    path.name,
                    aside.name,
                )
            return Checkpoint(path, values)
        if damaged:
            raise ValueError(f"{'; '.join(damaged)}; cannot go on from it: start again in another folder")
        return None


def checkpoint_values(trainer: Trainer, state: TrainState, detector: Detector, config: TrainConfig) -> dict[str, Any]:
    """Returns everything that `restore` needs to go on exactly here, in any number of processes."""
    return {
        "class_names": list(detector.class_names),
        "config": detector.config.to_json(),
        "values": config.values(),
        "precision": trainer.precision,
        **trainer.state_dict(),
        **dataclasses.asdict(state),
    }


def restore(
    checkpoint: Checkpoint, trainer: Trainer, state: TrainState, detector: Detector, config: TrainConfig
) -> None:
    """Sets the trainer and the state to those of a checkpoint, except for the fingerprints of the data.

    Raises:
        ValueError: The checkpoint is of another detector, another kind of recipe, or other batches.
    """
    values = checkpoint.values
    try:
        _check(values, detector, config)
        trainer.load_state_dict(values, step=values["step"])
        for each in dataclasses.fields(TrainState):
            if each.name != "data" and each.name in values:  # a run of an older version lacks the newest ones
                setattr(state, each.name, values[each.name])
        state.interval = IntervalStats(**values["interval"])
        _log_changes(values["values"], config.values())
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        why = str(error).split("\n\t")[0]
        raise ValueError(f"{checkpoint.path}: cannot go on from it ({why}); start again in another folder") from error


def _check(values: dict[str, Any], detector: Detector, config: TrainConfig) -> None:
    """Checks that a checkpoint is of this detector (its weights may fit others as well) and has steps of this size."""
    if values["class_names"] != list(detector.class_names):
        raise ValueError(compare_classes("it", values["class_names"], "this run", detector.class_names))
    theirs, ours = (DetectorConfig.from_json(text) for text in (values["config"], detector.config.to_json()))
    names = [each.name for each in dataclasses.fields(DetectorConfig)]
    different = [name for name in names if getattr(theirs, name) != getattr(ours, name)]
    if different:
        raise ValueError(f"its detector '{theirs.name}' has another {', '.join(different)}")
    before, now = values["values"].get("batch_size"), config.batch_size
    if before != now:
        raise ValueError(
            f"its steps are of {before} images, this run's of {now}; to resume it, keep {before} images a step "
            "(--batch-size, batch_size); --accumulate 2 (accumulate=2) then needs less memory"
        )


def _log_changes(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Logs which values of the run differ from those before it was stopped."""
    for name in sorted(before.keys() | now.keys()):
        here, then = (values.get(name, "not given") for values in (now, before))
        if here != then:
            log.info(f"{name} is {here} from here on, and was {then}")


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:  # torch's reader does not verify the checksums
        damaged = file.testzip()
    if damaged:
        raise ValueError(f"the checksum of {damaged} is wrong")
    values = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(values, dict):
        raise ValueError("it is not a checkpoint of a run")
    return values
