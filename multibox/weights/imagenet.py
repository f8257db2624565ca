"""Backbones trained on ImageNet, from which detectors start (section 3.1): torchvision's weights, or timm's."""

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
"""Entries of torchvision's table of weights by the name of our backbone. `imagenet_weights` says what the MobileNetV3
with the reduced tail, for which there are none, takes from the full one."""

_CLASSIFIER = 31
"""Place in VGG-16 at which its classifier begins, which the PyTorch ports of SSD have as convolutions."""

_REDUCED_TAIL = re.compile(r"features\.(13\.block\.3|14|15|16)\.")
"""Keys of the layers of MobileNetV3-Large that have half the channels if the tail is reduced."""

_NON_COMMERCIAL = re.compile(r"(^|-)nc(-|$)|non-?commercial|amlr|seer")
"""Names of licenses, as timm has them, that forbid commercial use. Apple's AMLR and SEER's are for research only."""


class PretrainedBackbone(NamedTuple):
    """Weights from which a detector's backbone starts.

    Attributes:
        tensors: Weights of the backbone by its own state-dict keys.
        mean: Mean of red, green and blue (0 to 255) that was subtracted from the pixels in training.
        scale: Divisor of red, green and blue after that.
        source: Name of the weights, and their license.
    """

    tensors: Mapping[str, np.ndarray]
    mean: Pixel
    scale: Pixel
    source: str


def imagenet_weights(backbone: str, *, on_progress: "OnProgress | None" = None) -> PretrainedBackbone:
    """Returns weights from ImageNet for a backbone. They are fetched into the cache if they are not there.

    VGG-16 gets `conv6` and `conv7` from its classifier by decimation. Nobody has published weights of MobileNetV3-Large
    with the reduced tail: it gets those of the full network up to the depthwise convolution of block 13, where the two
    begin to differ. (torchvision trained its SSDLite from random weights.)

    Args:
        backbone: Name of the backbone, or `timm/NAME`.
        on_progress: Called with the progress of the download.

    Raises:
        ValueError: There are no weights for this backbone.
        ImportError: torchvision or timm is not installed.
        OSError: The weights cannot be fetched or written.
    """
    if backbone.startswith("timm/"):
        return _timm_backbone(backbone)
    _check_known(backbone)
    tensors = read_state_dict(fetch_entry(ENTRIES[backbone], on_progress=on_progress))
    if backbone == "vgg16":
        tensors = decimated_vgg16(tensors)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(("fc.", "classifier."))}
    if backbone == "mobilenet-v3-large-reduced":
        tensors = {key: tensor for key, tensor in tensors.items() if not _REDUCED_TAIL.match(key)}
    pixels = torchvision_entry(ENTRIES[backbone]).transforms()
    return PretrainedBackbone(tensors, _pixel(pixels.mean), _pixel(pixels.std), describe_weights(backbone))


def describe_weights(backbone: str) -> str:
    """Returns the name and license of the weights that `imagenet_weights` gives. Nothing is fetched.

    Raises:
        ValueError: There are no weights for this backbone.
        ImportError: timm is not installed.
    """
    if backbone.startswith("timm/"):
        return f"{backbone}, license {timm_license(backbone.removeprefix('timm/'))}"
    _check_known(backbone)
    return f"torchvision {ENTRIES[backbone]}, license BSD-3-Clause"


def is_non_commercial(source: str) -> bool:
    """Returns whether the license in the text of `describe_weights` forbids commercial use, going by its name."""
    return bool(_NON_COMMERCIAL.search(source.rpartition("license ")[2].lower()))


def decimated_vgg16(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns torchvision's VGG-16 under the paper's names, with `conv6` and `conv7` decimated from its classifier.

    Every fourth of the 4,096 channels of fc6 and fc7 is kept, and every third row and column of fc6's 7x7 kernel
    (DeepLab-LargeFOV). The dilation of `conv6` brings the rows and columns back to about their places.
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
    """Returns the first value of each axis and every `step`-th after it; all of them if the step is `None`."""
    return np.ascontiguousarray(tensor[tuple(slice(None, None, step) for step in steps)])


def timm_weights(name: str) -> dict[str, np.ndarray]:
    """Returns timm's weights for a model by the keys of our backbone. timm fetches them into its own cache.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no weights for this model.
        ConnectionError: The weights cannot be fetched.
    """
    from multibox.ssd.backbones.timm import timm_package

    timm = timm_package()
    timm_license(name)  # raises if there are no weights
    try:
        network: Any = timm.create_model(name, pretrained=True, features_only=True)
    except OSError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConnectionError(f"the weights of timm's '{name}' cannot be fetched ({reason[0]})") from error
    return {f"network.{key}": tensor.numpy() for key, tensor in network.state_dict().items()}


def timm_license(name: str) -> str:
    """Returns the license of timm's weights for a model.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no weights for this model.
    """
    from multibox.ssd.backbones.timm import timm_package

    try:
        known = timm_package().models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise ValueError(f"timm has no trained weights for a model '{name}' ({error})") from error
    if not known.has_weights:
        raise ValueError(f"timm has no trained weights for a model '{name}'")
    return known.license or "not stated"


def _check_known(backbone: str) -> None:
    """Raises a ValueError if there are no weights for this backbone."""
    if backbone not in ENTRIES:
        raise ValueError(
            f"there are no weights from ImageNet for the backbone '{backbone}', only for "
            f"{', '.join(ENTRIES)} and timm's"
        )


def _timm_backbone(backbone: str) -> PretrainedBackbone:
    from multibox.ssd.backbones.timm import timm_pixels

    name = backbone.removeprefix("timm/")
    mean, scale = timm_pixels(name)
    return PretrainedBackbone(timm_weights(name), mean, scale, describe_weights(backbone))


def _pixel(fractions: list[float]) -> Pixel:
    """Returns values for pixels from 0 to 255 in place of values for pixels from 0 to 1."""
    red, green, blue = (255 * fraction for fraction in fractions)
    return red, green, blue
