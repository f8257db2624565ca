"""Small copies of images that a page carries in itself."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from multibox.data.sample import Dataset
from multibox.pages import jpeg_uri

SIDE = 320
"""Longest side of a small copy in pixels."""

MOST_OPENED = 1000
"""Number of images that are opened at most."""

MOST_BYTES = 16_000_000
"""Bytes of all copies in a page at most, as text."""


class Thumbnails(NamedTuple):
    """The small copies, and the brightness of the images.

    Attributes:
        uris: The copy of each image as a data URI; "" for an image that is left out to limit the page's size.
        brightness: Mean gray of each image from 0 to 255, or None if not all images were opened.
    """

    uris: list[str]
    brightness: list[float] | None


def make_thumbnails(
    dataset: Dataset, order: Sequence[int], *, on_progress: Callable[[int, int], None] | None = None
) -> Thumbnails:
    """Returns small JPEG copies of the images, the first ones in the order until the limits are reached.

    An image that cannot be read any more has no copy. Beyond the limit on bytes, images are only opened where this
    gives the brightness of all of them.

    Args:
        dataset: The images.
        order: Indices of all images, the most important one first.
        on_progress: Called after each image with the number of images done and of all that are opened.
    """
    uris, gray = [""] * len(dataset), np.full(len(dataset), np.nan)
    opened = order[:MOST_OPENED]
    left = MOST_BYTES
    for done, index in enumerate(opened, start=1):
        if left <= 0 and len(opened) < len(order):
            break
        try:
            image = dataset[index].open(at_least=(SIDE, SIDE))
        except (OSError, ValueError):
            continue
        image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
        gray[index] = np.asarray(image.convert("L"), np.float32).mean()
        if left > 0:
            uris[index] = jpeg_uri(image, quality=70)
            left -= len(uris[index])
        if on_progress is not None:
            on_progress(done, len(opened))
    return Thumbnails(uris, None if np.isnan(gray).any() else gray.tolist())
