"""Published weights by name: the facts about them, and where their files are."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from multibox.weights.download import OnProgress

_ASSETS = Path(__file__).parents[1] / "assets"

HUB = "hf://"
"""Beginning of the name of a repository on the Hugging Face Hub: `hf://owner/name`."""


class Published(NamedTuple):
    """Published weights, and the facts about them that are known without reading their file.

    Attributes:
        path: Path of the file if it comes with the package, else `None`.
        entry: Entry of torchvision's own table of weights (`torchvision.models.get_weight`) if the file is one of
            torchvision's, else empty.
        megabytes: Size of the file before it is converted.
        license: License, as the source of the weights states it.
        accuracy: Accuracy, as the source of the weights states it.
        description: What the weights are, in a few words.
    """

    path: Path | None
    entry: str
    megabytes: float
    license: str
    accuracy: str
    description: str


PUBLISHED: Mapping[str, Published] = {
    "multibox/shapes": Published(
        _ASSETS / "shapes.safetensors",
        "",
        1.9,
        "Apache-2.0",
        "AP50 95.2, AP 63.5 on 500 other scenes",
        "ssd256-tiny trained on synthetic scenes, six classes of shapes; comes with the package",
    ),
    "multibox/voc": Published(
        _ASSETS / "voc.safetensors",
        "",
        7.8,
        "Apache-2.0",
        "VOC 2007 test 58.1 mAP",
        "ssd300-lite0 trained on the photographs of VOC 2007, 20 classes; comes with the package",
    ),
    "multibox/voc-tiny": Published(
        _ASSETS / "voc-tiny.safetensors",
        "",
        2.0,
        "Apache-2.0",
        "VOC 2007 test 28.4 mAP",
        "ssd256-tiny trained on VOC 2007, 20 classes, to start trainings from; comes with the package",
    ),
    "torchvision/ssd300-vgg16-coco": Published(
        None,
        "SSD300_VGG16_Weights.COCO_V1",
        136.0,
        "BSD-3-Clause",
        "COCO val2017 25.1 AP",
        "torchvision's ssd300_vgg16 trained on COCO",
    ),
    "torchvision/ssdlite320-mobilenetv3-coco": Published(
        None,
        "SSDLite320_MobileNet_V3_Large_Weights.COCO_V1",
        13.4,
        "BSD-3-Clause",
        "COCO val2017 21.3 AP",
        "torchvision's ssdlite320_mobilenet_v3_large trained on COCO",
    ),
}
"""Torchvision notes that besides its license the terms of the training data may apply to its weights."""

EXAMPLE_IMAGE = _ASSETS / "shapes.png"
"""A synthetic scene that `multibox/shapes` was not trained on."""

_CONVERSION = 1
"""Version of the converted files in the cache. Raise it when conversion changes, so that they are made again."""


def is_weights(name: str | os.PathLike[str]) -> bool:
    """Returns whether this is a file, the folder of a run, or the name of published weights. Nothing is fetched.

    A `.json` file is none: it holds the config of a detector without weights.
    """
    text = os.fspath(name)
    is_file = Path(text).is_file() and not is_config(text)
    return text in PUBLISHED or text.startswith(HUB) or is_file or _best_of_run(text) is not None


def is_config(name: str | os.PathLike[str]) -> bool:
    """Returns whether this is called like the file of a config, from which a new detector can be created."""
    return Path(name).suffix.lower() == ".json"


def _best_of_run(text: str) -> Path | None:
    """Returns the best weights in the folder of a run, or None for anything else, such as the name of a preset."""
    from multibox.presets import PRESETS  # not needed by the command line's help, which must come at once

    best = Path(text) / "best.safetensors"
    return best if text not in PRESETS and best.is_file() else None


def find_weights(name: str | os.PathLike[str], *, on_progress: "OnProgress | None" = None) -> Path:
    """Returns the path of a weights file. Published weights are fetched into the cache if they are not there.

    Args:
        name: Path of a file, or of the folder of a run for its `best.safetensors`; or name of published weights:
            `multibox/shapes`, `hf://owner/name`.
        on_progress: Called with the progress of a download.

    Raises:
        FileNotFoundError: This is neither the name of published weights nor a file.
        ImportError: A package is missing that fetches or converts the weights.
        OSError: The weights cannot be fetched or written.
        ValueError: The fetched file is not the expected one.
    """
    text = os.fspath(name)
    if text.startswith(HUB):
        from multibox.weights.hub import fetch_from_hub

        return fetch_from_hub(text.removeprefix(HUB))
    if text in PUBLISHED:
        return PUBLISHED[text].path or _converted_from_torchvision(text, on_progress)
    path = Path(text)
    if path.is_file():
        return path
    if (best := _best_of_run(text)) is not None:
        return best
    from multibox.presets import PRESETS

    if path.is_dir() and text not in PRESETS:
        inside = sorted(path.glob("*.safetensors"))
        runs = sorted(path.glob("*/best.safetensors"))
        meant = inside[0] if inside else runs[0].parent if runs else None
        hint = f"did you mean '{meant}'?" if meant else "a folder stands for its best.safetensors, which is not there"
        raise FileNotFoundError(f"'{text}' is a folder, not a weights file; {hint}")
    from multibox.messages import shortened

    if text in PRESETS or text.startswith("timm/"):
        raise FileNotFoundError(
            f"'{text}' is a preset, untrained; train it first (multibox train DATA --model {text}), then give the "
            "weights of that run"
        )
    near = get_close_matches(text, PUBLISHED, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else "is the path right?"
    raise FileNotFoundError(
        f"'{shortened(text)}' is neither a weights file nor the name of published weights; {hint} "
        "(multibox models lists them)"
    )


def fetch_entry(entry: str, *, on_progress: "OnProgress | None" = None) -> Path:
    """Returns the file of an entry of torchvision's table of weights, checked by the hash in its name.

    Args:
        entry: Name of the entry, such as `VGG16_Weights.IMAGENET1K_V1`.
        on_progress: Called with the progress of the download.

    Raises:
        ImportError: torchvision is not installed.
        OSError: The file cannot be fetched or written.
        ValueError: The fetched file is not the expected one.
    """
    from multibox.weights.download import fetch

    url = torchvision_entry(entry).url
    return fetch(url, sha256=hash_in(url), on_progress=on_progress)


def torchvision_entry(entry: str) -> Any:
    """Returns torchvision's entry (`url`, `meta`, `transforms`) of this name."""
    try:
        from torchvision.models import get_weight
    except ImportError as error:
        raise ImportError(
            "torchvision's weights need the package torchvision: pip install 'multibox[train]'"
        ) from error
    return get_weight(entry)


def _converted_from_torchvision(name: str, on_progress: "OnProgress | None") -> Path:
    """Returns the converted file in the cache; it is fetched and converted first if it is not there."""
    from multibox.weights.convert import convert_weights
    from multibox.weights.download import cache_folder, locked
    from multibox.weights.file import save_weights

    published = PUBLISHED[name]
    entry = torchvision_entry(published.entry)
    target = cache_folder() / f"{name.replace('/', '-')}-{hash_in(entry.url)}-{_CONVERSION}.safetensors"
    if target.is_file():
        return target
    path = fetch_entry(published.entry, on_progress=on_progress)
    with locked(target):
        if not target.is_file():
            weights = convert_weights(path)
            known = {
                "url": entry.url,
                "license": published.license,
                "published accuracy": published.accuracy,
            }
            save_weights(target, weights._replace(provenance={**weights.provenance, **known}))
    return target


def hash_in(url: str) -> str:
    """Returns the first digits of the SHA-256 with which a name such as `.../vgg16-397923af.pth` ends."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    if found is None:
        raise ValueError(f"{url}: there is no hash in the name of this file, by which it could be checked")
    return found[1]
