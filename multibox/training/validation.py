"""Evaluate on the validation set. Each process runs the detector on its share of the images."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from multibox.data.sample import Dataset
from multibox.detections import Detections
from multibox.detector import Detector, PreparedImage
from multibox.evaluation.evaluate import counted_by, score
from multibox.evaluation.metrics import Metrics
from multibox.evaluation.precision_recall import PrecisionRecall, precision_recall_by_class
from multibox.training.distributed import ProcessGroup, sendable
from multibox.training.interrupts import Interrupts, Stopped
from multibox.training.recipes import TrainConfig
from multibox.training.reporter import Reporter
from multibox.training.run_directory import RunDirectory, step_of
from multibox.training.saver import Saver
from multibox.training.state import TrainState
from multibox.training.trainer import Trainer

log = logging.getLogger("multibox")

BATCH_SIZE = 8

LEAST_F1 = 0.1
"""Lowest F1 that makes a score threshold worth keeping. Below it the class is hardly learned, and the threshold that is
best for it lets hundreds of false detections pass."""


class Evaluation(NamedTuple):
    """The results of a detector on a data set.

    Attributes:
        metrics: COCO's metrics.
        found: The detections in each image.
    """

    metrics: Metrics
    found: list[Detections]


class Validator:
    """Validates the averaged weights of a run, and saves them.

    Attributes:
        best: Evaluation of the best weights; `None` if it was made before the run was resumed.
    """

    def __init__(
        self,
        trainer: Trainer,
        state: TrainState,
        val_set: Dataset | None,
        *,
        config: TrainConfig,
        provenance: Mapping[str, str],
        directory: RunDirectory,
        reporter: Reporter,
        saver: Saver,
        group: ProcessGroup,
        interrupts: Interrupts,
    ) -> None:
        self._trainer = trainer
        self._state = state
        self._val_set = val_set
        self._config = config
        self._provenance = provenance
        self._directory = directory
        self._reporter = reporter
        self._saver = saver
        self._group = group
        self._interrupts = interrupts
        self.best: Evaluation | None = None

    def validate(self) -> None:
        """Evaluates the averaged weights, writes the row and the checkpoint, and then the weights files.

        Without a validation set, the weights of the last validation count as the best.
        """
        began, seconds = time.monotonic(), self._state.seconds
        state, group = self._state, self._group
        group.broadcast_module(self._trainer.ema)
        evaluation = None
        if self._val_set is not None:
            evaluation = self._evaluate(self.averaged(), self._val_set)
            state.score_thresholds = best_thresholds(evaluation.metrics)
        ap = evaluation.metrics.ap if evaluation else None
        state.seconds, _ = group.sync(seconds + time.monotonic() - began)
        is_best = ap is None or ap > state.best_ap
        self._reporter.row(
            state, evaluation.metrics if evaluation else None, validation=True, best=ap is not None and is_best
        )
        state.validations_since_best += 1
        if is_best:
            self.best = evaluation
            state.best_ap, state.best_step = state.best_ap if ap is None else ap, state.step
            state.validations_since_best = 0
        if self.out_of_patience():
            log.info(
                f"no higher AP in {state.validations_since_best} validations, since step {state.best_step}: the run "
                "ends here"
            )
        state.validated = state.step
        state.validation_seconds += state.seconds - seconds
        self._saver.save()
        self.save_weights()
        if evaluation and self._val_set:
            val_set, found = self._val_set, evaluation.found
            self._reporter.pr_curves(state.step, lambda: curves_by_class(val_set, found))

    def _evaluate(self, detector: Detector, val_set: Dataset) -> Evaluation:
        """Evaluates the detector, and reports the images that are done."""

        def show(done: int) -> None:
            try:
                self._reporter.validating(done, len(val_set))
            except KeyboardInterrupt:
                self._interrupts.heard = self._interrupts.heard or signal.SIGINT

        show(0)
        return evaluate(detector, val_set, self._group, self._interrupts, on_progress=show)

    def averaged(self) -> Detector:
        """Returns the detector with the averaged weights and the score thresholds of the last validation."""
        provenance = {**self._provenance, "step": str(self._state.step)}
        return self._trainer.averaged(provenance, self._state.score_thresholds)

    def save_weights(self) -> None:
        """Writes the weights files that are missing or older than the last validation."""
        if not self._group.is_main or self._state.step != self._state.validated:
            return
        due = {self._directory.last: True, self._directory.best: self._state.best_step == self._state.step}
        due[self._directory.kept(self._state.step)] = self._config.keep_weights
        for path, is_due in due.items():
            if is_due and step_of(path) != self._state.step:
                self.averaged().save(path)

    def ap_of_best(self, detector: Detector, *, step: int) -> float:
        """Returns the AP of the best weights so far on the validation set as it is now; -1 if there is no AP.

        Args:
            detector: The detector with the best weights.
            step: Step of these weights.
        """
        if self._val_set is None:
            return -1.0
        ap = self._evaluate(detector, self._val_set).metrics.ap
        if ap is None:
            return -1.0
        log.info(f"the best weights, of step {step}, have AP {100 * ap:.1f} on the validation set as it is now")
        return ap

    def out_of_patience(self) -> bool:
        """Returns whether `patience` validations have not raised the AP."""
        return self._config.patience is not None and self._state.validations_since_best >= self._config.patience


def evaluate(
    detector: Detector,
    dataset: Dataset,
    group: ProcessGroup,
    interrupts: Interrupts,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Returns COCO's metrics of the detector on the data set, and its detections in each image.

    The arguments are those of `predict`.

    Raises:
        Stopped: A process was asked to stop meanwhile.
        ValueError: An image cannot be read.
    """
    found = predict(detector, dataset, group, interrupts, on_progress=on_progress)
    truths = [sample.truth for sample in dataset]
    metrics = group.broadcast_from_main(
        lambda: score(
            truths,
            found,
            class_names=dataset.class_names,
            rule="coco",
            score_threshold=detector.config.postprocess.score_threshold,
        )
    )
    return Evaluation(metrics, found)


def predict(
    detector: Detector,
    dataset: Dataset,
    group: ProcessGroup,
    interrupts: Interrupts,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Detections]:
    """Returns the detections in each image of the data set, in its order, in all processes.

    An error in one process, such as an image that cannot be read, is raised in all.

    Args:
        detector: A detector with the same weights in each process.
        dataset: The images. Process r of n takes the images r, r + n, r + 2 n, ...
        group: The processes.
        interrupts: Looked at before each image is decoded.
        on_progress: Called after each image of this process with the number of images that all processes have done.

    Raises:
        Stopped: A process was asked to stop meanwhile.
        ValueError: An image cannot be read.
    """
    mine = range(group.rank, len(dataset), group.size)

    def images() -> Iterator[PreparedImage]:
        for index in mine:
            if interrupts.heard is not None:
                return
            try:
                image = detector.prepare_image(dataset[index].image)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{error}; the image belongs to {dataset.name}, which is validated on: no other image can replace "
                    "it. Mend it, and resume the run"
                ) from error
            yield image

    found: list[Detections] = []
    failed: Exception | None = None
    threshold = detector.config.postprocess.score_threshold
    try:
        for one in detector.detect(images(), score_threshold=threshold, batch_size=BATCH_SIZE):
            found.append(one)
            on_progress(min(len(found) * group.size, len(dataset)))
    except Exception as error:
        failed = error if group.size == 1 else sendable(error)
    stopped = len(found) < len(mine)
    shares = group.all_gather((stopped, failed, found))
    for _, failure, _ in shares:
        if failure is not None:
            raise failure
    if any(stopped for stopped, *_ in shares):
        raise Stopped
    return [shares[index % group.size][2][index // group.size] for index in range(len(dataset))]


def best_thresholds(metrics: Metrics) -> dict[str, float]:
    """Returns the score threshold with the highest F1 for each class that has an F1 of at least `LEAST_F1`."""
    return {
        name: row["score_threshold"]
        for name, row in metrics.per_class.items()
        if row["score_threshold"] is not None and (row["f1"] or 0.0) >= LEAST_F1
    }


def curves_by_class(dataset: Dataset, found: Sequence[Detections]) -> dict[str, PrecisionRecall]:
    """Returns precision and recall by score threshold for each class."""
    truths = counted_by("coco", [sample.truth for sample in dataset])
    _, by_class = precision_recall_by_class(truths, found, num_classes=len(dataset.class_names))
    return dict(zip(dataset.class_names, by_class, strict=True))
