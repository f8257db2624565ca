"""Any convolutional model of timm that gives feature maps (`timm.list_models()`), by its name there."""

from typing import Any

from torch import Tensor, nn

from multibox.ssd.backbones.backbone import Backbone, Source


def timm_backbone(name: str, image_channels: int = 3) -> Backbone:
    """Gives its feature maps of stride 8 and more, as `stride8`, `stride16`, ...

    Raises:
        ImportError: timm is not installed.
        ValueError: It has no such model, or one that gives no feature maps.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError("backbones of timm need the package timm: pip install 'multibox[timm]'") from error
    try:
        network: Any = timm.create_model(name, pretrained=False, features_only=True, in_chans=image_channels)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        raise ValueError(f"timm gives no feature maps of a model '{name}' ({error})") from error
    found = zip(network.feature_info.channels(), network.feature_info.reduction(), strict=True)
    sources = {f"stride{stride}": Source(channels, stride) for channels, stride in found}
    kept = {key: source for key, source in sources.items() if source.stride >= 8}
    if not kept:
        raise ValueError(f"the model '{name}' of timm has no feature map of stride 8 or more")
    return Backbone(_Features(network, list(sources), kept), kept)


def timm_pixels(backbone: Backbone) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of the pixels, 0 to 255, that a backbone of timm was trained with."""
    network: Any = backbone.network.network
    known = network.pretrained_cfg
    (red, green, blue), (red_deviation, green_deviation, blue_deviation) = known["mean"], known["std"]
    return (255 * red, 255 * green, 255 * blue), (255 * red_deviation, 255 * green_deviation, 255 * blue_deviation)


class _Features(nn.Module):
    def __init__(self, network: nn.Module, names: list[str], sources: dict[str, Source]) -> None:
        super().__init__()
        self.network = network
        self.names = names
        self.sources = sources

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The source layers by name."""
        found = dict(zip(self.names, self.network(images), strict=True))
        return {name: _channels_first(found[name], source.channels) for name, source in self.sources.items()}


def _channels_first(features: Tensor, channels: int) -> Tensor:
    """Some transformers give (batch, rows, columns, channels)."""
    return features if features.shape[1] == channels else features.permute(0, 3, 1, 2)
