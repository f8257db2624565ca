"""Decisions about doubted labels: read from the file that the page writes, and applied to a data set."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from msgspec import ValidationError, json

from multibox.boxes import area
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.messages import shortened
from multibox.review.gather import image_key, join_class_names
from multibox.review.suspects import Kind

TOLERANCE = 0.5
"""Sides of a box may differ by this many pixels from those in the file, which has rounded numbers."""


@dataclass(frozen=True)
class Label:
    """A class and a box in corner form, in pixels of the image."""

    name: str
    box: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        x_min, y_min, x_max, y_max = self.box
        if not (x_max > x_min and y_max > y_min):
            raise ValueError(f"the box {list(self.box)} has no width or no height")

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{side:.0f}' for side in self.box)})"


@dataclass(frozen=True)
class Decision:
    """What a person decided about one suspect.

    Attributes:
        split: Name of the split that the image is in.
        image: Name of the image.
        kind: What the detector doubted, as in `Suspect`.
        decision: `keep` leaves the label as it is; `change` takes what the detector found, as a new label or in place
            of the label; `add` takes it beside the label; `drop` removes the label.
        object: The label; None for a missing one.
        found: What the detector found; None for a phantom label.
    """

    split: str
    image: str
    kind: Kind
    decision: Literal["keep", "change", "add", "drop"]
    object: Label | None = None
    found: Label | None = None

    def __post_init__(self) -> None:
        if self.decision in ("change", "add") and self.found is None:
            raise ValueError(f"{self.image}: '{self.decision}' needs what was found")
        if self.decision == "drop" and self.object is None:
            raise ValueError(f"{self.image}: 'drop' needs the label")


@dataclass(frozen=True)
class Decisions:
    """The file of decisions that the page writes.

    Attributes:
        version: Version of the file's form.
        data: Name of the data set.
        decisions: The decisions, in the order of the page.
    """

    version: Literal[1]
    data: str
    decisions: tuple[Decision, ...]


class Applied(NamedTuple):
    """A decision, and what came of it.

    Attributes:
        decision: The decision.
        what: The label or the place that it is about, or why it cannot be applied.
        done: What was done: "label added", "label removed", "changed to ...", or "decision left out".
    """

    decision: Decision
    what: str
    done: str


class Reviewed(NamedTuple):
    """A data set after decisions.

    Attributes:
        splits: The data set of each split, by the name of the split.
        changes: What was changed, in the order of the decisions; and the decisions that no label fits any more.
    """

    splits: Mapping[str, Dataset]
    changes: tuple[Applied, ...]


def read_decisions(file: Path) -> Decisions:
    """Reads the file that the page of the review saved.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not of that form.
    """
    try:
        return json.decode(file.read_bytes(), type=Decisions)
    except (ValidationError, ValueError) as error:
        raise ValueError(
            f"{file}: not the decisions that the page of multibox check --predict saves ({shortened(error)})"
        ) from error


def apply_decisions(
    splits: Mapping[str, Dataset], decisions: Sequence[Decision], as_read: Mapping[str, Dataset] | None = None
) -> Reviewed:
    """Returns the data set with the decisions applied, and what was changed. The data set itself is not changed.

    An image that several splits have is changed in all of them. A decision whose image or label is not there (any more)
    changes nothing and is listed. All splits get the classes of all, joined by name.

    Args:
        splits: The data set of each split, by the name of the split.
        decisions: The decisions; those that keep a label change nothing.
        as_read: The splits that the decisions are about, if they had images which these splits do not have (any more).
    """
    image_of = {
        (split, sample.name): image_key(sample) for split, dataset in (as_read or splits).items() for sample in dataset
    }
    present = {image_key(sample) for dataset in splits.values() for sample in dataset}
    by_image: dict[Path | int, list[Decision]] = defaultdict(list)
    changes: list[Applied] = []
    for decision in decisions:
        key = image_of.get((decision.split, decision.image))
        if decision.decision == "keep":
            continue
        if key in present:
            by_image[key].append(decision)
        else:
            what = f"the split '{decision.split}' has no such image" if key is None else "the image is left out"
            changes.append(Applied(decision, what, "decision left out"))
    class_names = join_class_names(splits)
    reviewed = {}
    for split, dataset in splits.items():
        joined, samples = dataset.with_classes(class_names), []
        for sample in joined:
            changed, made = _apply(sample, by_image.get(image_key(sample), ()), class_names)
            samples.append(changed)
            changes += made
        reviewed[split] = replace(joined, samples=samples)
    return Reviewed(reviewed, tuple(dict.fromkeys(changes)))


def _apply(sample: Sample, decisions: Sequence[Decision], class_names: Sequence[str]) -> tuple[Sample, list[Applied]]:
    """Returns the sample after decisions about its image, and what was changed."""
    truth, made = sample.truth, []
    for decision in decisions:
        truth, what, done = _apply_one(truth, decision, class_names)
        made.append(Applied(decision, what, done))
    return replace(sample, truth=truth), made


def _apply_one(truth: GroundTruth, decision: Decision, class_names: Sequence[str]) -> tuple[GroundTruth, str, str]:
    """Returns the objects after one decision, what the decision was about, and what was done."""
    label, found = decision.object, decision.found
    if found is not None and found.name not in class_names:
        return truth, f"the data set has no class '{found.name}'", "decision left out"
    if label is not None and decision.decision != "add":
        index = _find(truth, label, class_names)
        if index is None:
            return truth, f"no label {label} is there", "decision left out"
        truth = truth[np.arange(len(truth)) != index]
    if decision.decision == "drop" or found is None:
        return truth, f"label {label}", "label removed"
    if decision.decision == "add" or label is None:
        return _added(truth, found, class_names), f"no label at {found}", "label added"
    return _added(truth, found, class_names), f"label {label}", f"changed to {found}"


def _find(truth: GroundTruth, label: Label, class_names: Sequence[str]) -> int | None:
    """Returns the index of the object with this class and box; None if there is none."""
    if label.name not in class_names:
        return None
    near = (np.abs(truth.boxes - np.array(label.box)) <= TOLERANCE).all(axis=1)
    (fits,) = np.nonzero(near & (truth.labels == class_names.index(label.name)))
    return int(fits[0]) if len(fits) else None


def _added(truth: GroundTruth, label: Label, class_names: Sequence[str]) -> GroundTruth:
    """Returns the objects and one more, which is neither difficult nor a crowd."""
    box = np.array([label.box], np.float32)
    return GroundTruth(
        np.concatenate([truth.boxes, box]),
        [*truth.labels, class_names.index(label.name)],
        difficult=[*truth.difficult, False],
        crowd=[*truth.crowd, False],
        areas=[*truth.areas, *area(box)],
    )
