"""MobileNetV2, MobileNetV3-Large and ResNet of torchvision, with its layers' names, cut where a detector takes them."""

from typing import Literal, cast

import torchvision
from torch import Tensor, nn

from multibox.ssd.backbones.backbone import Backbone, Source


def mobilenet_v2(image_channels: int = 3) -> Backbone:
    """Gives `block13` and, wider, `expand14` (stride 16), and `conv18` (stride 32).

    Sandler et al. 2018. Detectors take the first of the two, or the expansion that block 14 begins with.
    """
    features = torchvision.models.mobilenet_v2(weights=None).features
    _take_channels(features[0], image_channels)
    sources = {"block13": Source(96, 16), "expand14": Source(576, 16), "conv18": Source(1280, 32)}
    network = _MobileNet(features, {"block13": 13, "expand14": 14, "conv18": 18}, expansion="expand14")
    return Backbone(network, sources)


def mobilenet_v3_large(image_channels: int = 3, *, reduced_tail: bool = True) -> Backbone:
    """Gives `expand13` (stride 16), the expansion that block 13 begins with, and `conv16` (stride 32).

    Howard et al. 2019. With the reduced tail, as SSDLite has it there (section 6.3), the last blocks have half their
    channels; ImageNet's weights are of the other.
    """
    features = torchvision.models.mobilenet_v3_large(weights=None, reduced_tail=reduced_tail).features
    _take_channels(features[0], image_channels)
    sources = {"expand13": Source(672, 16), "conv16": Source(480 if reduced_tail else 960, 32)}
    return Backbone(_MobileNet(features, {"expand13": 13, "conv16": 16}, expansion="expand13"), sources)


def resnet(depth: Literal[18, 34, 50], image_channels: int = 3) -> Backbone:
    """Gives `layer2` (stride 8), `layer3` (16) and `layer4` (32); He et al. 2016."""
    network = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    if image_channels != 3:
        network.conv1 = nn.Conv2d(image_channels, 64, 7, stride=2, padding=3, bias=False)
    width = 4 if depth == 50 else 1
    sources = {
        "layer2": Source(128 * width, 8),
        "layer3": Source(256 * width, 16),
        "layer4": Source(512 * width, 32),
    }
    return Backbone(_ResNet(network), sources)


class _MobileNet(nn.Module):
    """Blocks in a row, of which one begins with an expansion that is a source as well."""

    def __init__(self, features: nn.Sequential, sources: dict[str, int], *, expansion: str) -> None:
        super().__init__()
        self.features = features
        self.sources = {index: name for name, index in sources.items()}
        self.expansion = expansion

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """The source layers by name."""
        features, found = inputs, {}
        for index, block in enumerate(self.features):
            name = self.sources.get(index)
            if name == self.expansion:  # the stride of its block is 2: there is no shortcut around it
                expand, *rest = cast(nn.Sequential, block.conv if hasattr(block, "conv") else block.block)
                features = found[name] = expand(features)
                for layer in rest:
                    features = layer(features)
                continue
            features = block(features)
            if name is not None:
                found[name] = features
        return found


class _ResNet(nn.Module):
    def __init__(self, network: torchvision.models.ResNet) -> None:
        super().__init__()
        for name, layer in network.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, layer)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """The source layers by name."""
        features, sources = inputs, {}
        for name, layer in self.named_children():
            features = layer(features)
            if name in ("layer2", "layer3", "layer4"):
                sources[name] = features
        return sources


def _take_channels(block: nn.Sequential, image_channels: int) -> None:
    """Makes the first convolution one for images of that many channels."""
    first = block[0]
    assert isinstance(first, nn.Conv2d)
    if image_channels != first.in_channels:
        block[0] = nn.Conv2d(image_channels, first.out_channels, 3, stride=2, padding=1, bias=False)
