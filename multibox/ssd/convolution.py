"""The convolution of detectors from TensorFlow, where it differs from PyTorch's."""

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
