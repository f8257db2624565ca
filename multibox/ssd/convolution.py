"""TensorFlow's convolution, which pads differently from PyTorch's."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: its output has `ceil(size / stride)` rows and columns.

    If the number of padded rows is odd, the extra row of zeros goes last. PyTorch pads both sides alike, so with a
    stride of 2 and an even size the two look at different pixels.
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
