"""Converts boxes to offsets from default boxes and back (equation 2, with the variances of the Caffe code)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from multibox.checks import Positive, check_fields


@dataclass(frozen=True)
class BoxCoder:
    """Encodes a box g as offsets `(Δcx, Δcy, Δw, Δh)` from a default box d, and decodes them.

        Δcx = (g_cx - d_cx) / d_w / center_variance        Δw = log(g_w / d_w) / size_variance
        Δcy = (g_cy - d_cy) / d_h / center_variance        Δh = log(g_h / d_h) / size_variance

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
        self, boxes_center: Float[Tensor, "*rows 4"], default_boxes_center: Float[Tensor, "*rows 4"]
    ) -> Float[Tensor, "*rows 4"]:
        """Returns the offsets of each box from the default box in the same row.

        Args:
            boxes_center: Boxes in center form; widths and heights must be above zero.
            default_boxes_center: Default boxes in center form; widths and heights must be above zero.
        """
        center = (boxes_center[..., :2] - default_boxes_center[..., :2]) / default_boxes_center[..., 2:]
        size = torch.log(boxes_center[..., 2:] / default_boxes_center[..., 2:])
        return torch.cat([center / self.center_variance, size / self.size_variance], dim=-1)

    def decode(
        self, offsets: Float[Tensor, "*rows 4"], default_boxes_center: Float[Tensor, "*rows 4"]
    ) -> Float[Tensor, "*rows 4"]:
        """Returns the boxes, in center form, that have these offsets from the default boxes in the same rows."""
        center = offsets[..., :2] * self.center_variance * default_boxes_center[..., 2:] + default_boxes_center[..., :2]
        log_size = offsets[..., 2:] * self.size_variance
        if self.max_log_size is not None:
            log_size = log_size.clamp(max=self.max_log_size)
        size = torch.exp(log_size) * default_boxes_center[..., 2:]
        return torch.cat([center, size], dim=-1)
