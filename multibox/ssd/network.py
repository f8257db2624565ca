"""The network: from inputs to offsets and logits of every default box (section 2.1, figure 2)."""

from collections import OrderedDict
from typing import NamedTuple, assert_never

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from multibox.config import Activation, DetectorConfig, ExtraLayer, Head, Norm
from multibox.default_boxes import make_default_boxes
from multibox.ssd.backbones import make_backbone
from multibox.ssd.convolution import SameConv2d
from multibox.ssd.initialize import initialize_new_layers
from multibox.ssd.squeeze_excite import SqueezeExcite


class Predictions(NamedTuple):
    """The network's output for each default box, in the order of the table of default boxes.

    Attributes:
        offsets: The four numbers from which `BoxCoder.decode` makes the object's box, starting from the default box.
        logits: Logits of the background, in column 0, and of each class.
    """

    offsets: Float[Tensor, "batch default_boxes 4"]
    logits: Float[Tensor, "batch default_boxes classes_and_background"]


class L2Norm(nn.Module):
    """Divides each cell's features by their L2 norm, then scales each channel by a learned weight (section 3.1)."""

    def __init__(self, channels: int, *, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, features: Float[Tensor, "batch channels rows columns"]) -> Tensor:
        norm = torch.rsqrt(features.square().sum(dim=1, keepdim=True) + 1e-10)
        return features * norm * self.weight[:, None, None]


class SSD(nn.Module):
    """Backbone, extra feature layers, and two heads on each source layer, in plain tensor code.

    State-dict keys are the paper's layer names: `backbone.conv4_3.weight`, `extras.conv8_2.weight`,
    `offsets.conv4_3.weight`, `logits.conv4_3.weight`, `norm.conv4_3.weight`.
    """

    default_boxes: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, config: DetectorConfig, *, num_classes: int) -> None:
        super().__init__()
        self.backbone, sources = make_backbone(config.backbone)
        channels = {name: source.channels for name, source in sources.items()}
        previous = list(channels.values())[-1]
        self.extras = nn.ModuleDict()
        for layer in config.extras:
            if layer.name in channels:
                raise ValueError(f"the extra layer '{layer.name}' has the name of a layer of '{config.backbone}'")
            self.extras[layer.name] = _extra(previous, layer, batch_norm=config.extras_batch_norm)
            previous = channels[layer.name] = layer.channels
        self.linear = {layer.name for layer in config.extras if layer.linear}
        self.activation = _activation(config.activation)

        self.norm = nn.ModuleDict()
        self.offsets = nn.ModuleDict()
        self.logits = nn.ModuleDict()
        head_activation = config.head_activation or config.activation
        for row in config.feature_maps:
            if row.layer not in channels:
                raise ValueError(
                    f"there is no layer '{row.layer}' for a feature map; '{config.backbone}' with its extra layers has "
                    f"{', '.join(channels)}"
                )
            if row.norm is not None:
                self.norm[row.layer] = _norm(row.norm, channels[row.layer])
            boxes = len(row.box_sizes)
            self.offsets[row.layer] = _head(row.head, channels[row.layer], boxes * 4, head_activation)
            self.logits[row.layer] = _head(row.head, channels[row.layer], boxes * (num_classes + 1), head_activation)
        self.num_classes = num_classes
        self.height, self.width = config.height, config.width

        self.register_buffer(
            "default_boxes", torch.from_numpy(make_default_boxes(config)), persistent=config.stored_default_boxes
        )
        self.make_pixel_buffers(config)
        initialize_new_layers(self.extras, self.offsets, self.logits)

    def make_pixel_buffers(self, config: DetectorConfig) -> None:
        """Makes the buffers of the pixels' mean and scale. They come from the config, not from a weights file."""
        for name, values in (("mean", config.mean), ("scale", config.scale)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, inputs: Shaped[Tensor, "batch 3 height width"]) -> Predictions:
        """Returns offsets and logits for inputs of the config's size, RGB from 0 to 255 (`uint8` or floats).

        Raises:
            ValueError: The inputs have another size.
        """
        if inputs.shape[1:] != (3, self.height, self.width):
            raise ValueError(
                f"the network takes inputs of (batch, 3, {self.height}, {self.width}), but these are "
                f"{tuple(inputs.shape)}: resize the images, as Detector.prepare does"
            )
        features = (inputs.to(self.scale.dtype) - self.mean) / self.scale
        sources: dict[str, Tensor] = self.backbone(features)
        features = list(sources.values())[-1]
        for name, layer in self.extras.items():
            features = layer(features)
            sources[name] = features = features if name in self.linear else self.activation(features)

        offsets: list[Tensor] = []
        logits: list[Tensor] = []
        for name in self.offsets:
            source = self.norm[name](sources[name]) if name in self.norm else sources[name]
            for head, width, rows in (
                (self.offsets[name], 4, offsets),
                (self.logits[name], self.num_classes + 1, logits),
            ):
                cells = head(source).permute(0, 2, 3, 1)  # batch, rows, columns, boxes x width
                rows.append(cells.reshape(inputs.shape[0], -1, width))
        return Predictions(torch.cat(offsets, dim=1), torch.cat(logits, dim=1))


def _extra(channels: int, layer: ExtraLayer, *, batch_norm: bool) -> nn.Module:
    kind, padding = (SameConv2d, 0) if layer.padding == "same" else (nn.Conv2d, layer.padding)
    groups = channels if layer.depthwise else 1
    convolution = kind(
        channels, layer.channels, layer.kernel, layer.stride, padding, groups=groups, bias=not batch_norm
    )
    layers: list[nn.Module] = [convolution]
    if batch_norm:
        layers.append(nn.BatchNorm2d(layer.channels))
    if layer.squeezed is not None:
        layers.append(SqueezeExcite(layer.channels, layer.squeezed))
    return nn.Sequential(*layers) if len(layers) > 1 else convolution


def _head(kind: Head, channels: int, outputs: int, activation: Activation) -> nn.Module:
    match kind:
        case "conv3x3":
            return nn.Conv2d(channels, outputs, 3, padding=1)
        case "conv1x1":
            return nn.Conv2d(channels, outputs, 1)
        case "separable":
            return _separable_head(channels, outputs, activation)
        case unknown:
            assert_never(unknown)


def _separable_head(channels: int, outputs: int, activation: Activation) -> nn.Module:
    layers = {
        "depthwise": nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        "norm": nn.BatchNorm2d(channels),
        "activation": _activation(activation),
        "pointwise": nn.Conv2d(channels, outputs, 1),
    }
    return nn.Sequential(OrderedDict(layers))


def _norm(kind: Norm, channels: int) -> nn.Module:
    match kind:
        case "l2":
            return L2Norm(channels, scale=20.0)
        case "batch":
            return nn.BatchNorm2d(channels)
        case unknown:
            assert_never(unknown)


def _activation(kind: Activation) -> nn.Module:
    match kind:
        case "relu":
            return nn.ReLU(inplace=True)
        case "relu6":
            return nn.ReLU6(inplace=True)
        case "hardswish":
            return nn.Hardswish(inplace=True)
        case unknown:
            assert_never(unknown)
