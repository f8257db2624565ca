"""The largest overlap of objects with the default boxes of each shape, without looking at every cell.

The figures are those of `multibox.explain.coverage`, in a small part of the time: enough to compare many shapes.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from multibox.boxes import center_to_corner, corner_to_center
from multibox.config import DetectorConfig, FeatureMap
from multibox.data.augment import normalized_boxes
from multibox.data.sample import Dataset
from multibox.default_boxes import make_default_boxes
from multibox.ssd.matching import box_iou


def boxes_of(dataset: Dataset) -> Float[np.ndarray, "objects 4"]:
    """Returns the objects that are trained on, in corner form as fractions of their images."""
    boxes: Float[np.ndarray, "objects 4"] = np.concatenate([np.zeros((0, 4)), *map(normalized_boxes, dataset)])
    return boxes.astype(np.float32)


def best_overlaps(boxes: Float[np.ndarray, "objects 4"], config: DetectorConfig) -> Float[np.ndarray, " objects"]:
    """Returns the largest overlap of each object with a default box; see `overlaps_by_shape`."""
    of_maps = [overlaps_by_shape(boxes, config, row).max(axis=1) for row in config.feature_maps]
    best: Float[np.ndarray, " objects"] = np.max(of_maps, axis=0)
    return best


def overlaps_by_shape(
    boxes: Float[np.ndarray, "objects 4"], config: DetectorConfig, row: FeatureMap
) -> Float[np.ndarray, "objects shapes"]:
    """Returns the largest overlap of each object with the default boxes of each shape of a feature map.

    The intersection of an object with a default box is the product of one length for each axis, and neither grows
    with the distance of their centers along its axis. The sum of both areas is the same in all cells. Therefore, the
    largest overlap is that of the cell whose center is nearest along both axes, and no other is looked at.

    Args:
        boxes: Objects in corner form, as fractions of the image.
        config: Config of the detector, which does not cut default boxes at the edges of the image.
        row: The feature map.
    """
    grid, shapes = (
        make_default_boxes(replace(config, feature_maps=(each,)))
        for each in (replace(row, box_sizes=row.box_sizes[:1]), replace(row, rows=1, columns=1))
    )
    cells = grid.reshape(row.rows, row.columns, 4)
    objects = corner_to_center(boxes)
    nearest = np.stack(
        [
            centers[np.abs(objects[:, axis, None] - centers).argmin(axis=1)]
            for axis, centers in enumerate((cells[0, :, 0], cells[:, 0, 1]))
        ],
        axis=-1,
    )
    best = np.empty((len(boxes), len(shapes), 4), np.float32)
    best[..., :2] = nearest[:, None]
    best[..., 2:] = shapes[:, 2:]
    corners = torch.from_numpy(center_to_corner(best))
    overlaps: Float[np.ndarray, "objects shapes"] = box_iou(torch.from_numpy(boxes)[:, None], corners).numpy()
    return overlaps
