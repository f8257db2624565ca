"""The training loop: steps, validations, states saved, and when they are due."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from math import isclose, nan
from pathlib import Path
from typing import Any, NoReturn

import torch
from PIL import Image

from multibox.data.sample import Dataset
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.evaluation.evaluate import score
from multibox.evaluation.metrics import Metrics
from multibox.evaluation.precision_recall import PrecisionRecall, match_detections, precision_recall
from multibox.training.card import device_name, images_to_show, write_card
from multibox.training.data import (
    VALIDATE_ON,
    Names,
    check_data,
    check_same,
    names_of,
    say_doubts,
    say_other_data,
)
from multibox.training.distributed import World, join_world
from multibox.training.interrupts import Interrupts
from multibox.training.loading import Batch, make_loader
from multibox.training.machine import borrow, has_bf16
from multibox.training.monitor import Watch
from multibox.training.progress import Length, Progress, Stretch
from multibox.training.recipes import RECIPES, Recipe, TrainConfig
from multibox.training.run_directory import Record, row_of, step_of
from multibox.training.trackers import Tracker, open_trackers
from multibox.training.trainer import Run
from multibox.training.validation import find

log = logging.getLogger("multibox")

LOG_SECONDS = 60.0
"""Between two lines of the log that say how far a run is."""


def train(
    detector: Detector,
    train_set: Dataset,
    val_set: Dataset | None = None,
    config: TrainConfig | None = None,
    *,
    out: str | os.PathLike[str],
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    notes: Mapping[str, Any] | None = None,
    data: Sequence[str] = (),
) -> Detector:
    """Trains the detector in place, and returns the best of the run: by AP on `val_set`, the last where there is none.

    The folder `out` then holds `best.safetensors`, `last.safetensors` and, for `resume`, `last.pt` and `previous.pt`;
    `metrics.csv`, `config.yaml`, `log.txt`; and at its end `card.md`, `card.json`, `curves.png` and `validation.jpg`.

    A run that was killed and is resumed ends with the weights of one that was not: to the bit, on a CPU with as many
    threads, where its length is in steps or epochs. Started by torchrun, its processes share each step's images, and
    the first of them writes the files.

    Args:
        detector: Its classes must be those of the data, in their order: see `Detector.with_classes`.
        train_set: To learn from.
        val_set: To validate on.
        config: Values of the run; what they leave open is the recipe's that suits the detector.
        out: Made where it is not there.
        resume: Go on from what was saved last in `out`; begin where nothing was saved yet.
        on_progress: Called after each step.
        notes: What else `config.yaml` is to hold, as the command line's model and splits.
        data: The folders of the data set, for the commands on the card.

    Raises:
        ValueError: The classes differ, a set is empty, a loss is not finite, too many images cannot be read, what is
            saved in `out` is of another detector or other batches, or processes do not have the same data.
        FileExistsError: `out` holds a run, and `resume` was not asked for; or another process is at work in it.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; all that was done is saved.
    """
    datasets = [train_set] if val_set is None else [train_set, val_set]
    check_data(detector, datasets)
    config, recipe = (config or TrainConfig()).resolve(backbone=detector.config.backbone)
    with (
        join_world(config.device) as world,
        Record(Path(out), resume=resume, world=world) as record,
        borrow(config, world) as workers,
        Interrupts() as interrupts,
    ):
        names = names_of(datasets)
        check_same(world, datasets, names)
        precision = config.precision or ("bf16" if has_bf16(world.device) else "fp32")
        run = Run(detector, recipe, config, precision=precision, world=world)
        saved = world.from_first(record.checkpoints.read) if resume else None
        if saved is not None:
            run.restore(saved.state, saved.path)
        record.begin(config, notes or {}, step=run.validated)
        for line in _first_lines(run, train_set, recipe, config, world, workers):
            log.info(line)
        say_doubts(datasets, config)
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
            pin_memory=world.device.startswith("cuda"),
            rank=world.rank,
            world_size=world.size,
            balance_classes=config.balance_classes,
        )
        told = config.trackers if world.is_first else ()
        with closing(batches), open_trackers(told, record.folder, config, step=run.step) as trackers:
            loop = _Loop(
                detector,
                train_set,
                val_set,
                names,
                config,
                recipe,
                length,
                run,
                batches,
                world,
                interrupts,
                record,
                trackers,
            )
            if saved is not None:
                loop.take_up(saved.state["data"])
            loop.go(on_progress or (lambda progress: None))
            return loop.finish(
                workers=workers, data=data, val_split=(notes or {}).get("val_split") if val_set else None
            )


@dataclass
class _Loop:
    """All that a run goes through between its first step and its last."""

    detector: Detector
    train_set: Dataset
    val_set: Dataset | None
    names: Names
    config: TrainConfig
    recipe: Recipe
    length: Length
    run: Run
    batches: Iterator[Batch]
    world: World
    interrupts: Interrupts
    record: Record
    trackers: list[Tracker]

    best: tuple[Metrics, list[Detections]] | None = None

    def __post_init__(self) -> None:
        now = time.monotonic()
        self.watch = Watch(self.run, self.config, self.length, self.record, self.world)
        self.began = now - self.run.seconds
        self.marked = self.logged = now
        self.saved = self.run.seconds

    def take_up(self, data: Names) -> None:
        """Does what a run that was killed left undone, and measures its best anew where it cannot be compared.

        Args:
            data: What it learned from, and was validated on.
        """
        run, record, now = self.run, self.record, self.names
        if run.step == run.validated and self.world.is_first:
            for path, due in ((record.last, True), (record.best, run.best_step == run.step)):
                if due and step_of(path) != run.step:
                    self._trained().save(path)
        others = say_other_data(data, now)
        best_step = self.world.from_first(lambda: step_of(record.best))
        if VALIDATE_ON in others or (best_step or 0) != run.best_step:
            self.names = data  # where it is told to stop meanwhile
            run.best, run.best_step, run.since_best = -1.0, best_step or 0, 0
            if best_step and self.val_set is not None:
                best = self.world.from_first(lambda: Detector.load(record.best))
                ap = self._score(best.to(self.world.device), self.val_set)[0].ap
                run.best = -1.0 if ap is None else ap
                log.info(f"the best weights, of step {best_step}, have an AP of {run.best:.4g} on the images of now")
            self.names = now

    def go(self, on_progress: Callable[[Progress], None]) -> None:
        """To the end of the run, or until it is told to stop."""
        run, length, config = self.run, self.length, self.config
        while True:
            # before the step, because an interrupted run may have missed the validation of its last one
            if run.step > run.validated and (self._is_over() or length.validation_due(run.step)):
                self._validate()
            if self._is_over():
                return
            batch = self._learn()
            now = time.monotonic()
            run.seconds = now - self.began
            if self.world.is_first:
                try:
                    on_progress(self._progress())
                except KeyboardInterrupt:
                    self.interrupts.heard = self.interrupts.heard or signal.SIGINT
            complaints = self.watch.new_complaints(batch)
            # what follows is the same in all processes: they go by the first one's clock
            run.seconds, (stop, unreadable) = self.world.agree(
                time.monotonic() - self.began, self.interrupts.heard is not None, bool(complaints)
            )
            if unreadable:
                try:
                    self.watch.add_unreadable(complaints, len(self.train_set))
                except ValueError:
                    self._save()
                    raise
            if now - self.logged >= LOG_SECONDS and not (self._is_over() or length.validation_due(run.step)):
                self.logged = now
                log.info(f"step {run.step}, {self._progress()}")
                for tracker in self.trackers:
                    tracker.scalars(run.step, row_of(self._progress(), run.stretch, run.seconds, None))
            if stop:
                self._stop()
            if run.seconds - self.saved >= config.checkpoint_minutes * 60:
                self._save()

    def finish(self, *, workers: int, data: Sequence[str], val_split: str | None) -> Detector:
        """Writes the card of the run; the best detector."""
        best = self.world.from_first(lambda: Detector.load(self.record.best))
        shown = self.val_set
        if shown is None:
            shown = self.world.from_first(lambda: images_to_show(self.train_set))
        metrics, found = self.best or self._score(best.to(self.world.device), shown)
        best, run = best.to("cpu"), self.run
        training = run.seconds - run.validation_seconds
        if self.world.is_first:
            rows = self.record.rows()
            write_card(
                self.record.folder,
                best,
                train_set=self.train_set,
                val_set=self.val_set,
                shown=shown,
                found=found,
                metrics=metrics if self.val_set else None,
                rows=rows,
                best_step=run.best_step,
                config=self.config,
                facts={
                    "on": f"{self.world.device}, {device_name(self.world.device)}",
                    "precision": run.precision,
                    "processes": self.world.size,
                    "threads of torch": torch.get_num_threads(),
                    "processes that read images": workers,
                    "minutes in all": run.seconds / 60,
                    "minutes of validation": run.validation_seconds / 60,
                    "images/s of training": round(run.step * self.recipe.batch_size / max(training, 1e-9), 1),
                    "unreadable images, replaced by others": len(run.unreadable),
                    "steps that were not finite, left out": round(sum(row["bad_steps"] or 0 for row in rows)),
                },
                data=data,
                val_split=val_split,
            )
        for tracker in self.trackers:
            with Image.open(self.record.folder / "validation.jpg") as sheet:
                tracker.images(run.step, "validation", sheet.copy())
        return best

    def _is_over(self) -> bool:
        out_of_patience = self.config.patience is not None and self.run.since_best >= self.config.patience
        return out_of_patience or self.length.part(self.run.step, self.run.seconds) >= 1

    def _learn(self) -> Batch:
        """A step, its waits measured; what was learned from."""
        run, stretch, device = self.run, self.run.stretch, self.world.device
        with stretch.waiting("input"):
            batch = next(self.batches)
        rate = self.recipe.learning_rate_at(self.length.part(run.step, run.seconds))
        with stretch.waiting("device") if device == "cpu" else nullcontext():
            step = run.learn(batch, learning_rate=rate)
        self.watch.add(step, batch)
        now = time.monotonic()
        stretch.images += self.recipe.batch_size
        stretch.seconds += now - self.marked
        self.marked = now
        return batch

    def _validate(self) -> None:
        """Scores the averaged weights, and writes down the state, then them."""
        began = time.monotonic()
        self.watch.read()
        run, record = self.run, self.record
        self.world.share(run.average)
        try:
            scored = None if self.val_set is None else self._score(self._trained(), self.val_set)
        except ValueError:  # an image of the validation set cannot be read any more
            self._save()
            raise
        ap = scored[0].ap if scored else None
        is_best = ap is None or ap > run.best
        run.seconds = self.world.agree(time.monotonic() - self.began)[0]
        row = row_of(self._progress(), run.stretch, run.seconds, scored[0] if scored else None)
        log.info(", ".join(f"{name} {value:.4g}" for name, value in row.items() if value is not None))
        if self.world.is_first:
            record.write_row(row)
        if is_best:
            self.best = scored
            run.best, run.best_step = run.best if ap is None else ap, run.step
        run.since_best = 0 if is_best else run.since_best + 1
        if self.config.patience is not None and run.since_best >= self.config.patience:
            log.info(f"no higher AP in {run.since_best} validations, since step {run.best_step}: the run ends here")
        run.validated = run.step
        run.stretch = Stretch()
        run.validation_seconds += time.monotonic() - began
        self._save()
        if self.world.is_first:
            trained = self._trained()
            trained.save(record.last)
            if is_best:
                trained.save(record.best)
        curves = _precision_recall(self.val_set, scored[1]) if self.trackers and self.val_set and scored else {}
        for tracker in self.trackers:
            tracker.scalars(run.step, row)
            if curves:
                tracker.pr_curves(run.step, curves)
        self.marked = self.logged = time.monotonic()

    def _trained(self) -> Detector:
        """That of the averaged weights."""
        return Detector.of_network(
            self.detector.config,
            self.detector.class_names,
            self.run.average,
            provenance=self.detector.provenance | _provenance(self.config, self.train_set, self.run.step),
        )

    def _score(self, detector: Detector, dataset: Dataset) -> tuple[Metrics, list[Detections]]:
        """The detector's metrics on a set, and what it finds there.

        Raises:
            KeyboardInterrupt: It was told to stop meanwhile.
            ValueError: An image cannot be read.
        """
        found = find(detector, dataset, self.world, stop=lambda: self.interrupts.heard is not None)
        if found is None:
            self._stop()
        truths = [sample.truth for sample in dataset]
        metrics = self.world.from_first(lambda: score(truths, found, class_names=dataset.class_names, rule="coco"))
        return metrics, found

    def _save(self) -> None:
        """Writes the state; in all processes at the same step, since its numbers are read."""
        self.watch.read()
        if self.world.is_first:
            self.record.checkpoints.write({**self.run.state(), "data": self.names})
        self.saved = self.run.seconds

    def _stop(self) -> NoReturn:
        """Saves, and leaves when all processes have come here: torchrun ends the others when the first one leaves.

        Raises:
            KeyboardInterrupt: Always.
        """
        self._save()
        self.world.agree(self.run.seconds)  # comes back when all are here
        heard = self.interrupts.heard.name if self.interrupts.heard else "another process stopped"
        raise KeyboardInterrupt(f"{heard} at step {self.run.step}; all is saved")

    def _progress(self) -> Progress:
        run, stretch = self.run, self.run.stretch
        part = min(self.length.part(run.step, run.seconds), 1.0)
        return Progress(
            step=run.step,
            part=part,
            epoch=run.step / self.length.epoch_steps,
            localization=stretch.mean("localization"),
            confidence=stretch.mean("confidence"),
            gradient_norm=stretch.mean("gradient_norm"),
            learning_rate=run.learning_rate,
            images_per_second=stretch.images / max(stretch.seconds, 1e-9),
            seconds_left=run.seconds * (1 - part) / part if part else nan,
        )


def _precision_recall(dataset: Dataset, found: list[Detections]) -> dict[str, PrecisionRecall]:
    """Of each class, for those who watch the run."""
    truths = [sample.truth for sample in dataset]
    matches = list(map(match_detections, truths, found))
    return {
        name: precision_recall(truths, found, label=label, matches=matches)
        for label, name in enumerate(dataset.class_names)
    }


def _provenance(config: TrainConfig, train_set: Dataset, step: int) -> dict[str, str]:
    return {
        "trained with": f"multibox {version('multibox')}",
        "trained on": train_set.name,
        "recipe": str(config.recipe),
        "seed": str(config.seed),
        "step": str(step),
    }


def _first_lines(
    run: Run, train_set: Dataset, recipe: Recipe, config: TrainConfig, world: World, workers: int
) -> Iterator[str]:
    """What the log says of a run before its first step."""
    yield f"{len(train_set)} images, {'from the start' if run.step == 0 else f'from step {run.step}'}"
    own = RECIPES[config.recipe or "modern"]
    in_proportion = own.learning_rate * recipe.batch_size / own.batch_size
    says = f"the recipe's {own.learning_rate:g} for batches of {own.batch_size}"
    if not isclose(recipe.learning_rate, in_proportion):
        says = f"as given; in proportion to {says} it would be {in_proportion:g}"
    rises = f"; it rises over the first {100 * recipe.warmup:g} % of the run" if recipe.warmup else ""
    yield f"{recipe.batch_size} images a step at a learning rate of up to {recipe.learning_rate:g}, {says}{rises}"
    if world.size > 1:
        shares = sorted({len(range(recipe.batch_size)[rank :: world.size]) for rank in range(world.size)}, reverse=True)
        yield f"{world.size} processes, {' or '.join(map(str, shares))} images of a step in each"
        if run.has_batch_norm and not config.sync_batch_norm:
            yield (
                "BatchNorm takes each process's images by themselves: not quite what one process would learn; on "
                "GPUs sync_batch_norm (--sync-batch-norm) takes them together"
            )
    yield f"on {world.device}, {torch.get_num_threads()} threads, {workers} workers that read images"
