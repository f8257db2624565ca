"""What a base network is: images in, named feature maps out."""

from typing import NamedTuple

from torch import nn


class Backbone(NamedTuple):
    """A base network and the layers that it gives.

    Attributes:
        network: Takes normalised images `(batch, 3, height, width)`; returns a dict of the source layers by name.
        channels: Of each source layer, in the order of the network; extra feature layers follow the last.
    """

    network: nn.Module
    channels: dict[str, int]
