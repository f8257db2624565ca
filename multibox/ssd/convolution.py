"""The pieces that detectors from TensorFlow are built of, where they differ from PyTorch's."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: `ceil(size / stride)` places, an odd row of zeros goes last.

    PyTorch pads both sides alike, so that with a stride of 2 the two look at other pixels where the size is even.
    """

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Tensor:
        rows, columns = (
            max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
            for size, stride, dilation, kernel in zip(
                input.shape[2:], self.stride, self.dilation, self.kernel_size, strict=True
            )
        )
        padded = F.pad(input, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return super().forward(padded)


class CappedReLU(nn.Module):
    """ReLU up to a limit that is part of the weights: 6, or what the range of a quantised activation leaves."""

    limit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("limit", torch.tensor(6.0))

    def forward(self, features: Tensor) -> Tensor:
        return torch.minimum(features.relu(), self.limit)
