"""Writes opencv_resize.npz: pixels of `cv2.resize` with its default rule, INTER_LINEAR, at the sizes of `SIZES`.

pip install opencv-python-headless==5.0.0.93 (4.12.0.88 gives the same file; neither is needed to run the tests)
python -m tests.golden.opencv_resize
"""

from pathlib import Path

import numpy as np

SIZES = (
    ((375, 500), (300, 300)),  # a VOC image to SSD300's input
    ((31, 43), (31, 43)),  # equal: a copy
    ((64, 90), (32, 45)),  # exactly half, where OpenCV takes the mean of 2 x 2 pixels
    ((40, 62), (20, 50)),  # half in one direction only
    ((41, 63), (20, 31)),  # odd sides, just more than half
    ((97, 131), (13, 17)),  # much smaller: most pixels are skipped
    ((24, 32), (48, 64)),  # exactly twice
    ((11, 7), (90, 61)),  # much larger: blends with the border
    ((135, 240), (97, 120)),  # half in the other direction
    ((1, 23), (9, 6)),  # sides of 1 pixel
    ((23, 1), (6, 9)),
    ((1, 1), (5, 7)),
    ((31, 37), (1, 1)),
)
"""`(height, width)` of the source and of the result, in pixels."""

FILE = Path(__file__).with_suffix(".npz")


def source(height: int, width: int) -> np.ndarray:
    """Returns an image made by whole numbers alone: noise in red, a coarse pattern in green, a ramp in blue."""
    row, column = np.mgrid[:height, :width].astype(np.uint64)
    noise = (row * 73856093 ^ column * 19349663) * 2654435761 % 2**32 // 2**24
    pattern = (row // 9 + column // 5) % 2 * 255
    ramp = (row + column) % 256
    return np.stack([noise, pattern, ramp], axis=2).astype(np.uint8)


def key(size: tuple[int, int], to: tuple[int, int]) -> str:
    """Returns the name of a result in the file."""
    return "{}x{} to {}x{}".format(*size, *to)


def main() -> None:
    import cv2

    resized = {key(size, to): cv2.resize(source(*size), to[::-1]) for size, to in SIZES}
    np.savez_compressed(FILE, **{name: pixels.transpose(2, 0, 1).copy() for name, pixels in resized.items()})


if __name__ == "__main__":
    main()
