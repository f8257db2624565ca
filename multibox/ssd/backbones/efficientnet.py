"""EfficientNet-B3 (Tan and Le 2019) as TensorFlow has it, with SAME padding; lufficc/SSD builds a detector on it."""

from collections import OrderedDict

from torch import Tensor, nn

from multibox.ssd.backbones.backbone import Backbone, Source, run_layers
from multibox.ssd.convolution import SameConv2d
from multibox.ssd.squeeze_excite import SqueezeExcite

_STAGES = (
    (2, 3, 1, 1, 24), (3, 3, 2, 6, 32), (3, 5, 2, 6, 48), (5, 3, 2, 6, 96), (5, 5, 1, 6, 136), (6, 5, 2, 6, 232),
    (2, 3, 1, 6, 384),
)  # fmt: skip
"""Blocks, kernel, stride of the first block, expansion and channels of each stage, which follow a convolution of 40
channels and stride 2."""

_EPS = 1e-3
"""`eps` of all BatchNorms."""


def efficientnet_b3(image_channels: int = 3) -> Backbone:
    """Returns EfficientNet-B3 with the layers `block7` (stride 8), `block17` (16) and `block25` (32), without its head.

    Blocks are counted from 0.
    """
    sources = {"block7": Source(48, 8), "block17": Source(136, 16), "block25": Source(384, 32)}
    return Backbone(EfficientNetB3(image_channels, sources=tuple(sources)), sources)


class EfficientNetB3(nn.Module):
    """A convolution `stem`, then the blocks `block0` to `block25`."""

    def __init__(self, image_channels: int, *, sources: tuple[str, ...]) -> None:
        super().__init__()
        self.sources = sources
        channels, number = 40, 0
        self.stem = _convolution(image_channels, channels, 3, stride=2, active=True)
        for blocks, kernel, stride, expansion, outputs in _STAGES:
            for place in range(blocks):
                block = _Block(channels, outputs, kernel, stride=1 if place else stride, expansion=expansion)
                self.add_module(f"block{number}", block)
                channels, number = outputs, number + 1

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name."""
        return run_layers(self, inputs, self.sources)


class _Block(nn.Module):
    """Expands, convolves each channel, squeezes and excites, and projects."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inside = inputs * expansion
        layers: dict[str, nn.Module] = {}
        if expansion > 1:
            layers["expand"] = _convolution(inputs, inside, 1, active=True)
        layers["depthwise"] = _convolution(inside, inside, kernel, stride=stride, groups=inside, active=True)
        layers["squeeze"] = SqueezeExcite(inside, inputs // 4, smooth=True)
        layers["project"] = _convolution(inside, outputs, 1)
        self.layers = nn.Sequential(OrderedDict(layers))
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.layers(features)
        return found + features if self.has_shortcut else found


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = False
) -> nn.Sequential:
    layers = [
        SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=_EPS, momentum=0.01),
    ]
    return nn.Sequential(*layers, nn.SiLU()) if active else nn.Sequential(*layers)
