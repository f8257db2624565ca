"""Converts boxes to offsets from default boxes and back (equation 2, with the variances of the Caffe code)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from multibox.checks import Positive, check_fields


def center_to_corner(boxes_center: Float[Tensor, "*rows 4"]) -> Float[Tensor, "*rows 4"]:
    """Returns the boxes as `(x_min, y_min, x_max, y_max)`."""
    center, half = boxes_center[..., :2], boxes_center[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


@dataclass(frozen=True)
class BoxCoder:
    """Encodes a box g as offsets `(Δcx, Δcy, Δw, Δh)` from a default box d, and decodes them.

        Δcx = (g_cx - d_cx) / d_w / center_variance        Δw = log(g_w / d_w) / size_variance
        Δcy = (g_cy - d_cy) / d_h / center_variance        Δh = log(g_h / d_h) / size_variance

    g comes in and goes out in corner form, as boxes do everywhere; d is in center form, as in the table.

    Decoding undoes encoding: `decode(encode(boxes, default_boxes), default_boxes) == boxes`, as long as no box is more
    than `exp(max_log_size)` times as wide or high as its default box.

    Attributes:
        center_variance: Divisor of the center's offsets: 0.1 in the Caffe code. The paper does not mention it.
        size_variance: Divisor of the size's offsets: 0.2 in the Caffe code. The paper does not mention it.
        max_log_size: Decoded boxes are at most `exp(max_log_size)` times as wide and high as their default boxes. Some
            detectors have this limit; None for no limit.
    """

    center_variance: Positive
    size_variance: Positive
    max_log_size: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def encode(
        self, boxes: Float[Tensor, "*rows 4"], default_boxes_center: Float[Tensor, "*rows 4"]
    ) -> Float[Tensor, "*rows 4"]:
        """Returns the offsets of each box from the default box in the same row.

        Args:
            boxes: Boxes in corner form; widths and heights must be above zero.
            default_boxes_center: Default boxes in center form; widths and heights must be above zero.
        """
        default_center, default_size = default_boxes_center[..., :2], default_boxes_center[..., 2:]
        low, high = boxes[..., :2], boxes[..., 2:]
        shift = ((low + high) / 2 - default_center) / default_size
        log_size = torch.log((high - low) / default_size)
        return torch.cat([shift / self.center_variance, log_size / self.size_variance], dim=-1)

    def decode(
        self, offsets: Float[Tensor, "*rows 4"], default_boxes_center: Float[Tensor, "*rows 4"]
    ) -> Float[Tensor, "*rows 4"]:
        """Returns the boxes, in corner form, that have these offsets from the default boxes in the same rows."""
        default_center, default_size = default_boxes_center[..., :2], default_boxes_center[..., 2:]
        center = offsets[..., :2] * self.center_variance * default_size + default_center
        log_size = offsets[..., 2:] * self.size_variance
        if self.max_log_size is not None:
            log_size = log_size.clamp(max=self.max_log_size)
        half = torch.exp(log_size) * default_size / 2
        return torch.cat([center - half, center + half], dim=-1)
