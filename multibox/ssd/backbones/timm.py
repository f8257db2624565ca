"""Backbones of timm: any of its models that gives feature maps for inputs of any size."""

from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multibox.messages import quoted
from multibox.ssd.backbones.backbone import Backbone, Source


class Measured(NamedTuple):
    """Properties of a model of timm from which the config of an SSD is made.

    Attributes:
        strides: Strides of the source layers by name.
        grids: Rows and columns of the source layers by name. Some models round them up, some down.
        mean: Mean of red, green and blue (0 to 255) that was subtracted from the pixels in training.
        scale: Divisor of red, green and blue after that.
    """

    strides: dict[str, int]
    grids: dict[str, tuple[int, int]]
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]


def timm_backbone(name: str, image_channels: int = 3) -> Backbone:
    """Returns a model of timm with its feature maps of stride 8 and more as the layers `stride8`, `stride16`, ...

    If several maps have the same stride, the last one is used.

    Args:
        name: Name of the model in timm (`timm.list_models()`).
        image_channels: Number of channels of the network input.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, or the model gives no such maps or takes inputs of one size only.
    """
    timm = timm_package()
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean 'timm/{near[0]}'?" if near else "timm.list_models() lists them"
        raise ValueError(f"timm has no model {quoted(name)}; {hint}")
    known = timm.models.get_pretrained_cfg(name)
    # with this argument, some transformers that were made for one size take any size
    any_size: dict[str, Any] = {"dynamic_img_size": True} if known is not None and known.fixed_input_size else {}
    try:
        network: Any = timm.create_model(
            name, pretrained=False, features_only=True, in_chans=image_channels, **any_size
        )
    except (TypeError, RuntimeError, ValueError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"the model '{name}' of timm gives no feature maps of inputs of any size ({error}); choose another"
        ) from error
    places = {stride: place for place, stride in enumerate(network.feature_info.reduction()) if stride >= 8}
    channels = network.feature_info.channels()
    if not places:
        raise ValueError(f"the model '{name}' of timm has no feature map of stride 8 or more; choose another")
    sources = {f"stride{stride}": Source(channels[place], stride) for stride, place in places.items()}
    return Backbone(_Features(network, dict(zip(sources, places.values(), strict=True))), sources)


def measure_timm(name: str, height: int, width: int) -> Measured:
    """Returns the properties of a model of timm from which the config of an SSD is made.

    Args:
        name: Name of the model in timm.
        height: Height of the network input in pixels.
        width: Width of the network input in pixels.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, or the model does not take such an input or does not cover it.
    """
    with torch.device("meta"):  # computes shapes without values, which is quick for any size
        backbone = timm_backbone(name)
    try:
        found = backbone.network.eval()(torch.empty(1, 3, height, width, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"the model '{name}' of timm takes no input of {height} x {width} ({error}); "
            "most models with such a restriction take multiples of 32"
        ) from error
    grids = {}
    for layer, (_, stride) in backbone.sources.items():
        rows, columns = found[layer].shape[2:]
        if abs(rows - height / stride) >= 1 or abs(columns - width / stride) >= 1:
            raise ValueError(
                f"the map of stride {stride} of the model '{name}' of timm has {rows} x {columns} cells, which do not "
                f"cover an input of {height} x {width}; choose another"
            )
        grids[layer] = (rows, columns)
    mean, scale = timm_pixels(name)
    return Measured({layer: stride for layer, (_, stride) in backbone.sources.items()}, grids, mean, scale)


def timm_pixels(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Returns the mean and scale of red, green and blue (0 to 255) with which a model of timm was trained."""
    known = timm_package().models.get_pretrained_cfg(name)
    (red, green, blue), (red_scale, green_scale, blue_scale) = known.mean, known.std
    return (255 * red, 255 * green, 255 * blue), (255 * red_scale, 255 * green_scale, 255 * blue_scale)


def timm_package() -> Any:
    """Imports timm, which takes seconds.

    Raises:
        ImportError: timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError("backbones of timm need the package timm: pip install 'multibox[timm]'") from error
    return timm


class _Features(nn.Module):
    """A model of timm whose feature maps have the names of source layers."""

    def __init__(self, network: nn.Module, places: dict[str, int]) -> None:
        super().__init__()
        self.network = network
        self.places = places

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name."""
        found = self.network(inputs)
        if getattr(self.network, "output_fmt", "NCHW") == "NHWC":  # some transformers
            found = [features.permute(0, 3, 1, 2) for features in found]
        return {name: found[place] for name, place in self.places.items()}
