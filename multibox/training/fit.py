"""Training a detector: `train` sets a run up and finishes it, `fit` is the loop."""

import dataclasses
import importlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from multibox.data.holdout import Holdout, forget_holdout
from multibox.detector import Detector
from multibox.display import progress_bar
from multibox.report.card import evaluate_command
from multibox.report.environment import commit
from multibox.runtimes.precision import Precision
from multibox.training.class_weights import resolve_class_weights
from multibox.training.data import (
    DatasetFingerprints,
    check_data,
    check_same,
    fingerprints_of,
    warn_about_data,
    warn_if_data_changed,
)
from multibox.training.distributed import ProcessGroup, is_alone, join_processes
from multibox.training.finish import facts_of, finalize, provenance_of
from multibox.training.given import GivenDetector, GivenSet, check_model, make_detector, read_sets
from multibox.training.interrupts import Interrupts, Stopped
from multibox.training.loading import Batch, make_loader
from multibox.training.machine import choose_precision, torch_threads
from multibox.training.monitor import StepMonitor
from multibox.training.opening import announce, write_overview
from multibox.training.optimizer import freeze_as
from multibox.training.progress import Progress, RunLength
from multibox.training.recipes import RECIPES, Recipe, TrainConfig
from multibox.training.reporter import Reporter
from multibox.training.run_directory import RunDirectory, step_of
from multibox.training.run_files import check_run_folder
from multibox.training.saver import Saver
from multibox.training.state import Checkpoint, TrainState, restore
from multibox.training.teacher import Teacher, load_teacher
from multibox.training.trainer import Trainer
from multibox.training.validation import Validator
from multibox.words import explains_arguments

log = logging.getLogger("multibox")


@explains_arguments(TrainConfig)
def train(
    detector: GivenDetector,
    train_set: GivenSet,
    val_set: GivenSet | None = None,
    config: TrainConfig | None = None,
    *,
    out: str | os.PathLike[str],
    val_fraction: float = 0.2,
    recipe: Recipe | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_validation: Callable[[int, int], None] | None = None,
    on_row: Callable[[Mapping[str, float | None]], None] | None = None,
    progress: bool = True,
    teacher: GivenDetector | None = None,
    notes: Mapping[str, Any] | None = None,
    data: Sequence[str] = (),
    holdout: Holdout | None = None,
) -> Detector:
    """Trains a detector, and returns the best detector of the run.

    The detector that you pass is trained in place: afterwards its network holds the weights of the last step, in
    evaluation mode. The detector that is returned is another one, read from `best.safetensors`: the one with the
    highest AP on `val_set`, or the last one if there is no validation set.

    The folder `out` then holds `best.safetensors`, `last.safetensors` and, for `resume`, `last.pt` and `previous.pt`;
    `metrics.csv`, `config.yaml`, `log.txt`, `labels.jpg` and `batch.jpg`; and at the end `card.md`, `card.json`,
    `curves.png` and `validation.jpg` (`training.jpg` if there is no validation set), and `report`, the report on the
    validation set.

    If the detector knows classes of the data, because it or its weights were trained before, it is first scored on
    `val_set` as epoch 0, and counts as the best one until another is better. The recipe's learning rate is then lower.

    A run that was killed and is resumed ends with the weights of an undisturbed run: to the bit, on a CPU with the same
    number of threads, if its length is in steps or epochs. If torchrun started several processes, they share the
    images of each step, and the main process writes the files. A run saves its state, if it can, before it ends for
    whatever reason.

    Data sets may be given by their paths, and the detector by a name, as the command `multibox train` takes them:
    `train("ssd256-tiny", "raccoons/", out="runs/raccoons")`. Images of a path that cannot be decoded are left out, and
    a warning in the log sums up all problems.

    Args:
        detector: The detector to train. Its classes must be those of the training set, in the same order: see
            `Detector.with_classes`. Or the name of a preset, or weights to train on by path or name; these get the
            classes of the data.
        train_set: The images to learn from. Of a path, the split `train`, `trainval`, or the only one.
        val_set: The images to validate on; their classes are joined with those of the training set by name. Of a path,
            the split `val`, `test`, or the only one. If it is None and `train_set` is a path: `val` of the same data,
            or else a part of the training set.
        config: Values of the run. Values that are not set are taken from the recipe.
        out: Folder of the run. It is created if need be.
        val_fraction: Size of that part, as a fraction of the images; 0 for no validation. A hash of an image's name
            decides whether it belongs to the part.
        recipe: A recipe of your own, instead of one that the config names.
        resume: Go on from the last checkpoint in `out`. If there is none, the run starts from the beginning.
        on_progress: Called after each step, in the main process.
        on_validation: Called during a validation with the number of images done and of all, in the main process.
        on_row: Called with each row of `metrics.csv`, in the main process: a number or `None` for each column.
        progress: Whether a progress bar is shown, in a terminal or a notebook, if there is no `on_progress`.
        teacher: A trained detector, or weights by path or name, with the same classes and default boxes. The outputs of
            this detector, which is not changed, are learned beside the labels. A resumed run needs it again.
        notes: Further values for `config.yaml`, such as the command line's model and splits.
        data: Folders of the data set, for the commands on the card.
        holdout: What the run holds out of a split, for the provenance of the weights and the commands on the card.

    Returns:
        The best detector, on the CPU.

    Raises:
        TypeError: A data set is neither a `Dataset` nor a path.
        DatasetError: A path holds no data set that can be used.
        ValueError: The classes differ, a set is empty, no training image has a usable box, a loss is not finite, too
            many images cannot be read, the teacher does not fit, the checkpoint in `out` is of another detector, other
            batches or a run with a teacher that is missing now, or the processes do not have the same data.
        ImportError: A package that the run needs is not installed.
        FileExistsError: `out` holds a run and `resume` is false, or another process is writing to it.
        KeyboardInterrupt: The run received Ctrl-C or SIGTERM. Everything is saved.
    """
    config, own_recipe = config or TrainConfig(), recipe
    if is_alone():  # before the data are read; of several processes, the main one may have made the folder already
        check_run_folder(Path(out), resume=resume)
    of_model = check_model(detector)
    loaded_teacher = None if teacher is None else load_teacher(teacher, progress=progress)
    of_teacher = loaded_teacher.notes if loaded_teacher else {}
    train_set, val_set, of_data, divided = read_sets(train_set, val_set, val_fraction=val_fraction, progress=progress)
    holdout = holdout or divided
    notes = {**of_data, **of_model, **of_teacher, **(notes or {})}
    detector = make_detector(detector, train_set, seed=config.seed, progress=progress)
    datasets = check_data(detector, [train_set] if val_set is None else [train_set, val_set])
    val_set = None if val_set is None else datasets[1]
    forget_holdout(detector.provenance)  # of the run that its weights come from
    knows_classes = bool(detector.learned_classes)
    config, recipe = config.resolve(
        backbone=detector.config.backbone,
        recipe=recipe,
        pretrained="backbone" in detector.provenance and "trained with" not in detector.provenance,
        knows_classes=knows_classes,
    )
    aligned_teacher = Teacher(loaded_teacher, detector) if loaded_teacher else None
    if config.class_weights is not None:
        config = dataclasses.replace(config, class_weights=resolve_class_weights(config.class_weights, train_set))
    import_packages(config, validates=val_set is not None)
    commit()  # that of the code which runs
    with ExitStack() as stack:
        group = stack.enter_context(join_processes(config.device))
        directory = stack.enter_context(RunDirectory(Path(out), resume=resume, group=group))
        workers = stack.enter_context(torch_threads(config, group))
        interrupts = stack.enter_context(Interrupts())
        stack.callback(detector.network.eval)
        fingerprints = fingerprints_of(datasets)
        check_same(group, datasets, fingerprints)
        checkpoint = group.broadcast_from_main(directory.checkpoints.read) if resume else None
        precision, why = resolve_precision(config, recipe, checkpoint, detector, group)
        config = dataclasses.replace(config, precision=precision)
        trainer = Trainer(
            detector,
            recipe,
            config,
            precision=precision,
            group=group,
            teacher=aligned_teacher,
        )
        # a start that knows classes of the data is validated as step 0, so that the best weights are never worse
        state = TrainState(data=fingerprints, validated=-1 if val_set and detector.learned_classes else 0)
        if checkpoint is not None:
            restore(checkpoint, trainer, state, detector, config)
        has_rows = checkpoint is not None and state.validated >= 0
        directory.begin(config, notes, step=state.row_step if has_rows else -1)
        directory.write_problems([problem for dataset in datasets for problem in dataset.problems])
        length = RunLength.of(config, epoch_steps=len(train_set) / recipe.batch_size)
        announce(
            state,
            train_set,
            length,
            config=config,
            recipe=recipe,
            named=own_recipe or RECIPES[config.recipe or "modern"],
            knows_classes=knows_classes,
            precision=f"{precision}: {why}",
            workers=workers,
            separate_batch_norm=trainer.has_batch_norm and not config.sync_batch_norm,
            teacher=aligned_teacher,
            directory=directory,
            group=group,
        )
        if group.is_main and state.step == 0:
            write_overview(directory, detector, train_set, val_set, recipe, config)
        warn_about_data(datasets, config)
        monitor = StepMonitor(state, config, length, directory, group)
        saver = Saver(trainer, state, monitor, directory.checkpoints, detector=detector, config=config, group=group)
        if progress and on_progress is None:
            on_progress = stack.enter_context(_training_bar())
        reporter = stack.enter_context(
            Reporter(
                directory,
                length,
                is_main=group.is_main,
                device="CPU" if group.device == "cpu" else "GPU",
                validates=val_set is not None,
                on_progress=on_progress,
                on_validation=on_validation,
                on_row=on_row,
            )
        )
        validator = Validator(
            trainer,
            state,
            val_set,
            config=config,
            provenance=provenance_of(config, train_set, holdout, aligned_teacher),
            directory=directory,
            reporter=reporter,
            saver=saver,
            group=group,
            interrupts=interrupts,
        )
        batches = make_loader(
            train_set,
            detector.config,
            recipe.augmentation,
            batch_size=recipe.batch_size,
            first_step=state.step,
            steps=length.steps,
            seed=config.seed,
            workers=workers,
            pin_memory=group.device.startswith("cuda"),
            rank=group.rank,
            world_size=group.size,
            balance_classes=config.balance_classes,
        )
        stack.enter_context(closing(batches))
        try:
            reporter.open_trackers(config, step=state.step)
            if checkpoint is not None:
                resume_from(checkpoint, state, fingerprints, directory, validator, group)
            fit(
                trainer,
                state,
                batches,
                recipe=recipe,
                length=length,
                images=len(train_set),
                monitor=monitor,
                validator=validator,
                saver=saver,
                reporter=reporter,
                group=group,
                interrupts=interrupts,
            )
            detector.learned_classes = detector.class_names
        except Stopped:
            saver.stop(interrupts)
        except BaseException as error:
            saver.save_after(error, interrupts)
            raise
        best = group.broadcast_from_main(lambda: Detector.load(directory.best))
        try:
            finalize(
                best,
                state,
                train_set,
                val_set,
                evaluation=validator.best,
                config=config,
                facts=facts_of(state, recipe, group, workers),
                data=data or of_data.get("data", ()),
                val_split=None if val_set is None else "val" if holdout and holdout.val else notes.get("val_split"),
                unlabelled=notes.get("unlabelled"),
                directory=directory,
                reporter=reporter,
                group=group,
                interrupts=interrupts,
            )
        except Stopped:
            saver.stop(interrupts)
        if holdout and holdout.test and group.is_main:
            for each in data:
                command = evaluate_command(each, "test", directory.folder, unlabelled=notes.get("unlabelled"))
                log.info(f"to score on the images that were kept for a test: {command}")
        return best.to("cpu")


@contextmanager
def _training_bar() -> Iterator[Callable[[Progress], None]]:
    """Shows the bar of a run, in a terminal or a notebook. The context gives the function for `on_progress`."""
    with progress_bar("training") as draw:
        yield lambda now: draw(now.fraction_done, str(now))


def fit(
    trainer: Trainer,
    state: TrainState,
    batches: Iterator[Batch],
    *,
    recipe: Recipe,
    length: RunLength,
    images: int,
    monitor: StepMonitor,
    validator: Validator,
    saver: Saver,
    reporter: Reporter,
    group: ProcessGroup,
    interrupts: Interrupts,
) -> None:
    """Trains to the end of the run. Validates, and writes metrics and checkpoints, whenever they are due.

    Args:
        trainer: The network, its optimizer and the average of its weights.
        state: Numbers of the run so far, which are updated.
        batches: The batches from the next step on.
        recipe: The learning rate over the run.
        length: The length of the run.
        images: Number of images in the training set.
        monitor: Reads the numbers of the steps.
        validator: Validates the averaged weights and saves them.
        saver: Writes the checkpoints.
        reporter: Reports the progress of the run.
        group: The processes of the run.
        interrupts: Whether this process was asked to stop.

    Raises:
        Stopped: A process was asked to stop.
        ValueError: A step was not finite, the loss has diverged, or too many images cannot be read.
    """
    clock = Clock(state.seconds)
    while True:
        over = length.fraction_done(state.step, state.seconds) >= 1 or validator.out_of_patience()
        validation_due = over or length.validation_due(state.step)
        # checked before the step: a resumed run may have been stopped between its last step and the validation
        if state.step > state.validated and validation_due:
            monitor.flush()
            validator.validate()
            clock.lap()
            continue
        if over:
            return
        if state.step > state.row_step and length.row_due(state.row_step, state.row_seconds, state.step, state.seconds):
            monitor.flush()
            reporter.row(state)

        batch = train_step(trainer, state, batches, monitor, recipe=recipe, length=length)
        state.interval.images += recipe.batch_size
        state.interval.seconds += clock.lap()
        state.seconds = clock.seconds()
        try:
            reporter.step(state)
        except KeyboardInterrupt:
            interrupts.heard = interrupts.heard or signal.SIGINT

        # what follows is decided by values that are the same in all processes
        read_errors = monitor.new_read_errors(batch)
        state.seconds, (stop, unreadable) = group.sync(clock.seconds(), interrupts.heard is not None, bool(read_errors))
        if unreadable:
            monitor.add_unreadable(read_errors, images)
        if stop:
            raise Stopped
        saver.save_if_due()


def train_step(
    trainer: Trainer,
    state: TrainState,
    batches: Iterator[Batch],
    monitor: StepMonitor,
    *,
    recipe: Recipe,
    length: RunLength,
) -> Batch:
    """Makes one training step on the next batch, counts it, and measures its waits. Returns the batch."""
    with state.interval.waiting("input"):
        batch = next(batches)
    learning_rate = recipe.learning_rate_at(length.fraction_done(state.step, state.seconds))
    # a CPU computes during the step; a GPU's time is measured when its numbers are read
    with state.interval.waiting("device") if trainer.on_cpu else nullcontext():
        result = trainer.step(batch, learning_rate=learning_rate)
    state.step, state.learning_rate = trainer.step_count, learning_rate
    monitor.add(result, batch)
    return batch


class Clock:
    """Measures the seconds of a run, and of the laps between two calls."""

    def __init__(self, seconds: float) -> None:
        """Starts the clock of a run that has taken this many seconds already."""
        self._lap = time.monotonic()
        self._began = self._lap - seconds

    def seconds(self) -> float:
        """Returns the seconds since the run began."""
        return time.monotonic() - self._began

    def lap(self) -> float:
        """Returns the seconds since the last call."""
        before, self._lap = self._lap, time.monotonic()
        return self._lap - before


def import_packages(config: TrainConfig, *, validates: bool) -> None:
    """Imports the optional packages that the run will need later, before its first step.

    Raises:
        ImportError: A package is not installed.
    """
    needed = [("matplotlib.figure", "matplotlib", "the curves of a run need", "train")]
    if validates:
        needed.append(("hotcoco", "hotcoco", "validation needs", "train"))
    if "tensorboard" in config.trackers:
        needed.append(("torch.utils.tensorboard", "tensorboard", "the tracker tensorboard needs", "tensorboard"))
    for module, package, why, extra in needed:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ImportError(f"{why} the package {package}: pip install 'multibox[{extra}]' ({error})") from error


def resolve_precision(
    config: TrainConfig, recipe: Recipe, checkpoint: Checkpoint | None, detector: Detector, group: ProcessGroup
) -> tuple[Precision, str]:
    """Returns the precision of the run, and why. A resumed run keeps its precision."""
    if config.precision != "auto":
        return config.precision, "as the run asks for"
    if checkpoint is not None and "precision" in checkpoint.values:
        return checkpoint.values["precision"], "as before the run was stopped"
    images = (config.batch_size or 1) // (group.size * config.accumulate)
    freeze_as(recipe, detector.network, config.freeze)  # it changes what is faster
    return group.broadcast_from_main(
        lambda: choose_precision(
            detector.network,
            height=detector.config.height,
            width=detector.config.width,
            device=group.device,
            batch_size=max(1, images),
        )
    )


def resume_from(
    checkpoint: Checkpoint,
    state: TrainState,
    fingerprints: DatasetFingerprints,
    directory: RunDirectory,
    validator: Validator,
    group: ProcessGroup,
) -> None:
    """Writes weights files that a killed run had not written yet, and evaluates its best weights again if need be.

    They are evaluated again if the validation set has changed, so that later APs are comparable, or if
    `best.safetensors` comes from steps that were lost.

    Args:
        checkpoint: The checkpoint that the run goes on from.
        state: Numbers of the run.
        fingerprints: Fingerprints of the data sets as they are now.
        directory: Folder of the run.
        validator: Evaluates the best weights.
        group: The processes of the run.
    """
    before: DatasetFingerprints = checkpoint.values["data"]
    validator.save_weights()
    changed = warn_if_data_changed(before, fingerprints)
    best_step = group.broadcast_from_main(lambda: step_of(directory.best))
    if "val" in changed or (best_step or 0) != state.best_step:
        state.data = before  # nothing changes before the evaluation is done: a stopped run evaluates again
        best_ap = -1.0
        if best_step is not None:
            best = group.broadcast_from_main(lambda: Detector.load(directory.best))
            best_ap = validator.ap_of_best(best.to(group.device), step=best_step)
        state.best_ap, state.best_step, state.validations_since_best = best_ap, best_step or 0, 0
        state.data = fingerprints
