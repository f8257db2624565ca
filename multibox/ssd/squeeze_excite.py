"""Squeeze-and-excite (Hu et al. 2018), which MobileNetV3 and EfficientNet have in their blocks."""

from collections import OrderedDict

from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a factor from 0 to 1, which two small layers compute from the means of all channels.

    Args:
        channels: Number of channels of the features.
        squeezed: Number of channels between the two layers.
        batch_norm: Whether BatchNorm follows each of the two layers, in place of a bias.
        smooth: Whether the layers have Swish and a sigmoid, as in EfficientNet, in place of ReLU and a hard sigmoid.
    """

    def __init__(self, channels: int, squeezed: int, *, batch_norm: bool = False, smooth: bool = False) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {"reduce": nn.Conv2d(channels, squeezed, 1, bias=not batch_norm)}
        if batch_norm:
            layers["reduce_norm"] = nn.BatchNorm2d(squeezed)
        layers["activation"] = nn.SiLU() if smooth else nn.ReLU()
        layers["expand"] = nn.Conv2d(squeezed, channels, 1, bias=not batch_norm)
        if batch_norm:
            layers["expand_norm"] = nn.BatchNorm2d(channels)
        layers["gate"] = nn.Sigmoid() if smooth else nn.Hardsigmoid()
        self.factors = nn.Sequential(OrderedDict(layers))

    def forward(self, features: Tensor) -> Tensor:
        factors: Tensor = self.factors(features.mean(dim=(2, 3), keepdim=True))
        return features * factors
