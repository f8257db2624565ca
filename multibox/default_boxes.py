"""Makes the table of default boxes from a detector's config (section 2.2; the Caffe code's PriorBoxLayer)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from multibox.boxes import box_iou, center_to_corner, clip, corner_to_center
from multibox.config import DetectorConfig

IOU_THRESHOLD = 0.5
"""Least overlap by which matching gives an object a default box, beside its own by the bipartite rule."""

_CHUNK = 512
"""Number of objects that are compared with the default boxes at once."""


def make_default_boxes(config: DetectorConfig) -> Float[np.ndarray, "default_boxes 4"]:
    """Returns the default boxes in center form, as fractions of the image.

    They are in the order of the network's output: feature map, row, column, box of the cell. Centers are one step
    apart, as in the Caffe code. If the cells of a map reach beyond the input (10 cells of 32 pixels on 300), the last
    centers may lie outside the image. The boxes are clipped if the config says so.

    Raises:
        ValueError: Boxes that are cut at the edges of the image have no part inside it.
    """
    tables = []
    for feature_map in config.feature_maps:
        step_y, step_x = feature_map.step
        center_y = (np.arange(feature_map.rows) + feature_map.offset) * step_y
        center_x = (np.arange(feature_map.columns) + feature_map.offset) * step_x
        sizes = np.array(feature_map.box_sizes)
        table = np.empty((feature_map.rows, feature_map.columns, len(sizes), 4))
        table[..., 0] = center_x[None, :, None]
        table[..., 1] = center_y[:, None, None]
        table[..., 2:] = sizes
        tables.append(table.reshape(-1, 4))
    pixels = np.concatenate(tables)
    boxes = pixels / [config.width, config.height, config.width, config.height]
    match config.clip_default_boxes:
        case "size":
            boxes[:, 2:] = boxes[:, 2:].clip(0, 1)
        case "all":
            boxes = boxes.clip(0, 1)
        case "corners":
            boxes = corner_to_center(clip(center_to_corner(boxes), 1, 1))
            outside = int((boxes[:, 2:] <= 0).any(axis=1).sum())
            if outside:
                boxes_lie = "box lies" if outside == 1 else "boxes lie"
                raise ValueError(f"{outside} default {boxes_lie} outside the image, so that cutting leaves nothing")
    return boxes.astype(np.float32)


def feature_maps_of(config: DetectorConfig) -> Int[np.ndarray, " default_boxes"]:
    """Returns the number of the feature map, from 0, that each default box belongs to."""
    maps = config.feature_maps
    return np.repeat(np.arange(len(maps)), [feature_map.num_default_boxes for feature_map in maps])


class Best(NamedTuple):
    """The default box that overlaps each object most; of several that do, the first.

    Attributes:
        overlaps: Its overlap.
        indices: Its index.
    """

    overlaps: Float[np.ndarray, " objects"]
    indices: Int[np.ndarray, " objects"]


def best_default_boxes(
    boxes: Float[np.ndarray, "objects 4"], default_boxes_center: Float[np.ndarray, "default_boxes 4"]
) -> Best:
    """Returns the default box that overlaps each object most.

    Args:
        boxes: Objects in corner form, as fractions of their images.
        default_boxes_center: The default boxes in center form, as fractions of the image.
    """
    table = np.asfortranarray(center_to_corner(default_boxes_center))  # as box_iou reads it fastest
    overlaps, indices = np.zeros(len(boxes), np.float32), np.zeros(len(boxes), np.int64)
    for start in range(0, len(boxes), _CHUNK):
        rows = slice(start, start + _CHUNK)
        found = box_iou(np.asfortranarray(boxes[rows].astype(np.float32)), table)
        indices[rows] = found.argmax(axis=1)
        overlaps[rows] = found.max(axis=1)
    return Best(overlaps, indices)


class Place(NamedTuple):
    """Where a default box is.

    Attributes:
        feature_map: Number of its feature map, from 0.
        row: Row of its cell, from 0 at the top.
        column: Column of its cell, from 0 at the left.
        shape: Number of the box in its cell, from 0, in the order of `FeatureMap.box_sizes`.
    """

    feature_map: int
    row: int
    column: int
    shape: int


def place_of(index: int, config: DetectorConfig) -> Place:
    """Returns where the default box of this index in the table is.

    Raises:
        IndexError: The detector has no default box of this index.
    """
    first = 0
    for number, feature_map in enumerate(config.feature_maps):
        if first <= index < first + feature_map.num_default_boxes:
            cell, shape = divmod(index - first, len(feature_map.box_sizes))
            return Place(number, *divmod(cell, feature_map.columns), shape)
        first += feature_map.num_default_boxes
    raise IndexError(f"there is no default box {index}: the detector has {first}, counted from 0")
