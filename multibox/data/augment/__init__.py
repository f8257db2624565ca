"""The paper's augmentation (section 2.2 and the Caffe code): color, expand, crop by seven samplers, resize, flip.

`sample_params` first draws everything random as numbers. `render` then applies them with a single crop and resize of
the decoded image, and changes the colors last: on the small image, and only where the original image is visible.
"""

from multibox.data.augment.color import Colors, change_colors
from multibox.data.augment.params import (
    INTERPOLATIONS,
    MIN_OVERLAPS,
    TRIALS,
    Augmentation,
    AugmentParams,
    random_crops,
    sample_crop,
    sample_params,
)
from multibox.data.augment.render import Augmented, crop_boxes, normalized_boxes, render

__all__ = [
    "INTERPOLATIONS",
    "MIN_OVERLAPS",
    "TRIALS",
    "AugmentParams",
    "Augmentation",
    "Augmented",
    "Colors",
    "change_colors",
    "crop_boxes",
    "normalized_boxes",
    "random_crops",
    "render",
    "sample_crop",
    "sample_params",
]
