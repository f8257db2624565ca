"""Time the resize of decoded pixels to a network's input: OpenCV's bilinear rule in numpy, beside Pillow's in C."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from PIL import Image

from benchmarks.timing import Comparison, Settings, compare
from multibox.images import resize

SIDE = 300
SIZES = ((375, 500), (1080, 1920))


def measure(settings: Settings) -> Iterator[Comparison]:
    for height, width in SIZES:
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        variants: dict[str, Callable[[], object]] = {
            "Pillow, bilinear without averaging": partial(_pillow, pixels),
            "multibox, `antialias` (Pillow)": partial(resize, pixels, SIDE, SIDE, "antialias"),
            "multibox, `float`": partial(resize, pixels, SIDE, SIDE, "float"),
            "multibox, `bilinear` (as OpenCV)": partial(resize, pixels, SIDE, SIDE, "bilinear"),
        }
        yield compare(f"Pixels of {width} x {height} to {SIDE} x {SIDE}", variants, settings, rounds=51)


def _pillow(pixels: np.ndarray) -> np.ndarray:
    """Resizes as `bilinear` did until November 2026; a third of the pixels are one level below OpenCV's."""
    image = Image.fromarray(pixels)
    whole = (0, 0, image.width, image.height)
    small = image.transform((SIDE, SIDE), Image.Transform.EXTENT, whole, Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))
