"""Makes the table of default boxes from a detector's config (section 2.2; the Caffe code's PriorBoxLayer)."""

import numpy as np
from jaxtyping import Float

from multibox.boxes import center_to_corner, clip, corner_to_center
from multibox.config import DetectorConfig


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
