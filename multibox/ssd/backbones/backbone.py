"""The interface of a backbone: it turns inputs into feature maps by name."""

from typing import NamedTuple

from torch import nn


class Source(NamedTuple):
    """A source layer of a backbone.

    Attributes:
        channels: Number of channels of the layer.
        stride: Distance between the centers of neighboring cells in pixels of the input.
    """

    channels: int
    stride: int


class Backbone(NamedTuple):
    """A backbone and its source layers.

    Attributes:
        network: Network from normalized inputs `(batch, image_channels, height, width)` to source layers by name.
        sources: Source layers by name, in the order of the network. Extra feature layers follow the last one.
    """

    network: nn.Module
    sources: dict[str, Source]
