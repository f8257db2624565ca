"""Write the page of the review: one file that shows a suspect after the other, and saves what a person decides."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from multibox.boxes import clip
from multibox.data.sample import Sample
from multibox.detections import Detection
from multibox.files import atomic_write
from multibox.pages import CSS_COLORS, jpeg_uri, script_json
from multibox.review.gather import Gathered
from multibox.review.suspects import Suspect

MOST = 50
"""Number of suspects on a page: an evening has no time for more, and the first ones are the surest."""

CONTEXT = 1.0
"""Part of the box's size that is shown around it on each side."""

LEAST_SIDE, LARGEST_SIDE = 160, 640
"""A crop shows at least so many pixels of the image, and has at most so many of its own, in each direction."""


def write_page(path: str | os.PathLike[str], gathered: Gathered, suspects: Sequence[Suspect], *, command: str) -> None:
    """Writes the page with the first `MOST` suspects. It holds the crops of the images, and fetches nothing.

    Args:
        path: The file to write; an older one is replaced.
        gathered: The images that the suspects were found in.
        suspects: The suspects, in the order to be shown; at least one.
        command: The command that applies the decisions, for the foot of the page.

    Raises:
        ValueError: There is no suspect, or an image cannot be decoded.
        OSError: The file cannot be written.
    """
    if not suspects:
        raise ValueError("there is no suspect, so no page to walk through")
    rows = [_row(suspect, gathered) for suspect in suspects[:MOST]]
    data = {"name": gathered.dataset.name, "command": command, "id": _digest(rows), "suspects": rows}
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    page = template.replace("{palette}", CSS_COLORS, 1).replace("{data}", script_json(data), 1)
    with atomic_write(Path(path)) as part:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")


def _row(suspect: Suspect, gathered: Gathered) -> dict[str, Any]:
    """Returns what the page knows of a suspect. Boxes are in pixels of the image."""
    sample = gathered.dataset[suspect.image]
    truth, names = sample.truth, gathered.dataset.class_names
    label = None
    if suspect.object is not None:
        label = {"name": names[truth.labels[suspect.object]], "box": _rounded(truth.boxes[suspect.object])}
    shown = [each["box"] for each in (label, _found(suspect.found)) if each]
    return {
        "split": gathered.splits[suspect.image],
        "image": sample.name,
        "kind": suspect.kind,
        "sureness": round(suspect.sureness, 3),
        "object": label,
        "found": _found(suspect.found),
        "others": [_rounded(box) for index, box in enumerate(truth.boxes) if index != suspect.object],
        "crop": _crop(sample, np.array(shown)),
    }


def _found(found: Detection | None) -> dict[str, Any] | None:
    return found and {"name": found.name, "box": _rounded(found.box), "score": round(found.score, 3)}


def _rounded(box: Sequence[float] | Float[np.ndarray, "4"]) -> list[float]:
    return [round(float(side), 2) for side in box]


def _crop(sample: Sample, boxes: Float[np.ndarray, "boxes 4"]) -> dict[str, Any]:
    """Returns the part of the image around the boxes, as the address of a JPEG and its place in the image."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    reach = np.maximum((high - low) * (0.5 + CONTEXT), LEAST_SIDE / 2)
    middle = (low + high) / 2
    window = clip(np.concatenate([np.floor(middle - reach), np.ceil(middle + reach)]), sample.height, sample.width)
    left, top, right, bottom = (round(float(side)) for side in window)
    image = sample.open().crop((left, top, right, bottom))
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    place = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return {**place, "source": jpeg_uri(image, quality=85)}


def _digest(rows: Sequence[dict[str, Any]]) -> str:
    """Returns what tells these suspects from others, so that a browser remembers the decisions about each page."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
