"""A detector on a data set, and its detections scored by the rule that is asked for."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import get_args

import numpy as np
from jaxtyping import Int

from multibox.data.sample import Dataset, GroundTruth
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.evaluation.coco import score_coco
from multibox.evaluation.metrics import Metrics, Pixels, Rule
from multibox.evaluation.voc import score_voc


def evaluate(
    detector: Detector,
    dataset: Dataset,
    *,
    rule: Rule = "coco",
    pixels: Pixels | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    class_agnostic: bool | None = None,
    max_detections: int | None = None,
    batch_size: int = 8,
    rename: Mapping[str, str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """How well the detector finds the objects of the data set.

    The classes of the two are joined by name. What the detector finds of a class that the data set does not name is
    left out, and the result says which classes these are; it has taken part in suppression and in the limit before.

    Args:
        detector: Asked by its `detect`, for all of its classes.
        dataset: Its images are read a batch at a time and not kept.
        rule: As in `score`.
        pixels: As in `score`.
        score_threshold: Of `detect`; this and the following three are the detector's own where not given.
        iou_threshold: Of `detect`.
        class_agnostic: Of `detect`.
        max_detections: Of `detect`.
        batch_size: How many images are read and given to the detector at once.
        rename: The data set's name for a class that the detector calls otherwise: `{detector's: data set's}`.
        on_progress: Called after each batch with the number of images done and of all.

    Raises:
        ValueError: The data set has objects of a class that the detector does not know, `rename` has a name that its
            side does not know, there are no images, or one cannot be read.
        FileNotFoundError: An image is not there.
        ImportError: The rule is `coco`, and hotcoco is not installed.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but is {batch_size}")
    truths = [sample.truth for sample in dataset]
    labels_of = _join_classes(detector.class_names, dataset, truths, rename or {})
    settings = detector.config.postprocess.override(
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        class_agnostic=class_agnostic,
        max_detections=max_detections,
    )

    # what the rule cannot do is said now, and not when all the images are done
    none = np.zeros(0, np.int64)
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), none, none, dataset.class_names)
    score(truths[:1], [nothing], class_names=dataset.class_names, rule=rule, pixels=pixels)

    detections: list[Detections] = []
    for start in range(0, len(dataset), batch_size):
        end = min(start + batch_size, len(dataset))
        batch = detector.detect(
            [dataset[i].open() for i in range(start, end)],
            score_threshold=settings.score_threshold,
            iou_threshold=settings.iou_threshold,
            class_agnostic=settings.class_agnostic,
            max_detections=settings.max_detections,
            batch_size=batch_size,
        )
        detections += [_in_classes_of(dataset, found, labels_of) for found in batch]
        if on_progress is not None:
            on_progress(len(detections), len(dataset))

    metrics = score(truths, detections, class_names=dataset.class_names, rule=rule, pixels=pixels)
    return dataclasses.replace(
        metrics,
        postprocess=dataclasses.asdict(settings),
        ignored_classes=tuple(name for name, label in zip(detector.class_names, labels_of, strict=True) if label < 0),
    )


def score(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    *,
    class_names: Sequence[str],
    rule: Rule,
    pixels: Pixels | None = None,
) -> Metrics:
    """The average precision of detections against the ground truth of the same images.

    Args:
        truths: The objects of each image.
        detections: What was found in each, in the same order.
        class_names: What the labels of both are indices into.
        rule: `voc2007` (11 points) or `voc2010` (area), both at overlap 0.5, or `coco` (overlaps from 0.50 to 0.95).
        pixels: How overlap is measured. VOC's rules count the last pixel (`inclusive`) where nothing is said, as the
            devkit does; COCO's is `continuous` and has no other.

    Raises:
        ValueError: There are no images, detections and ground truth are not for equally many images or of other
            classes, or `pixels` is not one of the rule's.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"rule must be one of {get_args(Rule)}, but is '{rule}'")
    if pixels not in (*get_args(Pixels), None):
        raise ValueError(f"pixels must be one of {get_args(Pixels)}, but is '{pixels}'")
    if rule == "coco" and pixels == "inclusive":
        raise ValueError("COCO's rule has no last pixel to include: leave out pixels='inclusive', or take a VOC rule")
    if not truths:
        raise ValueError("there are no images to evaluate on")
    if len(truths) != len(detections):
        raise ValueError(f"ground truth of {len(truths)} images, but detections in {len(detections)}")
    for number, found in enumerate(detections):
        if tuple(found.class_names) != tuple(class_names):
            raise ValueError(f"the detections in image {number} are of other classes than the ground truth")
    if rule == "coco":
        return score_coco(truths, detections, class_names=class_names)
    return score_voc(truths, detections, class_names=class_names, rule=rule, pixels=pixels or "inclusive")


def check_rename(rename: Mapping[str, str], known: Sequence[str], dataset: Dataset) -> None:
    """That the detector knows every class that is to be renamed, and the data set the new names.

    Raises:
        ValueError: One of them does not.
    """
    for old, new in rename.items():
        if old not in known:
            raise ValueError(f"cannot rename '{old}': the detector has no such class{_nearest(old, known)}")
        if new not in dataset.class_names:
            near = _nearest(new, dataset.class_names)
            raise ValueError(f"cannot rename '{old}' to '{new}': {dataset.name} has no such class{near}")


def _join_classes(
    known: Sequence[str], dataset: Dataset, truths: Sequence[GroundTruth], rename: Mapping[str, str]
) -> Int[np.ndarray, " detector_classes"]:
    """The data set's label for each class of the detector, -1 where it has none."""
    check_rename(rename, known, dataset)
    label_of = {name: label for label, name in enumerate(dataset.class_names)}
    labels = np.array([label_of.get(rename.get(name, name), -1) for name in known], dtype=np.int64)

    used = set().union(*(truth.labels.tolist() for truth in truths))
    missing = [name for name, label in label_of.items() if label in used and label not in labels]
    if missing:
        left = [name for name, label in zip(known, labels, strict=True) if label < 0]
        names = ", ".join(f"'{name}'{_nearest(name, left)}" for name in missing)
        raise ValueError(
            f"the detector has no class {names}, which {dataset.name} names; map with --rename, or train on: "
            "multibox train DATA --model FILE"
        )
    return labels


def _in_classes_of(dataset: Dataset, found: Detections, labels_of: Int[np.ndarray, " detector_classes"]) -> Detections:
    labels = labels_of[found.labels]
    named = labels >= 0
    return Detections(
        found.boxes[named], found.scores[named], labels[named], found.default_box_indices[named], dataset.class_names
    )


def _nearest(name: str, names: Iterable[str]) -> str:
    folded = {each.casefold(): each for each in names}
    near = get_close_matches(name.casefold(), folded, n=1)
    return f" (did you mean '{folded[near[0]]}'?)" if near else ""
