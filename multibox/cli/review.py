"""What detectors say about a data set, for `multibox check`: the labels that they doubt, and the learning curve."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from multibox.cli.arguments import UsageError, choose_device, fetch_weights
from multibox.cli.data import choose_split, read_splits
from multibox.cli.output import check_folder, check_new
from multibox.cli.terminal import info, progress_bar, stdout
from multibox.messages import counted

if TYPE_CHECKING:
    from multibox.data import Dataset
    from multibox.data.source import Unlabelled
    from multibox.detections import Detections
    from multibox.doctor.fix import Edit
    from multibox.doctor.report import Report
    from multibox.doctor.survey import Finding, Survey
    from multibox.review.gather import Gathered
    from multibox.review.suspects import Suspect

SURE = 0.5
"""Suspects that the detector is surer of than this are among the findings of the check."""


class Trainings(NamedTuple):
    """What the short trainings of a check start from, how long they are, and where they are kept."""

    model: str | None
    steps: int | None
    folder: Path


class Reviewer(NamedTuple):
    """Who judges the labels: a detector, or detectors of folds.

    Attributes:
        model: The detector; None for folds.
        folds: Number of folds; None for a detector.
        trainings: The trainings of the folds.
        page: The page to write.
    """

    model: str | None
    folds: int | None
    trainings: Trainings
    page: Path

    def check(self, data: Path, *, overwrite: bool) -> None:
        """Checks, before any work begins, what can be: the model, the number of folds, and where is written."""
        if Path(os.path.realpath(self.page)).is_relative_to(os.path.realpath(data)):
            raise UsageError(f"--page {self.page} is in the data set, which is not changed; choose a place outside")
        check_new([self.page], overwrite=overwrite, read=[data])
        if self.model is not None:
            fetch_weights(self.model)
        if self.folds is not None:
            if self.folds < 2:
                raise UsageError("--folds must be at least 2: one to learn from, and one to judge")
            check_folder(self.trainings.folder)


def add_doubts(report: "Report", reviewer: Reviewer) -> "Report":
    """Returns the report of the doctor with the labels that the reviewer doubts, and writes the page to review them."""
    from multibox.data import Dataset
    from multibox.data.check import find_undecodable, leave_out
    from multibox.display import image_bar
    from multibox.review.gather import gather
    from multibox.review.page import MOST, write_page
    from multibox.review.suspects import FINDING_OF, find_suspects

    usable = {}
    with image_bar("checking") as bar:
        for name, split in report.survey.splits.items():
            if len(split):
                samples = [each.sample for each in split]
                dataset = Dataset(f"{report.survey.path}, {name}", split.class_names, samples)
                usable[name] = leave_out(dataset, find_undecodable(dataset, on_progress=bar))
    gathered = gather(usable)
    if reviewer.folds is None:
        found = _predict(gathered.dataset, reviewer.model or "", report.survey.path)
    else:
        found = _predict_on_folds(gathered.dataset, reviewer.folds, reviewer.trainings)
    suspects = find_suspects([sample.truth for sample in gathered.dataset], found)
    if suspects:
        path = report.survey.path
        mended = Path(f"{path.resolve().name}-reviewed")
        command = ["multibox", "check", str(path), "--fix", str(mended), "--decisions", "decisions.json"]
        reviewer.page.parent.mkdir(parents=True, exist_ok=True)
        write_page(reviewer.page, gathered, suspects, command=shlex.join(command))
        info(f"the {min(len(suspects), MOST)} most doubtful labels, to walk through: {reviewer.page}")
    else:
        info("no label is doubted")
    findings = [*report.findings, *_findings(report.survey, gathered, suspects)]
    return replace(report, findings=findings, looked_for=[*report.looked_for, *FINDING_OF.values()])


def read_edit(decisions: Path) -> "Edit":
    """Returns the edit that applies a file of decisions to a data set.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no decisions.
    """
    from multibox.doctor.fix import Change
    from multibox.review.decisions import apply_decisions, read_decisions
    from multibox.review.suspects import FINDING_OF

    decided = read_decisions(decisions).decisions

    def edit(datasets: Mapping[str, "Dataset"]) -> tuple[Mapping[str, "Dataset"], Sequence[Change]]:
        reviewed = apply_decisions(datasets, decided)
        changes = [
            Change(FINDING_OF[decision.kind], decision.split, decision.image, what, done)
            for decision, what, done in reviewed.changes
        ]
        return reviewed.splits, changes

    return edit


def _predict(dataset: "Dataset", model: str, data: Path) -> Sequence["Detections"]:
    """Returns the detections of a trained detector, with a warning if it learned from these images."""
    from multibox.detector import Detector
    from multibox.display import image_bar
    from multibox.evaluation.evaluate import evaluate

    detector = Detector.load(model, device=choose_device(None))
    learned_from = detector.provenance.get("trained on", "")
    folder, _, split = learned_from.rpartition(", ")
    if folder and Path(folder).resolve() == data.resolve():
        info(f"{model} learned from '{split}', mistakes included, so it doubts too little there; better: --folds 3")
    with image_bar("predicting") as bar:
        return evaluate(detector, dataset, rule="voc2010", on_progress=bar).detections


def _predict_on_folds(dataset: "Dataset", folds: int, trainings: Trainings) -> Sequence["Detections"]:
    from multibox.training.recipes import TrainConfig
    from multibox.trials.folds import predict_on_folds
    from multibox.trials.job import MODEL, STEPS

    steps = trainings.steps or STEPS
    info(
        f"{counted(folds, 'training')} of {counted(steps, 'step')} on {counted(len(dataset), 'image')}, kept in "
        f"{trainings.folder}"
    )
    with progress_bar("folds", 1.0) as bar:
        return predict_on_folds(
            dataset,
            trainings.folder,
            folds=folds,
            model=trainings.model or MODEL,
            config=TrainConfig(steps=steps),
            on_progress=bar,
        )


def _findings(survey: "Survey", gathered: "Gathered", suspects: Sequence["Suspect"]) -> Iterator["Finding"]:
    """Yields the surest suspects as findings of the doctor, with the place that the files give the object."""
    from multibox.doctor.survey import Finding
    from multibox.review.suspects import FINDING_OF

    images = {(name, each.sample.name): each for name, split in survey.splits.items() for each in split}
    for suspect in suspects:
        if suspect.sureness < SURE:
            continue
        sample, split = gathered.dataset[suspect.image], gathered.splits[suspect.image]
        stated = images[split, sample.name]
        where = str(stated.stated.image) if suspect.object is None else stated.objects[suspect.object].where
        box = f"({', '.join(f'{side:.0f}' for side in suspect.found.box)})" if suspect.found else ""
        found = f"{suspect.found.name} is found at {box}" if suspect.found else "nothing is found there"
        yield Finding(FINDING_OF[suspect.kind], where, f"{found}, {100 * suspect.sureness:.0f} % sure", split)


def measure_curve(
    data: Path, split: str | None, unlabelled: "Unlabelled | None", seeds: int, trainings: Trainings
) -> int:
    """Measures the learning curve, prints its table and what it says, and writes its files. Returns the exit status."""
    import hotcoco  # noqa: F401 - a missing package is reported before the trainings
    import matplotlib  # noqa: F401

    from multibox.data import DatasetReader
    from multibox.data.read import EVALUATION_SPLITS, usual_split
    from multibox.report.tables import text_table
    from multibox.training.recipes import TrainConfig
    from multibox.trials.job import MODEL, STEPS
    from multibox.trials.learning_curve import (
        FRACTIONS,
        draw_curve,
        measure_learning_curve,
        statement,
        table,
        write_points,
    )

    check_folder(trainings.folder)
    reader = DatasetReader(data, unlabelled=unlabelled)
    train_split = choose_split(reader, split, ("train", "trainval"), "--split")
    val_split = usual_split([each for each in reader.splits if each != train_split], EVALUATION_SPLITS)
    train_set, *others = read_splits(reader, [train_split, *([val_split] if val_split else [])], "skip")
    if others:
        val_set = others[0]
    else:
        train_set, val_set = train_set.split()
    steps = trainings.steps or STEPS
    info(
        f"{counted(len(FRACTIONS) * seeds, 'training')} of {counted(steps, 'step')}, on up to "
        f"{counted(len(train_set), 'image')} ({train_set.name}), scored on {len(val_set)} ({val_set.name}); kept in "
        f"{trainings.folder}"
    )
    with progress_bar("learning curve", 1.0) as bar:
        curve = measure_learning_curve(
            train_set,
            val_set,
            trainings.folder,
            seeds=range(seeds),
            model=trainings.model or MODEL,
            config=TrainConfig(steps=steps),
            on_progress=bar,
        )
    points, figure = trainings.folder / "learning-curve.csv", trainings.folder / "learning-curve.png"
    write_points(curve, points)
    draw_curve(curve, figure)
    head = ["", "images", "AP", "AP by seed", "AP50"]
    stdout().print("\n".join([*text_table(head, table(curve)), "", *_wrapped(statement(curve))]))
    info(f"written to {figure} and {points}")
    return 0


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 80)


def trainings_folder(work: Path | None, data: Path, purpose: str) -> Path:
    """Returns the folder that short trainings are kept in."""
    return work or Path("runs") / f"{data.resolve().name}-{purpose}"


def check_one_question(predict: str | None, folds: int | None, learning_curve: bool, steps: int | None) -> None:
    """Checks that the flags ask one thing of detectors.

    Raises:
        UsageError: They ask for two, or for trainings of a length without any training.
    """
    asked = [
        name
        for name, given in (
            ("--predict", predict is not None),
            ("--folds", folds is not None),
            ("--learning-curve", learning_curve),
        )
        if given
    ]
    if len(asked) > 1:
        raise UsageError(f"{asked[0]} and {asked[1]} are two questions; ask one at a time")
    if steps is not None and (predict is not None or not asked):
        raise UsageError("--steps is the length of trainings; it goes with --folds or --learning-curve")
