"""MobileNet v1 (Howard et al. 2017), depthwise and pointwise convolutions in turn, in two variants.

TensorFlow's variant pads by its SAME rule and uses ReLU6. That of the PyTorch ports pads both sides alike and uses
ReLU.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from multibox.ssd.backbones.backbone import Backbone, Source, run_layers
from multibox.ssd.convolution import SameConv2d

_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)
)  # fmt: skip
"""Channels and stride of the thirteen blocks, which follow a convolution of 32 channels and stride 2."""


def mobilenet_v1(image_channels: int = 3, *, width: float = 1.0, tensorflow: bool = False) -> Backbone:
    """Returns MobileNet v1 with the layers `conv11` (stride 16) and `conv13` (stride 32).

    Args:
        image_channels: Number of channels of the network input.
        width: Width multiplier, a factor on the number of channels of all layers.
        tensorflow: Whether to return TensorFlow's variant, instead of that of the PyTorch ports.
    """
    network = MobileNetV1(image_channels, width=width, tensorflow=tensorflow)
    return Backbone(network, {"conv11": Source(_wide(512, width), 16), "conv13": Source(_wide(1024, width), 32)})


class MobileNetV1(nn.Module):
    """`conv0`, then `conv1` to `conv13`, each of a depthwise and a pointwise convolution."""

    def __init__(self, image_channels: int, *, width: float, tensorflow: bool) -> None:
        super().__init__()
        channels = _wide(32, width)
        self.conv0 = _convolution(image_channels, channels, 3, stride=2, tensorflow=tensorflow)
        for number, (outputs, stride) in enumerate(_BLOCKS, start=1):
            outputs = _wide(outputs, width)
            parts = {
                "depthwise": _convolution(channels, channels, 3, stride=stride, groups=channels, tensorflow=tensorflow),
                "pointwise": _convolution(channels, outputs, 1, tensorflow=tensorflow),
            }
            self.add_module(f"conv{number}", nn.Sequential(OrderedDict(parts)))
            channels = outputs

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name."""
        return run_layers(self, inputs, ("conv11", "conv13"))


def _wide(channels: int, width: float) -> int:
    """Returns a number of channels with the width multiplier applied."""
    return max(8, int(channels * width))


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, tensorflow: bool
) -> nn.Sequential:
    kind: Callable[..., nn.Conv2d] = SameConv2d if tensorflow else nn.Conv2d
    padding = 0 if tensorflow else kernel // 2
    parts = {
        "convolution": kind(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        "norm": nn.BatchNorm2d(outputs),
        "activation": (nn.ReLU6 if tensorflow else nn.ReLU)(inplace=True),
    }
    return nn.Sequential(OrderedDict(parts))
