"""Base networks trained on ImageNet, as a start for detectors (section 3.1): torchvision's weights, or timm's."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from multibox.weights.converters.pytorch_ports import VGG16_PLACES
from multibox.weights.converters.state_dict import read_state_dict
from multibox.weights.published import fetch_entry, torchvision_entry

if TYPE_CHECKING:
    from multibox.weights.download import OnProgress

Pixel = tuple[float, float, float]

ENTRIES: Mapping[str, str] = {
    "vgg16": "VGG16_Weights.IMAGENET1K_V1",
    "mobilenet-v2": "MobileNet_V2_Weights.IMAGENET1K_V1",
    "mobilenet-v3-large": "MobileNet_V3_Large_Weights.IMAGENET1K_V1",
    "mobilenet-v3-large-reduced": "MobileNet_V3_Large_Weights.IMAGENET1K_V1",
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet34": "ResNet34_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V1",
}
"""Of torchvision's table of weights, by the name of the backbone. (None are of the reduced V3: see `imagenet_weights`.)"""

_CLASSIFIER = 31
"""The place in VGG-16 behind all its layers of features: what the ports have from there on is its classifier here."""

_REDUCED_TAIL = re.compile(r"features\.(13\.block\.3|14|15|16)\.")
"""Of MobileNetV3-Large: what has half the channels where the tail is reduced."""

_NON_COMMERCIAL = re.compile(r"(^|-)nc(-|$)|non-?commercial|amlr|seer")
"""In names of licenses as timm has them; Apple's AMLR and SEER's are for research only."""


class PretrainedBackbone(NamedTuple):
    """What a detector's backbone starts from.

    Attributes:
        tensors: Of the backbone, by its own state-dict keys.
        mean: Of the pixels that it was trained with, 0 to 255, red, green, blue.
        scale: What they were divided by after that.
        source: Which weights these are, and their license.
    """

    tensors: Mapping[str, np.ndarray]
    mean: Pixel
    scale: Pixel
    source: str


def imagenet_weights(backbone: str, *, on_progress: "OnProgress | None" = None) -> PretrainedBackbone:
    """Weights from ImageNet for this backbone, fetched if need be.

    VGG-16 gets `conv6` and `conv7` from its classifier by decimation. For MobileNetV3-Large with the reduced tail there
    are none: it gets those of the full network as far as the two are alike, up to the depthwise convolution of block
    13. (torchvision trained its SSDLite on the reduced one from random weights.)

    Raises:
        ValueError: There are none for it.
        ImportError: torchvision or timm is not installed.
        OSError: They cannot be fetched or written.
    """
    if backbone.startswith("timm/"):
        return _of_timm(backbone)
    _check(backbone)
    tensors = read_state_dict(fetch_entry(ENTRIES[backbone], on_progress=on_progress))
    if backbone == "vgg16":
        tensors = decimated_vgg16(tensors)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(("fc.", "classifier."))}
    if backbone == "mobilenet-v3-large-reduced":
        tensors = {key: tensor for key, tensor in tensors.items() if not _REDUCED_TAIL.match(key)}
    pixels = torchvision_entry(ENTRIES[backbone]).transforms()
    return PretrainedBackbone(tensors, _pixel(pixels.mean), _pixel(pixels.std), describe_weights(backbone))


def describe_weights(backbone: str) -> str:
    """Which weights `imagenet_weights` would take, and their license, without fetching them.

    Raises:
        ValueError: There are none for it.
        ImportError: timm is not installed.
    """
    if backbone.startswith("timm/"):
        return f"{backbone}, license {timm_license(backbone.removeprefix('timm/'))}"
    _check(backbone)
    return f"torchvision {ENTRIES[backbone]}, license BSD-3-Clause"


def is_non_commercial(source: str) -> bool:
    """Whether the license in this text forbids commercial use, as far as its name says."""
    return bool(_NON_COMMERCIAL.search(source.rpartition("license ")[2].lower()))


def decimated_vgg16(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """VGG-16 of torchvision under the paper's names; `conv6` and `conv7` are every so-manieth weight of its classifier.

    The 4,096 channels of fc6 and fc7 become 1,024, and fc6's kernel of 7x7 becomes 3x3: every fourth channel, every
    third row and column (DeepLab-LargeFOV; the dilation of `conv6` puts them back to about their places).
    """
    found = {
        f"{name}.{part}": tensors[f"features.{place}.{part}"]
        for place, name in VGG16_PLACES.items()
        if place < _CLASSIFIER
        for part in ("weight", "bias")
    }
    bias6, bias7 = tensors["classifier.0.bias"], tensors["classifier.3.bias"]
    fc6 = tensors["classifier.0.weight"].reshape(len(bias6), -1, 7, 7)
    fc7 = tensors["classifier.3.weight"][:, :, None, None]
    return found | {
        "conv6.weight": decimate(fc6, (4, None, 3, 3)),
        "conv6.bias": decimate(bias6, (4,)),
        "conv7.weight": decimate(fc7, (4, 4, None, None)),
        "conv7.bias": decimate(bias7, (4,)),
    }


def decimate(tensor: Float[np.ndarray, "..."], steps: tuple[int | None, ...]) -> Float[np.ndarray, "..."]:
    """Of each axis the first value and every `step`-th after it; all of them where the step is `None`."""
    return np.ascontiguousarray(tensor[tuple(slice(None, None, step) for step in steps)])


def timm_weights(name: str) -> dict[str, np.ndarray]:
    """The weights that timm has for this backbone, by its state-dict keys; timm fetches them into its own cache.

    Raises:
        ImportError: timm is not installed.
        ValueError: It has no weights for it.
        ConnectionError: They cannot be fetched.
    """
    from multibox.ssd.backbones.timm import timm_package

    timm = timm_package()
    timm_license(name)  # says that there are none
    try:
        network: Any = timm.create_model(name, pretrained=True, features_only=True)
    except OSError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConnectionError(f"the weights of timm's '{name}' cannot be fetched ({reason[0]})") from error
    return {f"network.{key}": tensor.numpy() for key, tensor in network.state_dict().items()}


def timm_license(name: str) -> str:
    """The license of the weights that timm has for this backbone.

    Raises:
        ImportError: timm is not installed.
        ValueError: It has no weights for it.
    """
    from multibox.ssd.backbones.timm import timm_package

    try:
        known = timm_package().models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise ValueError(f"timm has no trained weights for a model '{name}' ({error})") from error
    if not known.has_weights:
        raise ValueError(f"timm has no trained weights for a model '{name}'")
    return known.license or "not stated"


def _check(backbone: str) -> None:
    if backbone not in ENTRIES:
        raise ValueError(
            f"there are no weights from ImageNet for the backbone '{backbone}', only for "
            f"{', '.join(ENTRIES)} and timm's"
        )


def _of_timm(backbone: str) -> PretrainedBackbone:
    from multibox.ssd.backbones.timm import timm_pixels

    name = backbone.removeprefix("timm/")
    mean, scale = timm_pixels(name)
    return PretrainedBackbone(timm_weights(name), mean, scale, describe_weights(backbone))


def _pixel(shares: list[float]) -> Pixel:
    red, green, blue = (255 * share for share in shares)
    return red, green, blue
