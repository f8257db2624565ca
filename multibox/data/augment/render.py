"""Apply the random numbers of one sample: a single crop and resize of the decoded image, and its boxes to match."""

from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from multibox.data.augment.color import change_colors
from multibox.data.augment.params import AugmentParams
from multibox.data.sample import Sample
from multibox.images import decode_image


class Augmented(NamedTuple):
    """An augmented image with its objects, as the network is trained on them.

    Attributes:
        image: Pixels at the network's input size.
        boxes: Boxes in corner form, normalized by the size of the augmented image.
        labels: Indices into the class names of the data set.
    """

    image: UInt8[np.ndarray, "3 height width"]
    boxes: Float[np.ndarray, "objects 4"]
    labels: Int[np.ndarray, " objects"]


def render(
    sample: Sample, params: AugmentParams, *, height: int, width: int, margin: tuple[float, float, float]
) -> Augmented:
    """Returns the augmented image, and the objects whose center is in the window, clipped to it.

    Crowd regions are left out. The window moves by a fraction of a pixel, so that whole pixels of the original image
    become whole pixels of the augmented one.

    Args:
        sample: The image and its objects.
        params: The random numbers to apply.
        height: Height of the network input in pixels.
        width: Width of the network input in pixels.
        margin: Color outside the image: the mean that the network subtracts.
    """
    image = np.empty((3, height, width), np.uint8)
    image[:] = np.array([round(value) for value in margin], np.uint8)[:, None, None]
    window = params.window
    left, top, right, bottom = window.tolist()
    if max(left, top) < 1 and min(right, bottom) > 0:  # a crop of an expanded image may show nothing but margin
        at_least = ceil(height / (bottom - top)), ceil(width / (right - left))
        pixels = decode_image(sample.image, at_least=at_least).pixels
        x, columns, (left, right) = _whole_pixels(left, right, pixels.shape[1], width)
        y, rows, (top, bottom) = _whole_pixels(top, bottom, pixels.shape[0], height)
        window = np.array([left, top, right, bottom])
        part = _resize(pixels[y.start : y.stop, x.start : x.stop], len(rows), len(columns), params.interpolation)
        if params.flip:
            part = part[:, ::-1]
            columns = range(width - columns.stop, width - columns.start)
        color_first = np.ascontiguousarray(part.transpose(2, 0, 1))
        image[:, rows.start : rows.stop, columns.start : columns.stop] = change_colors(color_first, params.colors)
    boxes, kept = crop_boxes(normalized_boxes(sample), params._replace(window=window))
    return Augmented(image, boxes, sample.truth.labels[~sample.truth.crowd][kept])


def crop_boxes(
    boxes: Float[np.ndarray, "objects 4"], params: AugmentParams
) -> tuple[Float[np.ndarray, "kept 4"], Bool[np.ndarray, " objects"]]:
    """Returns the boxes in the window, normalized by the window, and a mask of the boxes that were kept.

    A box is kept if its center lies in the window (the Caffe code's emit constraint), and is clipped to the window.
    """
    low, high = params.window[:2], params.window[2:]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    kept = ((center >= low) & (center <= high)).all(axis=1)
    cropped = (boxes[kept].reshape(-1, 2, 2) - low) / (high - low)
    cropped = cropped.clip(0, 1).reshape(-1, 4)
    if params.flip:
        cropped[:, [0, 2]] = 1 - cropped[:, [2, 0]]
    return cropped.astype(np.float32), kept


def normalized_boxes(sample: Sample) -> Float[np.ndarray, "objects 4"]:
    """Returns the boxes that are trained on (no crowd regions), normalized by the size of the image."""
    sides = np.array([sample.width, sample.height] * 2, dtype=np.float64)
    boxes: Float[np.ndarray, "objects 4"] = sample.truth.boxes[~sample.truth.crowd] / sides
    return boxes


def _whole_pixels(low: float, high: float, pixels: int, wanted: int) -> tuple[range, range, tuple[float, float]]:
    """Rounds the window to whole pixels along one axis.

    Args:
        low: Start of the window, normalized by the size of the original image.
        high: End of the window, normalized by the size of the original image.
        pixels: Number of pixels of the original image along this axis.
        wanted: Number of pixels of the augmented image along this axis.

    Returns:
        The visible pixels of the original image, the pixels of the augmented image that show them, and the window that
        corresponds exactly to these two ranges.
    """
    first = min(round(max(low, 0) * pixels), pixels - 1)
    seen = range(first, max(round(min(high, 1) * pixels), first + 1))
    scale = wanted / (high - low)
    start = min(round(max(-low, 0) * scale), wanted - 1)
    filled = range(start, max(round((min(high, 1) - low) * scale), start + 1))
    pixel = len(seen) / len(filled) / pixels  # side of an augmented pixel, as a fraction of the original image
    begin = seen.start / pixels - filled.start * pixel
    return seen, filled, (begin, begin + wanted * pixel)


def _resize(
    pixels: UInt8[np.ndarray, "rows columns 3"], height: int, width: int, interpolation: str
) -> UInt8[np.ndarray, "height width 3"]:
    """Resizes the pixels with Pillow's filters; for three of them torch has faster kernels."""
    larger = height >= len(pixels) and width >= pixels.shape[1]
    if interpolation == "nearest" or (interpolation == "box" and larger):  # the two are then equal
        rows, columns = (
            ((np.arange(wanted) + 0.5) * (count / wanted)).astype(np.intp)
            for wanted, count in zip((height, width), pixels.shape[:2], strict=True)
        )
        values = (columns[:, None] * 3 + np.arange(3)).ravel()  # numpy takes single values faster than whole pixels
        part: UInt8[np.ndarray, "height width 3"] = pixels[rows].reshape(height, -1).take(values, axis=1)
        return part.reshape(height, width, 3)
    if interpolation == "box":
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    import torch

    if interpolation == "lanczos" and torch.__version__ < "2.12":  # without that kernel
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    channels_last = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(channels_last, (height, width), mode=interpolation, antialias=True)
    part = resized[0].permute(1, 2, 0).numpy()
    return part
