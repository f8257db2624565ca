"""COCO's twelve numbers, computed by hotcoco, which gives the results of pycocotools."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.metrics import ClassMetrics, Metrics

if TYPE_CHECKING:
    import hotcoco

# indices into the tables of hotcoco and pycocotools
ALL, SMALL, MEDIUM, LARGE = range(4)  # sizes of objects
ONE, TEN, HUNDRED = range(3)  # most detections of an image and class
AT_50, AT_75 = slice(0, 1), slice(5, 6)  # overlaps, of 0.50, 0.55, ..., 0.95


def score_coco(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], *, class_names: Sequence[str]
) -> Metrics:
    """Returns COCO's AP and AR, equal to those of pycocotools; the best 100 detections of an image and class count.

    Detections inside crowd regions (COCO's `iscrowd`) are neither right nor wrong. `areas` say whether an object is
    small, medium or large. COCO has no difficult objects: they count like any other. A class without objects has no AP
    and is left out of the means.

    Raises:
        ImportError: hotcoco is not installed.
    """
    labels = np.concatenate([truth.labels for truth in truths])
    crowd = np.concatenate([truth.crowd for truth in truths])
    found_labels = np.concatenate([found.labels for found in detections])
    evaluation = match_as_coco(truths, detections, class_names=class_names)
    evaluation.accumulate()
    tables = evaluation.eval
    if tables is None:
        raise RuntimeError("hotcoco accumulated nothing")
    precision = tables["precision"]  # overlaps, recalls, classes, sizes, detections
    recall = tables["recall"]  # overlaps, classes, sizes, detections

    per_class: dict[str, ClassMetrics] = {
        name: {
            "ap": _mean(precision[:, :, label, ALL, HUNDRED]),
            "ap50": _mean(precision[AT_50, :, label, ALL, HUNDRED]),
            "objects": int(np.count_nonzero((labels == label) & ~crowd)),
            "detections": int(np.count_nonzero(found_labels == label)),
        }
        for label, name in enumerate(class_names)
    }
    return Metrics(
        rule="coco",
        pixels="continuous",
        images=len(truths),
        objects=int(np.count_nonzero(~crowd)),
        ap=_mean(precision[..., ALL, HUNDRED]),
        ap50=_mean(precision[AT_50, ..., ALL, HUNDRED]),
        ap75=_mean(precision[AT_75, ..., ALL, HUNDRED]),
        ap_small=_mean(precision[..., SMALL, HUNDRED]),
        ap_medium=_mean(precision[..., MEDIUM, HUNDRED]),
        ap_large=_mean(precision[..., LARGE, HUNDRED]),
        ar1=_mean(recall[..., ALL, ONE]),
        ar10=_mean(recall[..., ALL, TEN]),
        ar100=_mean(recall[..., ALL, HUNDRED]),
        ar_small=_mean(recall[..., SMALL, HUNDRED]),
        ar_medium=_mean(recall[..., MEDIUM, HUNDRED]),
        ar_large=_mean(recall[..., LARGE, HUNDRED]),
        per_class=per_class,
    )


def match_as_coco(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], *, class_names: Sequence[str], sizes: bool = True
) -> "hotcoco.COCOeval":
    """Returns hotcoco's evaluation with the matches of each image and class; images and classes are numbered from 1.

    Args:
        truths: Objects of each image.
        detections: Detections of each image, in the same order.
        class_names: Names of the classes in label order.
        sizes: Whether small, medium and large objects are matched apart as well, beside all objects together.

    Raises:
        ImportError: hotcoco is not installed.
    """
    try:
        import hotcoco
    except ImportError as error:
        raise ImportError("the rule 'coco' needs hotcoco: pip install 'multibox[train]', or hotcoco alone") from error

    image_ids = np.arange(1, len(truths) + 1)
    truth_set = hotcoco.COCO.from_arrays(
        [{"id": image_id} for image_id in image_ids.tolist()],
        [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)],
        np.repeat(image_ids, [len(truth) for truth in truths]),
        np.concatenate([truth.labels for truth in truths]) + 1,
        _corner_and_size(np.concatenate([truth.boxes for truth in truths])),
        area=np.concatenate([truth.areas for truth in truths]).astype(np.float64),
        iscrowd=np.concatenate([truth.crowd for truth in truths]),
    )
    found_set = truth_set.load_res(
        np.column_stack(
            [
                np.repeat(image_ids, [len(found) for found in detections]),
                _corner_and_size(np.concatenate([found.boxes for found in detections])),
                np.concatenate([found.scores for found in detections]),
                np.concatenate([found.labels for found in detections]) + 1,
            ]
        )
    )
    evaluation = hotcoco.COCOeval(truth_set, found_set, "bbox")
    if not sizes:
        evaluation.params.area_rng = evaluation.params.area_rng[:1]
        evaluation.params.area_rng_lbl = evaluation.params.area_rng_lbl[:1]
    evaluation.evaluate()
    return evaluation


def _corner_and_size(boxes: Float[np.ndarray, "boxes 4"]) -> Float[np.ndarray, "boxes 4"]:
    """Returns boxes in COCO's form, `(x_min, y_min, width, height)`."""
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _mean(table: Float[np.ndarray, "..."]) -> float | None:
    """Returns the mean of the known values; COCO writes -1 if there is no object."""
    known = table[table > -1]
    return float(known.mean()) if len(known) else None
