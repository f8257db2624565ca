"""Weights that are found by name, and where their files are."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple


class Published(NamedTuple):
    """Weights with a name: the file, what it is, and under which licence."""

    path: Path
    description: str
    licence: str


PUBLISHED: Mapping[str, Published] = {
    "multibox/shapes": Published(
        Path(__file__).parent / "shapes.safetensors",
        "ssd256-tiny trained on drawn scenes, six classes of shapes; comes with the package",
        "Apache-2.0",
    ),
}

EXAMPLE_PICTURE = Path(__file__).parent / "shapes.png"
"""A drawn scene that `multibox/shapes` was not trained on."""


def find_weights(name: str | os.PathLike[str]) -> Path:
    """The file of published weights (`multibox/shapes`), or the path itself.

    Raises:
        FileNotFoundError: It is neither the name of published weights nor a file.
    """
    text = os.fspath(name)
    if text in PUBLISHED:
        return PUBLISHED[text].path
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
