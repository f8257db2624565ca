"""What detectors say about a data set, for `multibox check`: the labels that they doubt, and the learning curve."""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from multibox.cli.arguments import UsageError, choose_device, fetch_weights
from multibox.cli.data import choose_split, read_apart
from multibox.cli.output import check_folder
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

_QUESTIONS = ("--predict", "--folds", "--learning-curve")

_PART_OF = {
    "--steps": ("the length of trainings", ("--folds", "--learning-curve")),
    "--seeds": ("the number of trainings on each part of the images", ("--learning-curve",)),
    "--work": ("the folder of trainings", ("--folds", "--learning-curve")),
    "--page": ("the page of a review", ("--predict", "--folds")),
}
"""What some flags mean, and the questions that they are a part of."""

_OF_LEARNING_CURVE = ("--learning-curve", "--model", "--steps", "--seeds", "--work")


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

    def check(self) -> None:
        """Checks, before any work begins, what can be: the model, the number of folds, and where they are kept."""
        if self.model is not None:
            fetch_weights(self.model)
        if self.folds is not None:
            if self.folds < 2:
                raise UsageError("--folds must be at least 2: one to learn from, and one to judge")
            check_folder(self.trainings.folder)


def add_doubts(report: "Report", reviewer: Reviewer, kinds: Collection[str]) -> "Report":
    """Returns the report of the doctor with the labels that the reviewer doubts, and writes the page to review them.

    Args:
        report: What the doctor found.
        reviewer: Who judges the labels.
        kinds: Identifiers of the kinds to look for; suspects of other kinds are left out.
    """
    from multibox.data.check import find_undecodable, leave_out
    from multibox.display import image_bar
    from multibox.review.gather import gather
    from multibox.review.page import MOST, write_page
    from multibox.review.suspects import FINDING_OF, find_suspects

    usable = {}
    with image_bar("checking") as bar:
        for name, split in report.survey.splits.items():
            dataset = replace(split.dataset, name=f"{report.survey.path}, {name}")
            faults = find_undecodable(dataset, on_progress=bar)
            if len(faults) < len(dataset):
                usable[name] = leave_out(dataset, faults)
    if not usable:
        info("there is no image to judge: none can be used")
        return report
    gathered = gather(usable)
    if reviewer.folds is None:
        found = _predict(gathered.dataset, reviewer.model or "", report.survey.path)
    else:
        found = _predict_on_folds(gathered.dataset, reviewer.folds, reviewer.trainings)
    suspects = find_suspects([sample.truth for sample in gathered.dataset], found)
    suspects = [suspect for suspect in suspects if FINDING_OF[suspect.kind] in kinds]
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
    looked_for = [*report.looked_for, *(kind for kind in FINDING_OF.values() if kind in kinds)]
    return replace(report, findings=findings, looked_for=looked_for)


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

    def edit(
        datasets: Mapping[str, "Dataset"], as_read: Mapping[str, "Dataset"]
    ) -> tuple[Mapping[str, "Dataset"], Sequence[Change]]:
        reviewed = apply_decisions(datasets, decided, as_read)
        changes = [
            Change(FINDING_OF[decision.kind], decision.split, decision.image, what, done)
            for decision, what, done in reviewed.changes
        ]
        return reviewed.splits, changes

    return edit


def _predict(dataset: "Dataset", model: str, data: Path) -> Sequence["Detections"]:
    """Returns the detections of a trained detector, with a warning if it learned from these images."""
    from multibox.data import DatasetReader
    from multibox.data.holdout import find_learned
    from multibox.detector import Detector
    from multibox.display import image_bar
    from multibox.evaluation.evaluate import evaluate
    from multibox.review.gather import image_key

    detector = Detector.load(model, device=choose_device(None))
    learned = find_learned(detector.provenance, DatasetReader(data))
    seen = {image_key(sample) for sample in learned or ()}
    if count := sum(image_key(sample) in seen for sample in dataset):
        info(
            f"{model} learned from {count} of these {counted(len(dataset), 'image')}, mistakes included, so it doubts "
            "too little there; better: --folds 3"
        )
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
    learned = choose_split(reader, split, ["train", "trainval"], "--split")
    train_set, val_set, _ = read_apart(reader, learned, None, "skip")
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


def check_one_question(given: Collection[str]) -> None:
    """Checks that the flags ask one thing of detectors, and that none is given in vain.

    Args:
        given: The flags that were given, such as `--folds`, except those of how the data set is read.

    Raises:
        UsageError: They ask for two, or one of them has no part in what is asked.
    """
    asked = [flag for flag in _QUESTIONS if flag in given]
    if len(asked) > 1:
        raise UsageError(f"{asked[0]} and {asked[1]} are two questions; ask one at a time")
    for flag, (what, questions) in _PART_OF.items():
        if flag in given and not set(asked) & set(questions):
            raise UsageError(f"{flag} is {what}; it goes with {' or '.join(questions)}")
    in_vain = [flag for flag in given if flag not in _OF_LEARNING_CURVE]
    if "--learning-curve" in asked and in_vain:
        raise UsageError(f"--learning-curve is measured instead of all else; leave out {', '.join(in_vain)}")
    if "--folds" in asked and "--size" in given:
        raise UsageError(
            "--size does not reach the trainings of --folds, which have the input of --model; leave it out"
        )
