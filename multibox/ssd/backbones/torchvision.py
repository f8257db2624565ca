"""MobileNetV2, MobileNetV3-Large, SqueezeNet and ResNet of torchvision, cut where a detector takes their layers.

Only the functions that use torchvision import it: the import takes a second, and other backbones do not need it.
"""

from typing import Literal, cast

from torch import Tensor, nn

from multibox.ssd.backbones.backbone import Backbone, Source, run_layers


def mobilenet_v2(image_channels: int = 3, *, width: float = 1.0) -> Backbone:
    """Returns MobileNetV2 (Sandler et al. 2018) with the layers `block13`, `expand14` and `conv18`.

    `block13` and the wider `expand14`, the expansion that block 14 begins with, have stride 16. Detectors use one of
    the two. `conv18` has stride 32.

    Args:
        image_channels: Number of channels of the network input.
        width: Width multiplier, a factor on the number of channels of all layers but `conv18`. Channels are not rounded
            to multiples of 8.
    """
    import torchvision

    rounding = 8 if width == 1 else 1
    features = torchvision.models.mobilenet_v2(weights=None, width_mult=width, round_nearest=rounding).features
    _take_channels(features[0], image_channels)
    wide = int(96 * width)
    sources = {"block13": Source(wide, 16), "expand14": Source(6 * wide, 16), "conv18": Source(1280, 32)}
    network = _MobileNet(features, {"block13": 13, "expand14": 14, "conv18": 18}, expansion="expand14")
    return Backbone(network, sources)


def mobilenet_v3_large(image_channels: int = 3, *, reduced_tail: bool = True) -> Backbone:
    """Returns MobileNetV3-Large (Howard et al. 2019) with the layers `expand13` and `conv16`.

    `expand13`, the expansion that block 13 begins with, has stride 16; `conv16` has stride 32.

    Args:
        image_channels: Number of channels of the network input.
        reduced_tail: Whether the last blocks have half their channels, as in SSDLite (section 6.3). The published
            weights of ImageNet are for the full tail.
    """
    import torchvision

    features = torchvision.models.mobilenet_v3_large(weights=None, reduced_tail=reduced_tail).features
    _take_channels(features[0], image_channels)
    sources = {"expand13": Source(672, 16), "conv16": Source(480 if reduced_tail else 960, 32)}
    return Backbone(_MobileNet(features, {"expand13": 13, "conv16": 16}, expansion="expand13"), sources)


def squeezenet(image_channels: int = 3) -> Backbone:
    """Returns SqueezeNet 1.1 (Iandola et al. 2016) with the layers `fire11` and `fire12`, both of stride 16.

    Its first convolution has no padding, and its pools round sizes down (torchvision's round up), so that its maps do
    not reach the right and lower edges: 300 pixels become 17 cells.
    """
    import torchvision

    features = torchvision.models.squeezenet1_1(weights=None).features
    if image_channels != 3:
        features[0] = nn.Conv2d(image_channels, 64, 3, stride=2)
    for layer in features:
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = False
    return Backbone(_SqueezeNet(features), {"fire11": Source(512, 16), "fire12": Source(512, 16)})


def resnet(depth: Literal[18, 34, 50], image_channels: int = 3) -> Backbone:
    """Returns a ResNet (He et al. 2016) with `layer1` (stride 4), `layer2` (8), `layer3` (16) and `layer4` (32)."""
    import torchvision

    network = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    if image_channels != 3:
        network.conv1 = nn.Conv2d(image_channels, 64, 7, stride=2, padding=3, bias=False)
    width = 4 if depth == 50 else 1
    sources = {
        "layer1": Source(64 * width, 4),
        "layer2": Source(128 * width, 8),
        "layer3": Source(256 * width, 16),
        "layer4": Source(512 * width, 32),
    }
    return Backbone(_ResNet(network), sources)


class _MobileNet(nn.Module):
    """Blocks in a row. One of them begins with an expansion that is a source layer too."""

    def __init__(self, features: nn.Sequential, sources: dict[str, int], *, expansion: str) -> None:
        super().__init__()
        self.features = features
        self.sources = {index: name for name, index in sources.items()}
        self.expansion = expansion

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name."""
        features, found = inputs, {}
        for index, block in enumerate(self.features):
            name = self.sources.get(index)
            if name == self.expansion:  # its block has stride 2, hence no shortcut around the expansion
                expand, *rest = cast(nn.Sequential, block.conv if hasattr(block, "conv") else block.block)
                features = found[name] = expand(features)
                for layer in rest:
                    features = layer(features)
                continue
            features = block(features)
            if name is not None:
                found[name] = features
        return found


class _SqueezeNet(nn.Module):
    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name."""
        *others, last = self.features
        features = inputs
        for layer in others:
            features = layer(features)
        return {"fire11": features, "fire12": last(features)}


class _ResNet(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name, layer in network.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, layer)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name."""
        return run_layers(self, inputs, ("layer1", "layer2", "layer3", "layer4"))


def _take_channels(block: nn.Sequential, image_channels: int) -> None:
    """Replaces the first convolution of the block by one for inputs with this number of channels."""
    first = block[0]
    assert isinstance(first, nn.Conv2d)
    if image_channels != first.in_channels:
        block[0] = nn.Conv2d(image_channels, first.out_channels, 3, stride=2, padding=1, bias=False)
