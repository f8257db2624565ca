"""The training loop: steps, validations, and when they are due."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil, isnan, nan
from pathlib import Path
from types import FrameType

import torch

from multibox.data.sample import Dataset, compare_classes
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate
from multibox.ssd.loss import Losses
from multibox.training.batches import make_loader
from multibox.training.recipes import TrainConfig
from multibox.training.record import Record
from multibox.training.run import Run

log = logging.getLogger("multibox")


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: Steps done.
        part: Of the run, from 0 to 1.
        epoch: How often each picture was seen.
        localization: The localization loss, averaged since the last validation.
        confidence: The confidence loss, averaged since the last validation.
        learning_rate: Of the last step.
        pictures_per_second: Of training since the last validation.
        seconds_left: To the end of the run, validations included, at the rate so far.
    """

    step: int
    part: float
    epoch: float
    localization: float
    confidence: float
    learning_rate: float
    pictures_per_second: float
    seconds_left: float


def train(
    detector: Detector,
    train_set: Dataset,
    val_set: Dataset | None = None,
    config: TrainConfig | None = None,
    *,
    out: str | os.PathLike[str],
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Detector:
    """Trains the detector in place, and returns the best of the run: by AP on `val_set`, the last where there is none.

    The folder `out` then holds `best.safetensors`, `last.safetensors` and, for `resume`, `last.pt`; `metrics.csv`,
    `config.yaml`, `log.txt`, `curves.png` and `validation.jpg`.

    Args:
        detector: Its classes must be those of the data, in their order: see `Detector.with_classes`.
        train_set: To learn from.
        val_set: To validate on.
        config: Values of the run; what they leave open is the recipe's that suits the detector.
        out: Made where it is not there.
        resume: Go on from what an interrupted run saved in `out`; begin where it saved nothing yet.
        on_progress: Called after each step.
        notes: What else `config.yaml` is to hold, as the command line's model and splits.

    Raises:
        ValueError: The classes differ, a set is empty, a loss is not finite, or what is saved in `out` is of another
            detector.
        FileExistsError: `out` holds a run, and `resume` was not asked for.
    """
    for dataset in [train_set] if val_set is None else [train_set, val_set]:
        _check(detector, dataset)
    config, recipe = (config or TrainConfig()).settled(backbone=detector.config.backbone)
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    precision = config.precision or ("bf16" if device.startswith("cuda") else "fp32")
    workers = _default_workers(device) if config.workers is None else config.workers
    # on a small machine torch's threads and the workers fight for the cores: each gets its own
    with _threads(max(1, _cores() - workers)), Record(Path(out), resume=resume) as record:
        run = Run(detector, recipe, device=device, precision=precision)
        if record.state.exists():
            run.load(record.state)
        record.write_config(config, notes or {})
        record.drop_rows_after(run.validated)
        log.info("%s pictures, %s", len(train_set), "from the start" if run.step == 0 else f"from step {run.step}")
        length = Length.of(config, epoch_steps=len(train_set) / recipe.batch_size)
        batches = make_loader(
            train_set,
            detector.config,
            recipe.augmentation,
            batch_size=recipe.batch_size,
            first_step=run.step,
            steps=length.steps,
            seed=config.seed,
            workers=workers,
        )
        provenance = detector.provenance | {
            "trained with": f"multibox {version('multibox')}",
            "trained on": train_set.name,
            "recipe": str(config.recipe),
            "seed": str(config.seed),
        }
        stretch = _Stretch()
        began = time.monotonic() - run.seconds
        try:
            while True:
                # before the step, because an interrupted run may have missed the validation of its last one
                if run.step > run.validated and (length.part(run) >= 1 or length.validation_due(run.step)):
                    _validate(run, record, detector, val_set, stretch.progress(run, length), provenance)
                    stretch = _Stretch()
                    run.seconds = time.monotonic() - began
                    run.validated = run.step
                    run.save(record.state)
                if length.part(run) >= 1:
                    break
                batch = next(batches)
                with _interrupts_wait():  # a step is done whole or not at all: what is saved is what goes on
                    losses = run.learn(batch, learning_rate=recipe.rate(length.part(run)))
                stretch.add(losses, pictures=len(batch.names))
                run.seconds = time.monotonic() - began
                if on_progress is not None:
                    on_progress(stretch.progress(run, length))
        except KeyboardInterrupt:
            run.save(record.state)
            raise
        best = Detector.load(record.best)
        record.draw_curves()
        record.draw_validation(best, val_set or train_set)
    return best


@dataclass(frozen=True)
class Length:
    """How long a run is, in steps and seconds, and how far apart its validations are.

    Attributes:
        steps: Or no limit.
        seconds: Or no limit.
        epoch_steps: How many steps see each picture once.
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

    def part(self, run: Run) -> float:
        """How much of the run is done, from 0 to 1 (and above, where a step took it past the end)."""
        by_steps = run.step / self.steps if self.steps else 0.0
        by_time = run.seconds / self.seconds if self.seconds else 0.0
        return max(by_steps, by_time)

    def validation_due(self, step: int) -> bool:
        return step % self.validation_steps == 0


class _Stretch:
    """The steps since the last validation."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.steps = 0
        self.pictures = 0
        self.losses = torch.zeros(2)

    def add(self, losses: Losses, *, pictures: int) -> None:
        self.losses += torch.stack([losses.localization, losses.confidence]).detach().cpu()
        self.steps += 1
        self.pictures += pictures

    def progress(self, run: Run, length: Length) -> Progress:
        part = min(length.part(run), 1.0)
        localization, confidence = (self.losses / self.steps).tolist() if self.steps else (nan, nan)
        return Progress(
            step=run.step,
            part=part,
            epoch=run.step / length.epoch_steps,
            localization=localization,
            confidence=confidence,
            learning_rate=run.learning_rate,
            pictures_per_second=self.pictures / (time.monotonic() - self.began),
            seconds_left=run.seconds * (1 - part) / part,
        )


def _validate(
    run: Run,
    record: Record,
    detector: Detector,
    val_set: Dataset | None,
    progress: Progress,
    provenance: dict[str, str],
) -> None:
    """Scores the averaged weights, and writes them down: as the last, and as the best if they are."""
    trained = Detector.of_network(
        detector.config, detector.class_names, run.average, provenance=provenance | {"step": str(run.step)}
    )
    metrics = None if val_set is None else evaluate(trained, val_set)
    row: dict[str, float | int | None] = {
        "step": run.step,
        "epoch": progress.epoch,
        "minutes": run.seconds / 60,
        "learning_rate": progress.learning_rate,
        # unknown where a resumed run has made no step yet
        "localization": None if isnan(progress.localization) else progress.localization,
        "confidence": None if isnan(progress.confidence) else progress.confidence,
        "pictures_per_second": progress.pictures_per_second or None,
        "ap": metrics.ap if metrics else None,
        "ap50": metrics.ap50 if metrics else None,
        "ap75": metrics.ap75 if metrics else None,
    }
    record.write_row(row)
    log.info(", ".join(f"{name} {value:.4g}" for name, value in row.items() if value is not None))
    trained.save(record.last)
    ap = metrics.ap if metrics else None
    if ap is None or ap > run.best:
        trained.save(record.best)
        run.best = run.best if ap is None else ap


def _check(detector: Detector, dataset: Dataset) -> None:
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name} has no pictures")
    difference = compare_classes(dataset.name, dataset.class_names, "the detector", detector.class_names)
    if difference:
        raise ValueError(f"{difference}; make one for the data with detector.with_classes(dataset.class_names)")


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C is heard at the end of this block, not within it."""
    before = signal.getsignal(signal.SIGINT)
    # other threads hear of no signals, and what is ignored stays ignored
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    heard: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        before(*heard[0])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch with this many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _default_workers(device: str) -> int:
    """On a CPU one core reads what three can learn from; a GPU takes all that can be had."""
    return max(1, _cores() - 1) if device.startswith("cuda") else _cores() // 4


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
