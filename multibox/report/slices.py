"""Parts of a data set to look at apart: by size, by what found it, by brightness, by crowding, by folder."""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from multibox.boxes import SIZE_EDGES, area
from multibox.config import DetectorConfig
from multibox.data.sample import Dataset, GroundTruth
from multibox.default_boxes import best_default_boxes, feature_maps_of, make_default_boxes
from multibox.detections import Detections
from multibox.evaluation.groups import Grouping, group_images

CROWDS = (1, 2, 5, 10, 20, 50)
"""Lowest numbers of objects in the images of a group, after the images without any."""

MOST_FOLDERS = 20


class Slice(NamedTuple):
    """A way to divide the data set.

    Attributes:
        title: What divides it.
        note: What its groups are, in a sentence.
        names: Name of each group.
        grouping: The group of each object and detection.
        image_groups: The group of each image, if whole images are grouped.
    """

    title: str
    note: str
    names: tuple[str, ...]
    grouping: Grouping
    image_groups: tuple[int, ...] | None = None


def make_slices(
    dataset: Dataset,
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    *,
    config: DetectorConfig | None,
    brightness: Sequence[float] | None,
) -> list[Slice]:
    """Returns all divisions that say something: those with at least two groups, and those by feature map.

    Args:
        dataset: The images.
        truths: Objects of each image, as they are counted.
        detections: Detections of each image.
        config: Config of the detector; without it there is nothing about its input and its feature maps.
        brightness: Mean gray of each image; None if it is not known.
    """
    slices = [_by_size(dataset, truths, detections, config)]
    if config is not None and any((found.default_box_indices >= 0).any() for found in detections):
        slices += _by_default_box(dataset, truths, detections, config)
    whole_images = [_by_brightness(brightness), _by_crowding(truths), _by_folder(dataset)]
    for title, note, names, groups in [each for each in whole_images if each is not None and len(each[2]) > 1]:
        grouping = group_images(truths, detections, groups, len(names))
        slices.append(Slice(title, note, names, grouping, tuple(groups)))
    return slices


def sides_after_resize(
    dataset: Dataset, boxes: Sequence[GroundTruth | Detections], config: DetectorConfig | None
) -> Float[np.ndarray, " all_boxes"]:
    """Returns the square root of the area of each box of all images, in pixels of the network's input.

    Without a config, in pixels of the image.
    """
    scales = [
        1.0 if config is None else np.sqrt(config.width / each.width * config.height / each.height) for each in dataset
    ]
    sides = [np.sqrt(area(each.boxes)) * scale for each, scale in zip(boxes, scales, strict=True)]
    return np.concatenate([np.zeros(0), *sides])


def _by_size(
    dataset: Dataset, truths: Sequence[GroundTruth], detections: Sequence[Detections], config: DetectorConfig | None
) -> Slice:
    names = [f"{low} to {high} px" for low, high in pairwise(SIZE_EDGES)]
    names = [f"under {SIZE_EDGES[0]} px", *names, f"{SIZE_EDGES[-1]} px and more"]
    of_objects = np.digitize(sides_after_resize(dataset, truths, config), SIZE_EDGES)
    of_detections = np.digitize(sides_after_resize(dataset, detections, config), SIZE_EDGES)
    where = "of the image" if config is None else f"of the {config.height} x {config.width} input, after the resize"
    return Slice(
        "Size" if config is None else "Size after the resize",
        f"The side of a square of the same area, in pixels {where}.",
        tuple(names),
        Grouping(of_objects, of_detections, len(names)),
    )


def _by_default_box(
    dataset: Dataset, truths: Sequence[GroundTruth], detections: Sequence[Detections], config: DetectorConfig
) -> list[Slice]:
    """Returns the divisions by feature map, and by shape of the default boxes of each map."""
    maps = config.feature_maps
    shapes = [(row, shape) for row in maps for shape in row.box_sizes]
    starts = np.cumsum([0, *(len(row.box_sizes) for row in maps)])
    shape_of = np.concatenate(
        [
            np.tile(np.arange(len(row.box_sizes)), row.rows * row.columns) + start
            for row, start in zip(maps, starts, strict=False)
        ]
    )
    of_objects = _best_default_boxes(dataset, truths, config)
    of_detections = np.concatenate([np.zeros(0, np.int64), *(found.default_box_indices for found in detections)])

    def grouping(table: Int[np.ndarray, " default_boxes"], count: int) -> Grouping:
        known = np.append(table, -1)  # the last one for a default box that is not known, -1
        return Grouping(known[of_objects], known[of_detections], count)

    note = (
        "An object belongs to the default box that overlaps it most, which training matches to it; "
        "a detection to the one that it came from."
    )
    return [
        Slice(
            "Feature map",
            note,
            tuple(f"{row.layer}, {row.rows} x {row.columns} cells" for row in maps),
            grouping(feature_maps_of(config), len(maps)),
        ),
        Slice(
            "Default box",
            f"{note} Sizes are in pixels of the input.",
            tuple(f"{row.layer}: {width:.0f} x {height:.0f} px" for row, (width, height) in shapes),
            grouping(shape_of, len(shapes)),
        ),
    ]


def _best_default_boxes(
    dataset: Dataset, truths: Sequence[GroundTruth], config: DetectorConfig
) -> Int[np.ndarray, " objects"]:
    """Returns the index of the default box that overlaps each object most; -1 if they are stored elsewhere."""
    if config.stored_default_boxes:
        return np.full(sum(map(len, truths)), -1)
    boxes = [
        truth.boxes / np.tile([sample.width, sample.height], 2) for sample, truth in zip(dataset, truths, strict=True)
    ]
    return best_default_boxes(np.concatenate([np.zeros((0, 4)), *boxes]), make_default_boxes(config)).indices


_Groups = tuple[str, str, tuple[str, ...], list[int]]


def _by_brightness(brightness: Sequence[float] | None) -> _Groups | None:
    if brightness is None or len(brightness) < 9:
        return None
    first, second = np.quantile(brightness, [1 / 3, 2 / 3])
    names = (f"darkest third, up to {first:.0f}", f"middle third, up to {second:.0f}", "brightest third")
    note = "The mean gray of the image, from 0 (black) to 255 (white)."
    return "Brightness", note, names, np.digitize(brightness, [first, second], right=True).tolist()


def _by_crowding(truths: Sequence[GroundTruth]) -> _Groups:
    numbers = [len(truth) for truth in truths]
    groups = np.digitize(numbers, CROWDS)
    lows = [0, *CROWDS]
    highs = [*(low - 1 for low in CROWDS), None]
    names = [
        f"{low} and more" if high is None else str(low) if low == high else f"{low} to {high}"
        for low, high in zip(lows, highs, strict=True)
    ]
    used = sorted(set(groups.tolist()))
    return (
        "Crowding",
        "The number of objects in the image.",
        tuple(names[group] for group in used),
        [used.index(group) for group in groups.tolist()],
    )


def _by_folder(dataset: Dataset) -> _Groups | None:
    folders = [Path(os.path.abspath(sample.image)).parent for sample in dataset if isinstance(sample.image, Path)]
    if len(folders) < len(dataset) or not 1 < len(set(folders)) <= MOST_FOLDERS:
        return None
    common = len(os.path.commonprefix([folder.parts for folder in folders]))  # noqa: RUF071 - of parts, on any drives
    names = [str(Path(*folder.parts[common:])) for folder in folders]
    known = sorted(set(names))
    return "Folder", "The folder of the image.", tuple(known), [known.index(name) for name in names]
