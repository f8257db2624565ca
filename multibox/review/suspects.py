"""Find the labels that a detector doubts: phantom, missing, badly located and swapped ones.

The detector must not have learned from these images, or it has learned their mistakes. What it doubts is a question to
a person, not an answer: a detector that is often wrong about a class doubts right labels of it too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float

from multibox.boxes import area, box_iou, nms
from multibox.data.sample import GroundTruth
from multibox.detections import Detection, Detections
from multibox.evaluation.errors import NEAR

FIT = 0.5
"""A detection and a label of this overlap or more are taken for the same thing."""

USUAL = 0.9
"""Fraction of the labels of a class whose best score is taken for usual. So at most 1 in 10 labels can be phantoms."""

LEAST = 0.25
"""Suspects that the detector is less sure of are none."""

Kind = Literal["missing", "swapped", "badly located", "phantom"]
"""What may be wrong with a label:

* `missing`: the detector finds an object where there is no label;
* `swapped`: on the label, the detector finds an object of another class;
* `badly located`: beside the label, the detector finds an object of its class that nothing else is labeled for;
* `phantom`: where the label is, the detector finds nothing.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)

FINDING_OF: Mapping[Kind, str] = {
    "missing": "label-missing",
    "swapped": "label-swapped",
    "badly located": "label-misplaced",
    "phantom": "label-phantom",
}
"""The identifier of each kind among the findings of `multibox check`."""


class Suspect(NamedTuple):
    """A label that may be wrong, or a place where one may be missing.

    Attributes:
        image: Index of the image in the data set.
        kind: What may be wrong.
        sureness: How sure the detector is, from 0 to 1.
        object: Index of the labeled object in the image; None for a missing label.
        found: What the detector finds instead; None for a phantom label.
    """

    image: int
    kind: Kind
    sureness: float
    object: int | None
    found: Detection | None


def find_suspects(truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> list[Suspect]:
    """Returns the suspects of all images, the ones that the detector is surest of first. Each object has one at most.

    How sure the detector is follows from its scores. For a missing label it is the score of what was found. For a
    swapped or badly located one it is that score, times 1 less the best score of a box that fits the label. For a
    phantom label it is how far the best score there is below the one that nine of ten labels of its class have: a
    detector that misses many objects of a class says little by missing one more. The surest of the three counts.

    Crowd regions are never suspects, and neither are difficult objects; what is found there is not missing.

    Args:
        truths: Objects of each image.
        detections: Detections of each image in the same order and with the labels of the same classes, down to a low
            score.

    Raises:
        ValueError: There are detections of another number of images.
    """
    if len(truths) != len(detections):
        raise ValueError(f"ground truth of {len(truths)} images, but detections in {len(detections)}")
    looks = [_Look(truth, found) for truth, found in zip(truths, detections, strict=True)]
    usual = _usual_scores(looks)
    suspects = [suspect for image, look in enumerate(looks) for suspect in _in_image(image, look, usual)]
    suspects = [suspect for suspect in suspects if suspect.sureness >= LEAST]
    return sorted(suspects, key=lambda suspect: -suspect.sureness)


def count_suspects(suspects: Iterable[Suspect], *, sureness: float) -> Mapping[Kind, int]:
    """Returns how many suspects of each kind the detector is at least that sure of."""
    kinds = [suspect.kind for suspect in suspects if suspect.sureness >= sureness]
    return {kind: kinds.count(kind) for kind in KINDS}


class _Look:
    """One image: how its objects and detections lie to each other."""

    def __init__(self, truth: GroundTruth, found: Detections) -> None:
        self.truth = truth
        self.found = found
        self.overlaps: Float[np.ndarray, "detections objects"] = box_iou(found.boxes, truth.boxes)
        self.same_class: Bool[np.ndarray, "detections objects"] = found.labels[:, None] == truth.labels
        self.fits: Bool[np.ndarray, "detections objects"] = self.overlaps >= FIT
        self.alone: Bool[np.ndarray, " detections"] = ~self.fits.any(axis=1) & (found.scores >= LEAST)

    def best_score(self, which: Bool[np.ndarray, "detections objects"]) -> Float[np.ndarray, " objects"]:
        """Returns for each object the highest score of its detections in a mask; 0 if there is none."""
        scores: Float[np.ndarray, " objects"] = np.where(which, self.found.scores[:, None], 0.0).max(axis=0, initial=0)
        return scores


def _usual_scores(looks: Sequence[_Look]) -> dict[int, float]:
    """Returns for each label the best score of a fitting box of its class that nine of ten objects reach.

    Difficult objects and crowd regions do not count. A label that only they have has no usual score.
    """
    counts = np.concatenate([np.zeros(0, bool), *(~(look.truth.difficult | look.truth.crowd) for look in looks)])
    labels = np.concatenate([np.zeros(0, np.int64), *(look.truth.labels for look in looks)])[counts]
    scores = np.concatenate([np.zeros(0), *(look.best_score(look.fits & look.same_class) for look in looks)])[counts]
    return {int(label): float(np.quantile(scores[labels == label], 1 - USUAL)) for label in np.unique(labels)}


def _in_image(image: int, look: _Look, usual: Mapping[int, float]) -> Iterator[Suspect]:
    """Yields the suspects of an image: those among its objects, then the missing ones."""
    own = look.best_score(look.fits & look.same_class)
    beside = _beside(look, own)
    taken: list[int] = []
    for index in np.flatnonzero(~(look.truth.difficult | look.truth.crowd)).tolist():
        absent = float(1 - own[index])
        on_it = np.flatnonzero(look.fits[:, index] & ~look.same_class[:, index])  # the highest score comes first
        other = look.found[int(on_it[0])] if len(on_it) else None
        near = look.found[beside[index]] if index in beside else None
        seen = max([float(own[index]), *(each.score for each in (other, near) if each)])
        doubts = [Suspect(image, "phantom", usual[int(look.truth.labels[index])] - seen, index, None)]
        if other and other.score > own[index]:
            doubts.append(Suspect(image, "swapped", other.score * absent, index, other))
        if near:
            doubts.append(Suspect(image, "badly located", near.score * absent, index, near))
        doubt = max(doubts, key=lambda each: each.sureness)
        if doubt.kind == "badly located":
            taken.append(beside[index])
        yield doubt
    yield from _missing(image, look, taken)


def _beside(look: _Look, own: Float[np.ndarray, " objects"]) -> dict[int, int]:
    """Returns the detection beside each object: of its class, on no object, and much surer than what fits the object.

    Detections choose first, the best one before all others: the object that they overlap most.
    """
    beside: dict[int, int] = {}
    for detection in np.flatnonzero(look.alone).tolist():
        near = np.where(look.same_class[detection], look.overlaps[detection], 0.0)
        near[own > look.found.scores[detection] / 2] = 0.0  # the object is found: this detection is of its neighbor
        near[list(beside)] = 0.0
        if near.max(initial=0) >= NEAR:
            beside[int(near.argmax())] = detection
    return beside


def _missing(image: int, look: _Look, taken: Iterable[int]) -> Iterator[Suspect]:
    """Yields the missing labels of an image: detections on no object and in no crowd, each place once.

    Args:
        image: Index of the image.
        look: How its objects and detections lie to each other.
        taken: Detections that are beside an object whose label is badly located.
    """
    free = np.setdiff1d(np.flatnonzero(look.alone & ~_in_crowd(look)), list(taken))
    found = look.found[free]
    kept = nms(found.boxes, np.zeros(len(found), np.int64), FIT, max_detections=len(found))
    for one in found[kept]:
        yield Suspect(image, "missing", one.score, None, one)


def _in_crowd(look: _Look) -> Bool[np.ndarray, " detections"]:
    """Returns which detections lie with half of their area or more in a region of many objects."""
    crowds = look.truth.boxes[look.truth.crowd]
    boxes = look.found.boxes
    low = np.maximum(boxes[:, None, :2], crowds[:, :2])
    high = np.minimum(boxes[:, None, 2:], crowds[:, 2:])
    inside = np.maximum(high - low, 0).prod(axis=2) >= FIT * area(boxes)[:, None]
    crowded: Bool[np.ndarray, " detections"] = inside.any(axis=1)
    return crowded
