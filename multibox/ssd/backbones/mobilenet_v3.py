"""MobileNetV3 (Howard et al. 2019) of two PyTorch ports, which differ from torchvision's in their blocks.

lufficc/SSD squeezes and excites before the activation of the depthwise convolution instead of after it
(ssd/modeling/backbone/mobilenetv3.py). qfgaohao/pytorch-ssd squeezes and excites the output of the block, with
BatchNorm inside; its blocks without a stride always have a shortcut, and its large network halves the map one block
later (vision/nn/mobilenetv3.py).
"""

from collections import OrderedDict
from typing import Literal, NamedTuple

from torch import Tensor, nn

from multibox.ssd.backbones.backbone import Backbone, Source, run_layers
from multibox.ssd.squeeze_excite import SqueezeExcite

Port = Literal["lufficc", "qfgaohao"]


class _Row(NamedTuple):
    """Kernel of the depthwise convolution, channels inside and of the output, stride, and the kinds of layers."""

    kernel: int
    inside: int
    channels: int
    stride: int
    squeeze: bool
    hard_swish: bool


_LARGE = (
    _Row(3, 16, 16, 1, False, False), _Row(3, 64, 24, 2, False, False), _Row(3, 72, 24, 1, False, False),
    _Row(5, 72, 40, 2, True, False), _Row(5, 120, 40, 1, True, False), _Row(5, 120, 40, 1, True, False),
    _Row(3, 240, 80, 2, False, True), _Row(3, 200, 80, 1, False, True), _Row(3, 184, 80, 1, False, True),
    _Row(3, 184, 80, 1, False, True), _Row(3, 480, 112, 1, True, True), _Row(3, 672, 112, 1, True, True),
)  # fmt: skip
"""Blocks 1 to 12 of MobileNetV3-Large, which follow a convolution of 16 channels and stride 2."""

_ROWS: dict[tuple[Port, str], tuple[_Row, ...]] = {
    ("lufficc", "large"): (
        *_LARGE, _Row(5, 672, 160, 2, True, True), _Row(5, 960, 160, 1, True, True), _Row(5, 960, 160, 1, True, True)
    ),
    ("qfgaohao", "large"): (
        *_LARGE, _Row(5, 672, 160, 1, True, True), _Row(5, 672, 160, 2, True, True), _Row(5, 960, 160, 1, True, True)
    ),
    ("qfgaohao", "small"): (
        _Row(3, 16, 16, 2, True, False), _Row(3, 72, 24, 2, False, False), _Row(3, 88, 24, 1, False, False),
        _Row(5, 96, 40, 2, True, True), _Row(5, 240, 40, 1, True, True), _Row(5, 240, 40, 1, True, True),
        _Row(5, 120, 48, 1, True, True), _Row(5, 144, 48, 1, True, True), _Row(5, 288, 96, 2, True, True),
        _Row(5, 576, 96, 1, True, True), _Row(5, 576, 96, 1, True, True),
    ),
}  # fmt: skip


def port_mobilenet_v3(image_channels: int = 3, *, port: Port, size: Literal["large", "small"] = "large") -> Backbone:
    """Returns MobileNetV3 of a port: `block12` and `conv16` of the large, `block8` and `conv12` of the small network.

    The first of the two has stride 16, the second stride 32.

    Args:
        image_channels: Number of channels of the network input.
        port: Project whose blocks it has.
        size: Whether to return MobileNetV3-Large or MobileNetV3-Small.
    """
    rows = _ROWS[port, size]
    block, last = {"large": (12, 16), "small": (8, 12)}[size]
    sources = {f"block{block}": Source(rows[block - 1].channels, 16), f"conv{last}": Source(rows[-1].inside, 32)}
    return Backbone(PortMobileNetV3(image_channels, rows, port=port, sources=tuple(sources)), sources)


class PortMobileNetV3(nn.Module):
    """`conv0`, the blocks `block1`, `block2`, ..., and a 1x1 convolution whose number follows theirs."""

    def __init__(self, image_channels: int, rows: tuple[_Row, ...], *, port: Port, sources: tuple[str, ...]) -> None:
        super().__init__()
        self.sources = sources
        channels = 16
        self.conv0 = _convolution(image_channels, channels, 3, stride=2, activation=nn.Hardswish())
        for number, row in enumerate(rows, start=1):
            self.add_module(f"block{number}", _Block(channels, row, port=port))
            channels = row.channels
        last = _convolution(channels, rows[-1].inside, 1, activation=nn.Hardswish())
        self.add_module(f"conv{len(rows) + 1}", last)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name."""
        return run_layers(self, inputs, self.sources)


class _Block(nn.Module):
    """Expands, convolves each channel, and projects, in the order of the port."""

    def __init__(self, inputs: int, row: _Row, *, port: Port) -> None:
        super().__init__()
        qfgaohao, inside, outputs = port == "qfgaohao", row.inside, row.channels
        kind = nn.Hardswish if row.hard_swish else nn.ReLU
        layers: dict[str, nn.Module] = {}
        if qfgaohao or inside != inputs:
            layers["expand"] = _convolution(inputs, inside, 1, activation=kind())
        layers["depthwise"] = _convolution(inside, inside, row.kernel, stride=row.stride, groups=inside)
        if row.squeeze and not qfgaohao:
            layers["squeeze"] = SqueezeExcite(inside, _divisible(inside // 4))
        layers["activation"] = kind()
        layers["project"] = _convolution(inside, outputs, 1)
        if row.squeeze and qfgaohao:
            layers["squeeze"] = SqueezeExcite(outputs, outputs // 4, batch_norm=True)
        self.layers = nn.Sequential(OrderedDict(layers))
        self.shortcut: nn.Module | None = None
        if row.stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif row.stride == 1 and qfgaohao:
            self.shortcut = _convolution(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.layers(features)
        return found if self.shortcut is None else found + self.shortcut(features)


def _divisible(channels: int) -> int:
    """Returns the nearest multiple of 8, at least 8 and at least nine tenths of the channels."""
    nearest = max(8, (channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: nn.Module | None = None
) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers) if activation is None else nn.Sequential(*layers, activation)
