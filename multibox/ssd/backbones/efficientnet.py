"""EfficientNet-B3 (Tan and Le 2019) and EfficientNet-Lite as TensorFlow has them, with SAME padding.

lufficc/SSD builds a detector on B3. The Lite networks are made for small processors and int8: no squeeze-and-excite,
ReLU6 in place of SiLU (`efficientnet_lite_builder.py` in TensorFlow's tpu repository).
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import NamedTuple, cast

from torch import Tensor, nn

from multibox.ssd.backbones.backbone import Backbone, Source
from multibox.ssd.convolution import NormalizedConv, SameConv2d
from multibox.ssd.squeeze_excite import SqueezeExcite

_EPS = 1e-3
"""`eps` of all BatchNorms."""


class Stage(NamedTuple):
    """Blocks in a row that give maps of the same size.

    Attributes:
        blocks: Number of blocks.
        kernel: Side of the kernels of the depthwise convolutions.
        stride: Stride of the first block.
        expansion: Factor on the channels inside a block.
        channels: Number of output channels.
    """

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_B3 = (
    Stage(2, 3, 1, 1, 24), Stage(3, 3, 2, 6, 32), Stage(3, 5, 2, 6, 48), Stage(5, 3, 2, 6, 96), Stage(5, 5, 1, 6, 136),
    Stage(6, 5, 2, 6, 232), Stage(2, 3, 1, 6, 384),
)  # fmt: skip
_LITE0 = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80), Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip


def efficientnet_b3(image_channels: int = 3) -> Backbone:
    """Returns EfficientNet-B3 with the layers `block7` (stride 8), `block17` (16) and `block25` (32), without its head.

    Blocks are counted from 0.
    """
    sources = {"block7": Source(48, 8), "block17": Source(136, 16), "block25": Source(384, 32)}
    return Backbone(EfficientNet(image_channels, _B3, stem=40, lite=False, sources=tuple(sources)), sources)


def efficientnet_lite(image_channels: int = 3, *, width: float = 1.0, depth: float = 1.0) -> Backbone:
    """Returns an EfficientNet-Lite, without its head.

    Its source layers are the expansions that the stages of stride 16 and 32 begin with, as in SSDLite, and the last
    block: `expand5` (stride 8), `expand11` (16) and `block15` (32) of Lite0.

    Args:
        image_channels: Number of channels of the network input.
        width: Factor on the number of channels of the stages.
        depth: Factor on the number of blocks of all stages but the first and the last, rounded up.
    """
    inner = [stage._replace(blocks=ceil(stage.blocks * depth)) for stage in _LITE0[1:-1]]
    stages = [
        stage._replace(channels=_multiple_of_8(stage.channels * width)) for stage in (_LITE0[0], *inner, _LITE0[-1])
    ]
    sources, stride, number = {}, 2, 0
    for before, stage in pairwise(stages):
        number += before.blocks
        if stage.stride > 1 and stride * stage.stride > 8:
            sources[f"expand{number}"] = Source(stage.expansion * before.channels, stride)
        stride *= stage.stride
    sources[f"block{number + stages[-1].blocks - 1}"] = Source(stages[-1].channels, stride)
    return Backbone(EfficientNet(image_channels, stages, stem=32, lite=True, sources=tuple(sources)), sources)


class EfficientNet(nn.Module):
    """A convolution `stem`, then the blocks `block0`, `block1`, ...

    Args:
        image_channels: Number of channels of the network input.
        stages: The blocks, stage by stage.
        stem: Number of output channels of the stem.
        lite: Whether the blocks are those of EfficientNet-Lite.
        sources: Names of the blocks whose features are returned.
    """

    def __init__(
        self, image_channels: int, stages: Sequence[Stage], *, stem: int, lite: bool, sources: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.sources = sources
        channels, number = stem, 0
        self.stem = _convolution(image_channels, stem, 3, stride=2, activation=_activation(lite))
        for stage in stages:
            for place in range(stage.blocks):
                block = _Block(channels, stage, stride=1 if place else stage.stride, lite=lite)
                self.add_module(f"block{number}", block)
                channels, number = stage.channels, number + 1

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name."""
        features, found = inputs, {}
        for name, layer in self.named_children():
            expansion = name.replace("block", "expand")
            if expansion in self.sources:  # its block has stride 2, hence no shortcut around the expansion
                expand, *rest = cast(nn.Sequential, layer.layers)
                features = found[expansion] = expand(features)
                for part in rest:
                    features = part(features)
            else:
                features = layer(features)
            if name in self.sources:
                found[name] = features
        return found


class _Block(nn.Module):
    """Expands, convolves each channel, squeezes and excites unless it is a Lite block, and projects."""

    def __init__(self, inputs: int, stage: Stage, *, stride: int, lite: bool) -> None:
        super().__init__()
        inside, outputs = inputs * stage.expansion, stage.channels
        layers: dict[str, nn.Module] = {}
        if stage.expansion > 1:
            layers["expand"] = _convolution(inputs, inside, 1, activation=_activation(lite))
        layers["depthwise"] = _convolution(
            inside, inside, stage.kernel, stride=stride, groups=inside, activation=_activation(lite)
        )
        if not lite:
            layers["squeeze"] = SqueezeExcite(inside, inputs // 4, smooth=True)
        layers["project"] = _convolution(inside, outputs, 1)
        self.layers = nn.Sequential(OrderedDict(layers))
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.layers(features)
        return found + features if self.has_shortcut else found


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: nn.Module | None = None
) -> NormalizedConv:
    layers: list[nn.Module] = [
        SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=_EPS, momentum=0.01),
    ]
    return NormalizedConv(*layers) if activation is None else NormalizedConv(*layers, activation)


def _activation(lite: bool) -> nn.Module:
    return nn.ReLU6(inplace=True) if lite else nn.SiLU()


def _multiple_of_8(channels: float) -> int:
    """Returns the nearest multiple of 8, but not one that is lower by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
