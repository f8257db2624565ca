"""Predict on every image of a data set by a detector that has not seen it: cross-validation with short trainings."""

import os
from dataclasses import replace

from multibox.data.check import find_shared_images
from multibox.data.sample import Dataset
from multibox.detections import Detections
from multibox.evaluation.evaluate import evaluate
from multibox.messages import counted
from multibox.training.recipes import TrainConfig
from multibox.trials.job import MODEL, STEPS, Job, OnProgress


def predict_on_folds(
    dataset: Dataset,
    folder: str | os.PathLike[str],
    *,
    folds: int = 3,
    model: str = MODEL,
    config: TrainConfig | None = None,
    on_progress: OnProgress | None = None,
) -> list[Detections]:
    """Returns the detections in each image, down to a low score, by a detector that did not learn from the image.

    The images are divided into folds. For each fold a detector is trained on all others. Images of the same stem are in
    the same fold, and exact copies of an image are not learned from either.

    Args:
        dataset: The images.
        folder: Folder to keep the trainings in: a job that was killed goes on when it is called again.
        folds: Number of folds, and of trainings.
        model: Preset or weights that each training starts from.
        config: Values of each training; `STEPS` steps by default.
        on_progress: Called during the trainings.

    Raises:
        ValueError: There are fewer images than folds, or another job is in the folder.
        FileExistsError: The folder holds other files.
    """
    config = config or TrainConfig(steps=STEPS)
    parts = divide(dataset, folds)
    job = Job(
        folder,
        purpose=f"{folds} folds",
        trainings=folds,
        data={"data": dataset},
        model=model,
        config=config,
        on_progress=on_progress,
    )
    found: dict[int, Detections] = {}
    for number, part in enumerate(parts, start=1):
        inside = set(part)
        held_out = replace(dataset, name=f"{dataset.name}, fold {number}", samples=[dataset[index] for index in part])
        others = replace(
            dataset,
            name=f"{dataset.name} without fold {number}",
            samples=[sample for index, sample in enumerate(dataset) if index not in inside],
        )
        copies = {id(each.other) for each in find_shared_images(held_out, others)}
        others = replace(others, samples=[sample for sample in others if id(sample) not in copies])
        detector = job.train(f"fold-{number}", others, seed=config.seed)
        found |= zip(part, evaluate(detector, held_out, rule="voc2010", progress=False).detections, strict=True)
    return [found[index] for index in range(len(dataset))]


def divide(dataset: Dataset, folds: int) -> list[list[int]]:
    """Returns the indices of the images of each fold. A hash of their names decides; equal stems stay together.

    Raises:
        ValueError: There are fewer than two folds, or fewer images than folds.
    """
    places = sorted(set(dataset.places))
    if not 2 <= folds <= len(places):
        images = counted(len(places), "image")
        raise ValueError(f"folds must be from 2 to the number of images, but is {folds} for {images} of different name")
    fold_of = {place: rank % folds for rank, place in enumerate(places)}
    return [[i for i, place in enumerate(dataset.places) if fold_of[place] == fold] for fold in range(folds)]
