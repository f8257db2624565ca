"""The interface of a backbone: it turns inputs into feature maps by name."""

from collections.abc import Collection
from typing import NamedTuple

from torch import Tensor, nn


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


def run_layers(network: nn.Module, inputs: Tensor, sources: Collection[str]) -> dict[str, Tensor]:
    """Runs the layers of a network one after the other, in the order in which they were added.

    Args:
        network: Network whose layers each take the features of the one before.
        inputs: Normalized inputs `(batch, image_channels, height, width)`.
        sources: Names of the layers whose features are returned.

    Returns:
        The features of the source layers by name.
    """
    features, found = inputs, {}
    for name, layer in network.named_children():
        features = layer(features)
        if name in sources:
            found[name] = features
    return found
