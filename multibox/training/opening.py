"""What a run says and draws before its first step."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from math import isclose

import torch

from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.report.overview import BATCH_IMAGES, data_table, draw_batch, draw_labels
from multibox.training.distributed import ProcessGroup
from multibox.training.loading import make_loader
from multibox.training.progress import RunLength
from multibox.training.recipes import Recipe, TrainConfig
from multibox.training.run_directory import RunDirectory
from multibox.training.state import TrainState
from multibox.training.teacher import Teacher

log = logging.getLogger("multibox")

SEPARATE_BATCH_NORM = (
    "BatchNorm uses each process's images by themselves, so the result is not quite that of one process; on GPUs "
    "sync_batch_norm (--sync-batch-norm) uses them together"
)


def announce(
    state: TrainState,
    train_set: Dataset,
    length: RunLength,
    *,
    config: TrainConfig,
    recipe: Recipe,
    named: Recipe,
    knows_classes: bool,
    precision: str,
    workers: int,
    separate_batch_norm: bool,
    teacher: Teacher | None,
    directory: RunDirectory,
    group: ProcessGroup,
) -> None:
    """Logs the length of a run, how it learns, and on what machine.

    Args:
        state: Numbers of the run.
        train_set: The training set.
        length: Length of the run.
        config: Values of the run.
        recipe: The recipe with the values of the run.
        named: The recipe without the values of the run.
        knows_classes: Whether the run starts from weights that know classes of the data.
        precision: Precision of the convolutions, and why.
        workers: Number of reader processes.
        separate_batch_norm: Whether each process would have a BatchNorm of its own.
        teacher: The teacher of the run, if there is one.
        directory: Folder of the run.
        group: The processes of the run.
    """
    for line in _first_lines(state, train_set, length, patience=config.patience):
        log.info(line)
    if group.is_main:
        directory.note(_rate_line(named, recipe, knows_classes=knows_classes))
        for line in _machine_lines(recipe, group, workers):
            directory.note(line)
        directory.note(f"precision {precision}")
    if teacher and state.step == 0:
        log.info(f"the teacher: {teacher.origin}")
    if not teacher and config.distillation_weight != TrainConfig.distillation_weight:
        log.warning("distillation_weight has no effect without a teacher")
    if isinstance(config.class_weights, Mapping) and state.step == 0:  # the run has resolved `balanced`
        weights = ", ".join(f"{name} {weight:.3g}" for name, weight in config.class_weights.items())
        log.info(f"class weights: {weights}")
    if separate_batch_norm and group.size > 1:
        log.info(SEPARATE_BATCH_NORM)


def write_overview(
    directory: RunDirectory,
    detector: Detector,
    train_set: Dataset,
    val_set: Dataset | None,
    recipe: Recipe,
    config: TrainConfig,
) -> None:
    """Logs the number of objects by class, and draws `labels.jpg` and `batch.jpg`, before the first step of a run."""
    for line in data_table(train_set, val_set):
        log.info(line)
    try:
        draw_labels(train_set, val_set, directory.folder / "labels.jpg")
        batches = make_loader(
            train_set,
            detector.config,
            recipe.augmentation,
            batch_size=min(recipe.batch_size, BATCH_IMAGES),
            first_step=0,
            steps=1,
            seed=config.seed,
            workers=0,
            balance_classes=config.balance_classes,
        )
        with closing(batches):
            batch = next(batches)
        sheet = draw_batch(batch.inputs.numpy(), batch.boxes.numpy(), batch.labels.numpy(), train_set.class_names)
        sheet.save(directory.folder / "batch.jpg", quality=90)
    except Exception as error:  # what it is about, the run finds out itself
        log.warning(f"labels.jpg and batch.jpg could not be drawn ({type(error).__name__}: {error})")


def _first_lines(state: TrainState, train_set: Dataset, length: RunLength, *, patience: int | None) -> Iterator[str]:
    """Yields the lines about a run that the log gets before the first step.

    Args:
        state: Numbers of the run.
        train_set: The training set.
        length: Length of the run.
        patience: Number of validations without a higher AP that end the run.
    """
    if state.step > 0 and state.step == state.validated:
        if length.fraction_done(state.step, state.seconds) >= 1:
            yield f"the run is finished (step {state.step}); give a longer --epochs, --steps or --minutes to go on"
            return
        if patience is not None and state.validations_since_best >= patience:
            yield f"the run is finished (step {state.step}, no higher AP); give a longer --patience to go on"
            return
    if state.step == 0:
        yield f"{len(train_set)} images, from the start"
        yield f"the run takes {length}"
    else:
        yield f"{len(train_set)} images, from step {state.step}"
        yield f"the run takes {length}; {length.left(state.step, state.seconds)} are left"


def _rate_line(named: Recipe, recipe: Recipe, *, knows_classes: bool) -> str:
    """Returns a line about the learning rate of a run.

    Args:
        named: The named recipe, without the values of the run.
        recipe: The recipe with the values of the run.
        knows_classes: Whether the run starts from weights that know classes of the data.
    """
    usual = named.for_batch_size(recipe.batch_size).learning_rate * (
        named.known_classes_lr_factor if knows_classes else 1
    )
    says = f"the recipe's {named.learning_rate:g} for batches of {named.batch_size}"
    if not isclose(recipe.learning_rate, usual):
        says = f"as given; the recipe's would be {usual:.2g}"
    rises = f"; it rises over the first {100 * recipe.warmup:g} % of the run" if recipe.warmup else ""
    if knows_classes and named.known_classes_lr_factor != 1:
        says += f", times {named.known_classes_lr_factor:g} because the weights know classes of the data already"
    return f"{recipe.batch_size} images a step at a learning rate of up to {recipe.learning_rate:.3g}, {says}{rises}"


def _machine_lines(recipe: Recipe, group: ProcessGroup, workers: int) -> Iterator[str]:
    """Yields the lines about processes, device and threads that the log gets before the first step."""
    if group.size > 1:
        shares = sorted({len(range(recipe.batch_size)[rank :: group.size]) for rank in range(group.size)}, reverse=True)
        yield f"{group.size} processes, {' or '.join(map(str, shares))} images of a step in each"
    yield f"device {group.device}, {torch.get_num_threads()} torch threads, {workers} reader processes"
