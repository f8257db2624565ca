"""Boxes to offsets from default boxes and back (equation 2, with the variances of the Caffe code)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from multibox.checks import Positive, check_fields


@dataclass(frozen=True)
class BoxCoder:
    """Offsets `(Δcx, Δcy, Δw, Δh)` of a box g from a default box d.

        Δcx = (g_cx - d_cx) / d_w / center_variance        Δw = log(g_w / d_w) / size_variance
        Δcy = (g_cy - d_cy) / d_h / center_variance        Δh = log(g_h / d_h) / size_variance

    The law that holds: `decode(encode(boxes, default_boxes), default_boxes) == boxes`. The variances (0.1 and 0.2) are
    the Caffe code's; the paper does not mention them. (The law ends where `max_log_size`, which some detectors have,
    keeps a box from growing to more than exp(max_log_size) times its default box.)
    """

    center_variance: Positive
    size_variance: Positive
    max_log_size: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def encode(
        self, boxes_center: Float[Tensor, "*rows 4"], default_boxes_center: Float[Tensor, "*rows 4"]
    ) -> Float[Tensor, "*rows 4"]:
        """The offsets of each box from the default box of the same row; widths and heights must be above zero."""
        center = (boxes_center[..., :2] - default_boxes_center[..., :2]) / default_boxes_center[..., 2:]
        size = torch.log(boxes_center[..., 2:] / default_boxes_center[..., 2:])
        return torch.cat([center / self.center_variance, size / self.size_variance], dim=-1)

    def decode(
        self, offsets: Float[Tensor, "*rows 4"], default_boxes_center: Float[Tensor, "*rows 4"]
    ) -> Float[Tensor, "*rows 4"]:
        """The boxes, in center form, that lie at these offsets from the default boxes."""
        center = offsets[..., :2] * self.center_variance * default_boxes_center[..., 2:] + default_boxes_center[..., :2]
        log_size = offsets[..., 2:] * self.size_variance
        if self.max_log_size is not None:
            log_size = log_size.clamp(max=self.max_log_size)
        size = torch.exp(log_size) * default_boxes_center[..., 2:]
        return torch.cat([center, size], dim=-1)
