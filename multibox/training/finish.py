"""What a run leaves at its end: the card with its figures, the report, and the provenance of its weights."""

import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version

import torch

from multibox.data.holdout import LEARNED, Holdout
from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.report.card import images_to_show, longer, resume_command, summary, write_card
from multibox.report.environment import device_name
from multibox.report.evaluation import RunHistory, write_report
from multibox.training.distributed import ProcessGroup
from multibox.training.interrupts import Interrupts, Stopped
from multibox.training.recipes import Recipe, TrainConfig
from multibox.training.reporter import Reporter
from multibox.training.run_directory import RunDirectory
from multibox.training.run_files import REPORT
from multibox.training.state import TrainState
from multibox.training.teacher import Teacher
from multibox.training.validation import Evaluation, evaluate, predict

log = logging.getLogger("multibox")


def finalize(
    best: Detector,
    state: TrainState,
    train_set: Dataset,
    val_set: Dataset | None,
    *,
    evaluation: Evaluation | None,
    config: TrainConfig,
    facts: Mapping[str, object],
    data: Sequence[str],
    val_split: str | None,
    unlabelled: str | None,
    directory: RunDirectory,
    reporter: Reporter,
    group: ProcessGroup,
    interrupts: Interrupts,
) -> None:
    """Writes the card of the run with its figures, and the report on the validation set, and logs the summary.

    An error in one of them is logged, and does not keep the other from being written.

    Args:
        best: The best detector.
        state: Numbers of the run.
        train_set: The training set.
        val_set: The validation set.
        evaluation: Evaluation of the best detector on the validation set, if it is known already.
        config: Values of the run.
        facts: Further facts about the run, by name.
        data: Folders of the data set, for the commands on the card.
        val_split: Name of the validation split, for these commands.
        unlabelled: How unlabelled images were read, for these commands; None for the reader's own way.
        directory: Folder of the run.
        reporter: Writes the sheet of images for TensorBoard.
        group: The processes of the run.
        interrupts: Whether this process was asked to stop.
    """
    with _not_fatal("the card", directory):
        shown = val_set if val_set is not None else group.broadcast_from_main(lambda: images_to_show(train_set))
        on_device = best.to(group.device)
        if val_set is not None and evaluation is None:
            evaluation = evaluate(on_device, val_set, group, interrupts)
        found = evaluation.found if evaluation else predict(on_device, shown, group, interrupts)
        if group.is_main:
            rows = directory.rows()
            whole, validation = (f"{seconds / 60:.1f} min" for seconds in (state.seconds, state.validation_seconds))
            card, sheet = write_card(
                directory.folder,
                best,
                train_set=train_set,
                val_set=val_set,
                shown=shown,
                found=found,
                metrics=evaluation.metrics if evaluation else None,
                rows=rows,
                best_step=state.best_step,
                config=config.values(),
                facts={
                    **facts,
                    "time": f"{whole}, of which validation {validation}",
                    "unreadable images, replaced by others": len(state.unreadable),
                    "steps that were not finite, left out": round(sum(row["nonfinite_steps"] or 0 for row in rows)),
                },
                data=data,
                val_split=val_split,
                unlabelled=unlabelled,
            )
            for line in summary(card).splitlines():
                log.info(line)
            reporter.image(state.step, "validation" if val_set else "training", sheet)
    if group.is_main and config.report and val_set is not None and evaluation is not None:
        with _not_fatal("the report", directory):
            _write_report(best, val_set, evaluation, config, facts, directory)


@contextmanager
def _not_fatal(what: str, directory: RunDirectory) -> Iterator[None]:
    """Logs the error of the block instead of raising it: the weights of the run are there all the same."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        log.warning(
            f"{what} of the run could not be written ({type(error).__name__}: {error}); the weights are in "
            f"{directory.best}"
        )


def _write_report(
    best: Detector,
    val_set: Dataset,
    evaluation: Evaluation,
    config: TrainConfig,
    facts: Mapping[str, object],
    directory: RunDirectory,
) -> None:
    """Writes the report on the best weights to the folder `report` of the run, and logs its verdict."""
    began = time.monotonic()
    folder = directory.folder / REPORT
    report = write_report(
        folder,
        val_set,
        dataclasses.replace(
            evaluation.metrics,
            detections=evaluation.found,
            postprocess=dataclasses.asdict(best.config.postprocess),
        ),
        name=directory.folder.name,
        config=best.config,
        run=RunHistory(
            directory.rows(), "The run has finished.", resume_command(directory.folder, longer(config.values()))
        ),
        facts={name: str(value) for name, value in facts.items()},
    )
    log.info(f"report: {folder / 'index.html'} (in {time.monotonic() - began:.1f} s)")
    for sentence in report.verdict:
        log.info(f"  {sentence}")


def provenance_of(
    config: TrainConfig, train_set: Dataset, holdout: Holdout | None, teacher: Teacher | None
) -> dict[str, str]:
    """Returns the provenance that the weights files state, except for the step."""
    return {
        **(holdout.to_provenance() if holdout else {}),
        "trained with": f"multibox {version('multibox')}",
        LEARNED: train_set.name,
        "recipe": config.recipe or "custom",
        "seed": str(config.seed),
        **({"teacher": teacher.origin} if teacher else {}),
    }


def facts_of(state: TrainState, recipe: Recipe, group: ProcessGroup, workers: int) -> dict[str, object]:
    """Returns what the card says about the machine and the speed of the whole run, validations left out."""
    seconds = max(state.seconds - state.validation_seconds, 1e-9)
    return {
        "device": f"{group.device}, {device_name(group.device)}",
        "processes": group.size,
        "torch threads": torch.get_num_threads(),
        "reader processes": workers,
        "images/s of training": round(state.step * recipe.batch_size / seconds, 1),
    }
