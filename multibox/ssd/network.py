"""The network: from inputs to offsets and logits of every default box (section 2.1, figure 2)."""

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from multibox.config import Activation, DetectorConfig, ExtraLayer, Head, Norm
from multibox.default_boxes import make_default_boxes
from multibox.ssd.backbones import make_backbone
from multibox.ssd.convolution import SameConv2d

_PER_CLASS = re.compile(r"logits\.\w+\.(pointwise\.)?(weight|bias)")
"""Matches the keys of tensors whose rows belong to classes."""


class Predictions(NamedTuple):
    """The network's output for each default box, in the order of the table of default boxes.

    Attributes:
        offsets: Offsets of the object's box from the default box.
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
            self.extras[layer.name] = _extra(previous, layer, batch_norm=config.extras_batch_norm)
            previous = channels[layer.name] = layer.channels
        self.linear = {layer.name for layer in config.extras if layer.linear}
        self.activation = _activation(config.activation)

        self.norm = nn.ModuleDict()
        self.offsets = nn.ModuleDict()
        self.logits = nn.ModuleDict()
        for row in config.feature_maps:
            if row.norm is not None:
                self.norm[row.layer] = _norm(row.norm, channels[row.layer])
            boxes = len(row.box_sizes)
            self.offsets[row.layer] = _head(row.head, channels[row.layer], boxes * 4, config.activation)
            self.logits[row.layer] = _head(row.head, channels[row.layer], boxes * (num_classes + 1), config.activation)
        self.num_classes = num_classes
        self.height, self.width = config.height, config.width

        self.register_buffer(
            "default_boxes", torch.from_numpy(make_default_boxes(config)), persistent=config.stored_default_boxes
        )
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(config.scale).view(3, 1, 1), persistent=False)
        for new_layers in (self.extras, self.offsets, self.logits):
            new_layers.apply(_xavier)

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
                rows.append(cells.reshape(len(inputs), -1, width))
        return Predictions(torch.cat(offsets, dim=1), torch.cat(logits, dim=1))


def _extra(channels: int, layer: ExtraLayer, *, batch_norm: bool) -> nn.Module:
    kind, padding = (SameConv2d, 0) if layer.padding == "same" else (nn.Conv2d, layer.padding)
    groups = channels if layer.depthwise else 1
    convolution = kind(
        channels, layer.channels, layer.kernel, layer.stride, padding, groups=groups, bias=not batch_norm
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(layer.channels)) if batch_norm else convolution


def _head(kind: Head, channels: int, outputs: int, activation: Activation) -> nn.Module:
    if kind != "separable":
        kernel = 3 if kind == "conv3x3" else 1
        return nn.Conv2d(channels, outputs, kernel, padding=kernel // 2)
    layers = {
        "depthwise": nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        "norm": nn.BatchNorm2d(channels),
        "activation": _activation(activation),
        "pointwise": nn.Conv2d(channels, outputs, 1),
    }
    return nn.Sequential(OrderedDict(layers))


def _norm(kind: Norm, channels: int) -> nn.Module:
    return L2Norm(channels, scale=20.0) if kind == "l2" else nn.BatchNorm2d(channels)


def _activation(kind: Activation) -> nn.Module:
    return nn.ReLU(inplace=True) if kind == "relu" else nn.ReLU6(inplace=True)


def _xavier(module: nn.Module) -> None:
    """Initialize a convolution by Caffe's "xavier": uniform in ±sqrt(3 / fan-in), bias 0. PyTorch's has fan-out too."""
    if isinstance(module, nn.Conv2d):
        fan_in = module.weight[0].numel()
        nn.init.uniform_(module.weight, -((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def copy_classes(source: SSD, target: SSD, kept: Sequence[int | None]) -> None:
    """Copies the weights of `source` to `target`, a network that differs in its classes only.

    Args:
        source: Network whose weights are copied; the background's always are.
        target: Network that is written to.
        kept: For each class of `target`, the class of `source` whose weights it takes; `None` keeps its own weights.
    """
    rows = [(0, 0)] + [(new + 1, old + 1) for new, old in enumerate(kept) if old is not None]
    new_rows, old_rows = (list(side) for side in zip(*rows, strict=True))
    state = target.state_dict()
    for key, tensor in source.state_dict().items():
        if _PER_CLASS.fullmatch(key):  # (boxes x classes and background, ...)
            per_class = state[key].unflatten(0, (-1, target.num_classes + 1))
            per_class[:, new_rows] = tensor.unflatten(0, (-1, source.num_classes + 1))[:, old_rows]
        else:
            state[key].copy_(tensor)
