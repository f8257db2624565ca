"""The backbones of the "Ultra-Light-Fast-Generic-Face-Detector-1MB" (Linzaer, MIT license): `slim` and `RFB`.

Both have narrow blocks of MobileNet v1. RFB (Liu et al. 2018) replaces one of them by branches of dilated convolutions.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from multibox.ssd.backbones.backbone import Backbone, Source, run_layers

_BLOCKS = (
    (32, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1)
)  # fmt: skip
"""Channels and stride of blocks 1 to 12, which follow a convolution with 16 channels and stride 2."""

_SOURCES = {"block7": Source(64, 8), "block10": Source(128, 16), "block12": Source(256, 32)}


def ultra_light(image_channels: int = 3, *, rfb: bool) -> Backbone:
    """Returns the backbone with the layers `block7` (stride 8), `block10` (16) and `block12` (32).

    Args:
        image_channels: Number of channels of the network input.
        rfb: Whether to return `RFB` instead of `slim`.
    """
    return Backbone(UltraLight(image_channels, rfb=rfb), dict(_SOURCES))


class UltraLight(nn.Module):
    """Blocks `block0` to `block12`. With `rfb`, `block7` has dilated branches."""

    def __init__(self, image_channels: int, *, rfb: bool) -> None:
        super().__init__()
        channels = 16
        self.block0 = _convolution(image_channels, channels, 3, stride=2)
        for number, (outputs, stride) in enumerate(_BLOCKS, start=1):
            if rfb and number == 7:
                block: nn.Module = ReceptiveFieldBlock(channels)
            else:
                parts = {
                    "depthwise": _convolution(channels, channels, 3, stride=stride, groups=channels),
                    "pointwise": _convolution(channels, outputs, 1),
                }
                block = nn.Sequential(OrderedDict(parts))
            self.add_module(f"block{number}", block)
            channels = outputs

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name."""
        return run_layers(self, inputs, _SOURCES)


class ReceptiveFieldBlock(nn.Module):
    """Three joined branches with dilations of 2, 3 and 5, and a shortcut. The number of channels stays the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 8
        self.branch0 = _branch(channels, inner, (2 * inner,), dilation=2)
        self.branch1 = _branch(channels, inner, (2 * inner,), dilation=3)
        self.branch2 = _branch(channels, inner, (inner // 2 * 3, 2 * inner), dilation=5)
        self.join = _convolution(6 * inner, channels, 1, active=False)
        self.shortcut = _convolution(channels, channels, 1, active=False)

    def forward(self, features: Tensor) -> Tensor:
        branches = [self.branch0(features), self.branch1(features), self.branch2(features)]
        total: Tensor = self.join(torch.cat(branches, dim=1)) + self.shortcut(features)
        return total.relu_()


def _branch(channels: int, inner: int, widths: tuple[int, ...], *, dilation: int) -> nn.Sequential:
    layers = [_convolution(channels, inner, 1, active=False)]
    for width in widths:
        layers.append(_convolution(inner, width, 3))
        inner = width
    return nn.Sequential(*layers, _convolution(inner, inner, 3, dilation=dilation, active=False))


def _convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    active: bool = True,
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if active else nn.Sequential(*layers)
