"""What a base network is: images in, named feature maps out."""

from typing import NamedTuple

from torch import nn


class Source(NamedTuple):
    """A layer that a base network gives.

    Attributes:
        channels: Of its features.
        stride: Pixels of the image between the centers of neighboring cells.
    """

    channels: int
    stride: int


class Backbone(NamedTuple):
    """A base network and the layers that it gives.

    Attributes:
        network: Takes normalized images `(batch, image_channels, height, width)`; returns the source layers by name.
        sources: By name, in the order of the network; extra feature layers follow the last.
    """

    network: nn.Module
    sources: dict[str, Source]
