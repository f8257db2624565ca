"""Weights that are found by name, and where their files are."""

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
"""What names of repositories on the Hugging Face Hub begin with: `hf://owner/name`."""


class Published(NamedTuple):
    """Weights with a name, and what is known of them without looking into their file.

    Attributes:
        path: Of the file, where it comes with the package.
        entry: Of torchvision's own table of weights (`torchvision.models.get_weight`), where it is one of its files.
        megabytes: Of the file, before it is converted.
        license: As its source states it.
        accuracy: That the source states.
        description: What it is.
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
"""Torchvision notes of its weights that terms of the data they were trained on may apply besides its license."""

EXAMPLE_IMAGE = _ASSETS / "shapes.png"
"""A synthetic scene that `multibox/shapes` was not trained on."""

_CONVERSION = 1
"""Of the converted files in the cache; to be raised where conversion changes, so that they are made anew."""


def is_weights(name: str | os.PathLike[str]) -> bool:
    """Whether it is a file, or has the form of a name of published weights: nothing is fetched."""
    text = os.fspath(name)
    return text in PUBLISHED or text.startswith(HUB) or Path(text).is_file()


def find_weights(name: str | os.PathLike[str], *, on_progress: "OnProgress | None" = None) -> Path:
    """The file of published weights (`multibox/shapes`, `hf://owner/name`), fetched if need be, or the path itself.

    Raises:
        FileNotFoundError: It is neither the name of published weights nor a file.
        ImportError: A package is missing that fetches or converts it.
        OSError: It cannot be fetched or written.
        ValueError: What was fetched is not what was expected.
    """
    text = os.fspath(name)
    if text.startswith(HUB):
        from multibox.weights.hub import fetch_from_hub

        return fetch_from_hub(text.removeprefix(HUB))
    if text in PUBLISHED:
        return PUBLISHED[text].path or _of_torchvision(text, on_progress)
    path = Path(text)
    if path.is_file():
        return path
    if path.is_dir():
        inside = sorted(path.glob("*.safetensors"))
        hint = f"; did you mean '{inside[0]}'?" if inside else ""
        raise FileNotFoundError(f"'{text}' is a folder, not a weights file{hint}")
    near = get_close_matches(text, PUBLISHED, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else "is the path right?"
    raise FileNotFoundError(
        f"'{text}' is neither a weights file nor the name of published weights; {hint} (multibox models lists them)"
    )


def fetch_entry(entry: str, *, on_progress: "OnProgress | None" = None) -> Path:
    """The file of an entry of torchvision's table of weights, checked by the hash that is in its name.

    Raises:
        ImportError: torchvision is not installed.
        OSError: It cannot be fetched or written.
        ValueError: What was fetched is another file.
    """
    from multibox.weights.download import fetch

    url = torchvision_entry(entry).url
    return fetch(url, sha256=_hash_in(url), on_progress=on_progress)


def torchvision_entry(entry: str) -> Any:
    """The entry (`url`, `meta`, `transforms`) of that name, such as `VGG16_Weights.IMAGENET1K_V1`."""
    try:
        from torchvision.models import get_weight
    except ImportError as error:
        raise ImportError("weights of torchvision need the package: pip install 'multibox[train]'") from error
    return get_weight(entry)


def _of_torchvision(name: str, on_progress: "OnProgress | None") -> Path:
    """Fetched, converted, and kept in the cache."""
    from multibox.weights.convert import convert_weights
    from multibox.weights.download import cache_folder, locked
    from multibox.weights.file import save_weights

    published = PUBLISHED[name]
    entry = torchvision_entry(published.entry)
    target = cache_folder() / f"{name.replace('/', '-')}-{_hash_in(entry.url)}-{_CONVERSION}.safetensors"
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


def _hash_in(url: str) -> str:
    """Of `.../vgg16-397923af.pth` the first digits of the file's SHA-256 that its name ends with."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    if found is None:
        raise ValueError(f"{url}: there is no hash in the name of this file, so it cannot be checked")
    return found[1]
