"""How well default boxes cover the objects of a data set: the best overlap of each object, and what matching gives it.

The images are taken as they are, without augmentation. Default boxes, overlap and matching are those of training.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from multibox.boxes import SIZE_EDGES, box_iou, center_to_corner
from multibox.config import DetectorConfig
from multibox.data.augment import normalized_boxes
from multibox.data.sample import Dataset
from multibox.default_boxes import IOU_THRESHOLD, feature_maps_of, make_default_boxes
from multibox.ssd.cpu import match
from multibox.ssd.matching import UNMATCHED

RATIO_EDGES = ((1, 3), (2, 3), (3, 2), (3, 1))
"""Ratios of width to height in the input between groups of objects."""


class Coverage(NamedTuple):
    """What the default boxes of a detector are to each object of a data set. Crowd regions are left out.

    Attributes:
        images: Number of images.
        sizes: Width and height of each object in pixels of the input, after the resize.
        labels: Label of each object.
        overlaps: Largest overlap of each object with a default box.
        best_maps: Place of the feature map that this default box belongs to.
        matches: Number of default boxes of each feature map that matching gives to the object.
        only_bipartite: Whether matching gives the object a default box, but none that it overlaps by `IOU_THRESHOLD`:
            it has one by the bipartite rule alone.
    """

    images: int
    sizes: Float[np.ndarray, "objects 2"]
    labels: Int[np.ndarray, " objects"]
    overlaps: Float[np.ndarray, " objects"]
    best_maps: Int[np.ndarray, " objects"]
    matches: Int[np.ndarray, "objects maps"]
    only_bipartite: Bool[np.ndarray, " objects"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def covered(self) -> Bool[np.ndarray, " objects"]:
        """Whether each object overlaps a default box by `IOU_THRESHOLD` or more."""
        return np.asarray(self.overlaps >= IOU_THRESHOLD)

    @property
    def unmatched(self) -> Bool[np.ndarray, " objects"]:
        """Whether matching gives an object no default box at all, so that it is not learned."""
        return np.asarray(~self.matches.any(axis=1))


class Group(NamedTuple):
    """The coverage of a group of objects.

    Attributes:
        name: What the objects have in common.
        objects: Number of objects.
        overlap: Mean of the objects' largest overlaps; `None` without objects.
        recall: Fraction of the objects that a default box overlaps by `IOU_THRESHOLD` or more; `None` without objects.
        only_bipartite: Number of objects that have a default box by the bipartite rule alone.
        positives: Number of default boxes that matching gives to the objects.
    """

    name: str
    objects: int
    overlap: float | None
    recall: float | None
    only_bipartite: int
    positives: int


def measure_coverage(
    dataset: Dataset,
    config: DetectorConfig,
    default_boxes_center: Float[np.ndarray, "default_boxes 4"] | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Coverage:
    """Returns how the default boxes of a detector cover the objects of a data set, and which of them match.

    Args:
        dataset: The images; only their annotations are used.
        config: Config of the detector.
        default_boxes_center: The table of default boxes, if it is stored in the weights file.
        on_progress: Called with the number of images done and of all images.
    """
    if default_boxes_center is None:
        default_boxes_center = make_default_boxes(config)
    table = np.asfortranarray(center_to_corner(default_boxes_center))  # as box_iou reads it fastest
    map_of = feature_maps_of(config)
    parts = [_no_objects(len(config.feature_maps))]
    for done, sample in enumerate(dataset, start=1):
        boxes = normalized_boxes(sample).astype(np.float32)
        if len(boxes):
            labels = sample.truth.labels[~sample.truth.crowd]
            sizes = (boxes[:, 2:] - boxes[:, :2]) * np.array([config.width, config.height], np.float32)
            parts.append(Coverage(1, sizes, labels, *_cover(boxes, table, map_of)))
        if on_progress is not None:
            on_progress(done, len(dataset))
    columns = zip(*(part[1:] for part in parts), strict=True)
    return Coverage(len(dataset), *(np.concatenate(column) for column in columns))


def _no_objects(maps: int) -> Coverage:
    none = np.zeros(0, np.int64)
    floats = np.zeros(0, np.float32)
    return Coverage(0, np.zeros((0, 2), np.float32), none, floats, none, np.zeros((0, maps), np.int64), none > 0)


def _cover(
    boxes: Float[np.ndarray, "objects 4"],
    default_boxes: Float[np.ndarray, "default_boxes 4"],
    map_of: Int[np.ndarray, " default_boxes"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the last four columns of `Coverage` for the objects of one image.

    Args:
        boxes: Objects in corner form, as fractions of the image.
        default_boxes: Default boxes in corner form, as fractions of the image.
        map_of: Place of the feature map of each default box.
    """
    overlaps = box_iou(boxes, default_boxes)
    present = torch.ones(1, len(boxes), dtype=torch.bool)
    matched = match(torch.from_numpy(boxes)[None], present, torch.from_numpy(default_boxes))[0].numpy()
    places = np.flatnonzero(matched != UNMATCHED)
    owners = matched[places]
    matches = np.zeros((len(boxes), map_of[-1] + 1), np.int64)
    np.add.at(matches, (owners, map_of[places]), 1)
    by_threshold = np.zeros(len(boxes), bool)
    by_threshold[owners[overlaps[owners, places] >= IOU_THRESHOLD]] = True
    best = overlaps.argmax(axis=1)
    largest = overlaps[np.arange(len(boxes)), best]
    return largest, map_of[best], matches, matches.any(axis=1) & ~by_threshold


def summarize(coverage: Coverage, name: str, chosen: Bool[np.ndarray, " objects"] | None = None) -> Group:
    """Returns the coverage of the chosen objects, or of all."""
    if chosen is None:
        chosen = np.ones(len(coverage), bool)
    objects = int(chosen.sum())
    return Group(
        name,
        objects,
        float(coverage.overlaps[chosen].mean(dtype=np.float64)) if objects else None,
        float(coverage.covered[chosen].mean()) if objects else None,
        int(coverage.only_bipartite[chosen].sum()),
        int(coverage.matches[chosen].sum()),
    )


def mean_of_classes(coverage: Coverage) -> tuple[float | None, float | None]:
    """Returns overlap and recall as `Group` has them, as means over the classes that have objects."""
    groups = [summarize(coverage, "", coverage.labels == label) for label in np.unique(coverage.labels)]
    overlaps = [group.overlap for group in groups if group.overlap is not None]
    recalls = [group.recall for group in groups if group.recall is not None]
    return (float(np.mean(overlaps)), float(np.mean(recalls))) if groups else (None, None)


def by_class(coverage: Coverage, class_names: Sequence[str]) -> list[Group]:
    """Returns the coverage of each class that has objects."""
    groups = [summarize(coverage, name, coverage.labels == label) for label, name in enumerate(class_names)]
    return [group for group in groups if group.objects]


def by_size(coverage: Coverage) -> list[Group]:
    """Returns the coverage by the square root of the objects' area in the input, of groups that have objects."""
    sides = np.sqrt(coverage.sizes.prod(axis=1, dtype=np.float64))
    return list(_ranges(coverage, sides, SIZE_EDGES, [f"{edge}" for edge in SIZE_EDGES], " pixels"))


def by_shape(coverage: Coverage) -> list[Group]:
    """Returns the coverage by the objects' aspect ratio in the input, of groups that have objects."""
    width, height = coverage.sizes.T.astype(np.float64)
    edges = [wide / high for wide, high in RATIO_EDGES]
    return list(_ranges(coverage, width / height, edges, [f"{wide}:{high}" for wide, high in RATIO_EDGES], ""))


def _ranges(
    coverage: Coverage,
    values: Float[np.ndarray, " objects"],
    edges: Sequence[float],
    names: Sequence[str],
    unit: str,
) -> Iterator[Group]:
    """Yields the coverage of the objects whose values lie between two edges, or beyond the first or the last."""
    texts = [
        f"under {names[0]}{unit}",
        *(f"{low} to {high}{unit}" for low, high in pairwise(names)),
        f"{names[-1]}{unit} or more",
    ]
    for text, (low, high) in zip(texts, pairwise((-inf, *edges, inf)), strict=True):
        group = summarize(coverage, text, (values >= low) & (values < high))
        if group.objects:
            yield group


def by_map(coverage: Coverage, config: DetectorConfig) -> list[Group]:
    """Returns the coverage by feature map: the objects whose best default box it has, and its own positives."""
    return [
        summarize(coverage, row.layer, coverage.best_maps == place)._replace(
            positives=int(coverage.matches[:, place].sum())
        )
        for place, row in enumerate(config.feature_maps)
    ]


def describe(coverage: Coverage, config: DetectorConfig, class_names: Sequence[str]) -> dict[str, Any]:
    """Returns all figures of a coverage by name, for JSON."""
    groups = {
        "sizes": by_size(coverage),
        "shapes": by_shape(coverage),
        "classes": by_class(coverage, class_names),
    }
    maps = [
        {
            "name": row.layer,
            "rows": row.rows,
            "columns": row.columns,
            "box_sizes": row.box_sizes,
            "default_boxes": row.num_default_boxes,
            **group._asdict(),
        }
        for row, group in zip(config.feature_maps, by_map(coverage, config), strict=True)
    ]
    return {
        "input": {"height": config.height, "width": config.width},
        "default_boxes": config.num_default_boxes,
        "images": coverage.images,
        **{name: value for name, value in summarize(coverage, "")._asdict().items() if name != "name"},
        "unmatched": int(coverage.unmatched.sum()),
        "mean_of_classes": dict(zip(("overlap", "recall"), mean_of_classes(coverage), strict=True)),
        "maps": maps,
        **{name: [group._asdict() for group in rows] for name, rows in groups.items()},
    }
