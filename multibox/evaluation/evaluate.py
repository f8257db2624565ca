"""Runs a detector over a data set, and scores its detections by a rule."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import get_args

import numpy as np
from jaxtyping import Int

from multibox.config import Merge
from multibox.data.check import read_usable
from multibox.data.holdout import Holdout
from multibox.data.read import EVALUATION_SPLITS, DatasetReader, usual_split
from multibox.data.sample import Dataset, GroundTruth
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.display import image_bar
from multibox.evaluation.coco import score_coco
from multibox.evaluation.metrics import ClassMetrics, Metrics, Pixels, Rule
from multibox.evaluation.precision_recall import precision_recall_by_class
from multibox.evaluation.voc import score_voc
from multibox.words import explains_arguments


@explains_arguments()
def evaluate(
    detector: Detector,
    dataset: Dataset | str | os.PathLike[str],
    *,
    split: str | None = None,
    rule: Rule = "coco",
    pixels: Pixels | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    class_agnostic: bool | None = None,
    max_detections: int | None = None,
    merge: Merge | None = None,
    batch_size: int = 8,
    rename: Mapping[str, str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    progress: bool = True,
) -> Metrics:
    """Scores the detector on a data set.

    The result keeps the detections, so that a report (`multibox.report.evaluation`) does not run the detector again.

    Classes of the detector and of the data set are joined by name. Detections of a class that the data set does not
    name are left out, after they have taken part in suppression and in the limit on detections; the result names these
    classes. Classes that `rename` gives the same name are one class: they suppress each other.

    Args:
        detector: Detector to be scored, with all of its classes.
        dataset: Data set, or the path of one as `read_dataset` takes it. Images of a path that cannot be decoded are
            left out, and a warning in the log sums up all problems.
        split: Split of a data set given by its path; by default `val`, or `test` if there is no `val`. If the data set
            has neither, the parts that the detector's training held out are called so.
        rule: Rule of average precision, as in `score`.
        pixels: How overlap is measured, as in `score`.
        score_threshold: Only boxes with a score above this become detections. This and the next four are by default
            the checkpoint's own, those of `config.postprocess`.
        iou_threshold: A box is suppressed if it overlaps a better one by more than this.
        class_agnostic: Whether better boxes of all classes suppress a box, or only those of its own class.
        max_detections: Largest number of detections of an image.
        merge: `weighted` moves each box to the score-weighted mean of itself and of those that it suppressed, `none`
            does not, as explained in `multibox.config.Postprocess`.
        batch_size: Number of images that go through the network at once.
        rename: New names for classes of the detector, `{detector's name: data set's name}`.
        on_progress: Called after each batch with the number of images done and of all images.
        progress: Whether an evaluation that takes more than a second shows a progress bar, in a terminal or a notebook,
            if there is no `on_progress`.

    Raises:
        ValueError: The data set has objects of a class that the detector does not know, `rename` has a name that its
            side does not know, there are no images, or an image cannot be read.
        FileNotFoundError: An image, or the data set, does not exist.
        DatasetError: The path holds no data set that can be used.
        ImportError: The rule is `coco`, and hotcoco is not installed.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but is {batch_size}")
    dataset = _read(dataset, split, detector.provenance, progress=progress)
    truths = [sample.truth for sample in dataset]
    if rename:
        check_rename(rename, detector.class_names, dataset)
        detector = detector.with_merged_classes(rename)
    labels_of = _join_classes(detector.class_names, dataset, truths)
    settings = detector.config.postprocess.override(
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        class_agnostic=class_agnostic,
        max_detections=max_detections,
        merge=merge,
    )

    # report what the rule cannot do before the detector runs on all images
    none = np.zeros(0, np.int64)
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), none, none, dataset.class_names)
    score(truths[:1], [nothing], class_names=dataset.class_names, rule=rule, pixels=pixels)

    found = detector.detect(
        (sample.image for sample in dataset),
        score_threshold=settings.score_threshold,
        iou_threshold=settings.iou_threshold,
        class_agnostic=settings.class_agnostic,
        max_detections=settings.max_detections,
        merge=settings.merge,
        batch_size=batch_size,
    )
    detections: list[Detections] = []
    with image_bar("evaluating", show=progress and on_progress is None) as bar:
        report = on_progress or bar
        for one in found:
            detections.append(_in_classes_of(dataset, one, labels_of))
            done = len(detections)
            if done % batch_size == 0 or done == len(dataset):
                report(done, len(dataset))

    metrics = score(
        truths,
        detections,
        class_names=dataset.class_names,
        rule=rule,
        pixels=pixels,
        score_threshold=settings.score_threshold,
    )
    return dataclasses.replace(
        metrics,
        detections=detections,
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
    score_threshold: float = 0.0,
) -> Metrics:
    """Scores detections against the ground truth of the same images.

    Args:
        truths: Objects of each image.
        detections: Detections of each image, in the same order.
        class_names: Class names that the labels of both are indices into.
        rule: `voc2007` (11 points) or `voc2010` (area), both at overlap 0.5, or `coco` (overlaps from 0.50 to 0.95).
        pixels: How overlap is measured. VOC's rules count the last pixel (`inclusive`) by default, as the devkit does;
            COCO's rule is always `continuous`.
        score_threshold: Score above which boxes became detections. The threshold with the highest F1 is not sought
            below it.

    Raises:
        ValueError: There are no images, detections and ground truth have different numbers of images or different
            classes, or the rule does not have these `pixels`.
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
        metrics = score_coco(truths, detections, class_names=class_names)
    else:
        metrics = score_voc(truths, detections, class_names=class_names, rule=rule, pixels=pixels or "inclusive")
    overall, by_class = precision_recall_by_class(
        counted_by(rule, truths), detections, num_classes=len(class_names), score_threshold=score_threshold
    )
    rows = zip(metrics.per_class.items(), by_class, strict=True)
    per_class: dict[str, ClassMetrics] = {name: {**row, **curve.at_best_threshold()} for (name, row), curve in rows}
    return dataclasses.replace(metrics, **overall.at_best_threshold(), per_class=per_class)


def counted_by(rule: Rule, truths: Sequence[GroundTruth]) -> list[GroundTruth]:
    """Returns the objects as the rule counts them: COCO has no difficult objects, they count like any other."""
    if rule != "coco":
        return list(truths)
    return [GroundTruth(each.boxes, each.labels, crowd=each.crowd, areas=each.areas) for each in truths]


def check_rename(rename: Mapping[str, str], known: Sequence[str], dataset: Dataset) -> None:
    """Checks that the detector has every class that is to be renamed, and the data set every new name.

    Raises:
        ValueError: A class is missing on its side.
    """
    for old, new in rename.items():
        if old not in known:
            raise ValueError(f"cannot rename '{old}': the detector has no such class{_nearest(old, known)}")
        if new not in dataset.class_names:
            near = _nearest(new, dataset.class_names)
            raise ValueError(f"cannot rename '{old}' to '{new}': {dataset.name} has no such class{near}")


def check_classes(known: Sequence[str], dataset: Dataset) -> None:
    """Checks that a detector of these classes knows the class of each object.

    Raises:
        ValueError: It does not know one.
    """
    _join_classes(known, dataset, [sample.truth for sample in dataset])


def _read(
    dataset: Dataset | str | os.PathLike[str], split: str | None, provenance: Mapping[str, str], *, progress: bool
) -> Dataset:
    if isinstance(dataset, Dataset):
        if split is not None:
            raise ValueError(f"split='{split}' is for a path; the data set {dataset.name} has been read already")
        return dataset
    reader = DatasetReader(os.fspath(dataset))
    holdout = Holdout.from_provenance(provenance)
    if holdout and (part := holdout.find(reader.splits, split)):
        return holdout.divide(read_usable(reader, holdout.split, progress=progress))[part]
    wanted = usual_split(reader.splits, EVALUATION_SPLITS) if split is None else split
    return read_usable(reader, wanted, progress=progress)


def _join_classes(
    known: Sequence[str], dataset: Dataset, truths: Sequence[GroundTruth]
) -> Int[np.ndarray, " detector_classes"]:
    """Returns the data set's label for each class of the detector, -1 if the data set does not name it."""
    label_of = {name: label for label, name in enumerate(dataset.class_names)}
    labels = np.array([label_of.get(name, -1) for name in known], dtype=np.int64)

    used = set().union(*(truth.labels.tolist() for truth in truths))
    missing = [name for name, label in label_of.items() if label in used and label not in labels]
    if missing:
        left = [name for name, label in zip(known, labels, strict=True) if label < 0]
        names = ", ".join(f"'{name}'{_nearest(name, left)}" for name in missing)
        trained = "multibox train DATA --model FILE"
        if (labels < 0).all():
            raise ValueError(f"the detector knows none of the classes of {dataset.name}: {names}; train it: {trained}")
        raise ValueError(
            f"{dataset.name} has classes that the detector does not know: {names}; map with --rename, or train on: "
            + trained
        )
    return labels


def _in_classes_of(dataset: Dataset, found: Detections, labels_of: Int[np.ndarray, " detector_classes"]) -> Detections:
    labels = labels_of[found.labels]
    named = labels >= 0
    columns = (found.boxes[named], found.scores[named], labels[named], found.default_box_indices[named])
    return Detections(*columns, dataset.class_names, found.source)


def _nearest(name: str, names: Iterable[str]) -> str:
    folded = {each.casefold(): each for each in names}
    near = get_close_matches(name.casefold(), folded, n=1)
    return f" (did you mean '{folded[near[0]]}'?)" if near else ""
