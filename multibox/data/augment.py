"""The paper's augmentation (section 2.2 and the Caffe code): color, expand, crop by seven samplers, resize, flip.

Everything random is drawn first, as numbers (`draw`), and then applied with one crop and resize of the decoded image
(`apply`, which needs torch). The colors are changed last, on the small image, and only where the image is.
"""

from dataclasses import dataclass
from math import ceil
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int16, UInt8
from msgspec import Meta
from PIL import Image

from multibox.boxes import box_iou
from multibox.checks import Fraction, check_fields
from multibox.data.sample import Sample
from multibox.images import open_pixels

Interpolation = Literal["bilinear", "box", "nearest", "bicubic", "lanczos"]

INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
"""Stand-ins for OpenCV's linear, area, nearest, cubic and Lanczos4; all but nearest average where they make smaller."""

MIN_OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the samplers 1 to 5: some object must overlap the crop by at least this."""

TRIALS = 50
"""How often a sampler tries to draw a crop that meets its condition."""


@dataclass(frozen=True)
class Augmentation:
    """How far each random change goes; the defaults are the Caffe code's.

    Attributes:
        color_probability: Of each of the four changes of color.
        brightness: Added to the pixels: up to this, up or down (of 255).
        contrast: Factor on the pixels: from 1 - this to 1 + this.
        saturation: The same for the saturation of HSV.
        hue: Added to the hue: up to this many degrees, either way; at most 60.
        expand_probability: Of placing the image on a larger canvas of the mean color.
        max_expansion: Of the canvas's sides, as a multiple of the image's.
        crop_probability: Of cropping by the seven samplers.
        flip_probability: Of swapping left and right.
        interpolations: One is drawn for each resize.
    """

    color_probability: Fraction = 0.5
    brightness: Annotated[float, Meta(ge=0, le=255, description="from 0 to 255")] = 32.0
    contrast: Fraction = 0.5
    saturation: Fraction = 0.5
    hue: Annotated[float, Meta(ge=0, le=60, description="from 0 to 60 degrees")] = 36.0
    expand_probability: Fraction = 0.5
    max_expansion: Annotated[float, Meta(ge=1, le=100, description="from 1 to 100")] = 4.0
    crop_probability: Fraction = 1.0
    flip_probability: Fraction = 0.5
    interpolations: Annotated[tuple[Interpolation, ...], Meta(min_length=1, description="at least one")] = (
        INTERPOLATIONS
    )

    def __post_init__(self) -> None:
        check_fields(self)


class Colors(NamedTuple):
    """Changes of color; 0 and 1 leave the image as it is.

    Attributes:
        brightness: Added to the pixels.
        contrast: Factor on the pixels.
        saturation: Factor on the saturation of HSV.
        hue: Added to the hue, in degrees.
        contrast_last: Whether contrast is changed after saturation and hue, or before.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    contrast_last: bool


class Draw(NamedTuple):
    """All that is random about one sample.

    Attributes:
        colors: Changes of color.
        expansion: The canvas's sides as a multiple of the image's; 1 where it is not expanded.
        sampler: Which of the seven gave the crop: 0 the whole image, 1 to 5 those of `MIN_OVERLAPS`, 6 the free one.
        window: What is seen, corner form, as fractions of the image: below 0 and above 1 there is only margin.
        flip: Whether left and right are swapped.
        interpolation: One of `INTERPOLATIONS`.
    """

    colors: Colors
    expansion: float
    sampler: int
    window: Float[np.ndarray, " 4"]
    flip: bool
    interpolation: str


class Augmented(NamedTuple):
    """An image as the network is trained on it.

    Attributes:
        image: Of the network's input size.
        boxes: Corner form, as fractions of that image.
        labels: As in the data set.
    """

    image: UInt8[np.ndarray, "3 height width"]
    boxes: Float[np.ndarray, "objects 4"]
    labels: Int[np.ndarray, " objects"]


def draw(rng: np.random.Generator, boxes: Float[np.ndarray, "objects 4"], augmentation: Augmentation) -> Draw:
    """Draws one sample's changes.

    Args:
        rng: Is advanced.
        boxes: The objects, corner form, as fractions of the image.
        augmentation: How far each change goes.
    """
    colors = _draw_colors(rng, augmentation)

    expansion, left, top = 1.0, 0.0, 0.0
    if rng.random() < augmentation.expand_probability:
        expansion = rng.uniform(1, augmentation.max_expansion)
        left, top = rng.uniform(0, expansion - 1, size=2)
    corner = np.array([left, top, left, top])

    sampler, crop = 0, np.array([0.0, 0.0, 1.0, 1.0])
    if rng.random() < augmentation.crop_probability:
        sampler, crop = draw_crop(rng, (boxes + corner) / expansion)
    return Draw(
        colors=colors,
        expansion=expansion,
        sampler=sampler,
        window=crop * expansion - corner,
        flip=bool(rng.random() < augmentation.flip_probability),
        interpolation=augmentation.interpolations[rng.integers(len(augmentation.interpolations))],
    )


def draw_crop(rng: np.random.Generator, boxes: Float[np.ndarray, "objects 4"]) -> tuple[int, Float[np.ndarray, " 4"]]:
    """A sampler and its crop: one of those of the seven that succeed, all of them equally likely.

    The first is the whole image, five ask for an overlap with at least one object, the last takes any crop. An image
    without objects is only ever taken whole. (The paper's text lets crops be 0.1 of the image, its code 0.3.)
    """
    whole = (0, np.array([0.0, 0.0, 1.0, 1.0]))
    if len(boxes) == 0:
        return whole
    # in a random order the first that succeeds is a fair draw of all that do, and the rest need not be tried
    for sampler in rng.permutation(len(MIN_OVERLAPS) + 2).tolist():
        if sampler == 0:
            break
        if sampler > len(MIN_OVERLAPS):
            return sampler, random_crops(rng, 1)[0]
        crops = random_crops(rng, TRIALS)
        meets = box_iou(crops, boxes).max(axis=1) >= MIN_OVERLAPS[sampler - 1]
        if meets.any():
            return sampler, crops[meets.argmax()]
    return whole


def random_crops(rng: np.random.Generator, count: int) -> Float[np.ndarray, "count 4"]:
    """Crops of scale 0.3 to 1 and aspect ratio 1/2 to 2, as far as they fit, at uniformly random places.

    The ratio is relative to the image's own: all in fractions of the image.
    """
    scale = rng.uniform(0.3, 1.0, count)
    ratio = rng.uniform(np.maximum(0.5, scale**2), np.minimum(2.0, scale**-2))
    root = np.sqrt(ratio)
    size = np.stack([scale * root, scale / root])
    corner = rng.uniform(0, 1, (2, count)) * (1 - size)
    return np.concatenate([corner, corner + size]).T


def apply(sample: Sample, drawn: Draw, *, height: int, width: int, margin: tuple[float, float, float]) -> Augmented:
    """The sample as drawn, `height` x `width`, and the objects whose center is in the window, clipped to it.

    Crowd regions are left out. `margin` is the color outside the image: the mean that the network takes off. The
    window is moved a little, so that whole pixels of the image become whole pixels of the image.
    """
    image, window = _window(sample, drawn, height, width, margin)
    boxes, kept = see_boxes(fractions(sample), drawn._replace(window=window))
    return Augmented(image, boxes, sample.truth.labels[~sample.truth.crowd][kept])


def see_boxes(
    boxes: Float[np.ndarray, "objects 4"], drawn: Draw
) -> tuple[Float[np.ndarray, "kept 4"], Bool[np.ndarray, " objects"]]:
    """The boxes in the window, as fractions of it, and which of them those are.

    A box is kept when its center lies in the window (the Caffe code's emit constraint), and is clipped to it.
    """
    low, high = drawn.window[:2], drawn.window[2:]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    kept = ((center >= low) & (center <= high)).all(axis=1)
    seen = (boxes[kept].reshape(-1, 2, 2) - low) / (high - low)
    seen = seen.clip(0, 1).reshape(-1, 4)
    if drawn.flip:
        seen[:, [0, 2]] = 1 - seen[:, [2, 0]]
    return seen.astype(np.float32), kept


def fractions(sample: Sample) -> Float[np.ndarray, "objects 4"]:
    """The sample's boxes that are trained on (no crowd regions), as fractions of the image."""
    sides = np.array([sample.width, sample.height] * 2, dtype=np.float64)
    boxes: Float[np.ndarray, "objects 4"] = sample.truth.boxes[~sample.truth.crowd] / sides
    return boxes


def _draw_colors(rng: np.random.Generator, augmentation: Augmentation) -> Colors:
    change = rng.random(4) < augmentation.color_probability
    amount = rng.uniform(-1, 1, 4)
    return Colors(
        brightness=change[0] * amount[0] * augmentation.brightness,
        contrast=1 + change[1] * amount[1] * augmentation.contrast,
        saturation=1 + change[2] * amount[2] * augmentation.saturation,
        hue=change[3] * amount[3] * augmentation.hue,
        contrast_last=bool(rng.random() < 0.5),
    )


def _window(
    sample: Sample, drawn: Draw, height: int, width: int, margin: tuple[float, float, float]
) -> tuple[UInt8[np.ndarray, "3 height width"], Float[np.ndarray, " 4"]]:
    """The one crop and resize: of the part of the window that the image fills, straight to its place in the image.

    With the image comes the window that it shows, which is `drawn.window` in whole pixels.
    """
    image = np.empty((3, height, width), np.uint8)
    image[:] = np.array([round(value) for value in margin], np.uint8)[:, None, None]
    left, top, right, bottom = drawn.window.tolist()
    if max(left, top) >= 1 or min(right, bottom) <= 0:  # a crop of an expanded image may see nothing but margin
        return image, drawn.window

    pixels = open_pixels(sample.image, at_least=(ceil(height / (bottom - top)), ceil(width / (right - left))))
    x, columns, (left, right) = _whole_pixels(left, right, pixels.shape[1], width)
    y, rows, (top, bottom) = _whole_pixels(top, bottom, pixels.shape[0], height)
    part = _resize(pixels[y.start : y.stop, x.start : x.stop], len(rows), len(columns), drawn.interpolation)
    if drawn.flip:
        part = part[:, ::-1]
        columns = range(width - columns.stop, width - columns.start)
    color_first = np.ascontiguousarray(part.transpose(2, 0, 1))
    image[:, rows.start : rows.stop, columns.start : columns.stop] = change_colors(color_first, drawn.colors)
    return image, np.array([left, top, right, bottom])


def _whole_pixels(low: float, high: float, pixels: int, wanted: int) -> tuple[range, range, tuple[float, float]]:
    """Along one side: which pixels of the image are seen, which of the image they become, and the window of that.

    Args:
        low: Where the window begins, as a fraction of the image.
        high: Where it ends.
        pixels: Of the image.
        wanted: Pixels of the image.
    """
    first = min(round(max(low, 0) * pixels), pixels - 1)
    seen = range(first, max(round(min(high, 1) * pixels), first + 1))
    scale = wanted / (high - low)
    start = min(round(max(-low, 0) * scale), wanted - 1)
    filled = range(start, max(round((min(high, 1) - low) * scale), start + 1))
    pixel = len(seen) / len(filled) / pixels  # the side of a pixel of the image, as a fraction of the image
    begin = seen.start / pixels - filled.start * pixel
    return seen, filled, (begin, begin + wanted * pixel)


def _resize(
    pixels: UInt8[np.ndarray, "rows columns 3"], height: int, width: int, interpolation: str
) -> UInt8[np.ndarray, "height width 3"]:
    """The whole of it by Pillow's filters, for three of which torch has the faster kernels."""
    larger = height >= len(pixels) and width >= pixels.shape[1]
    if interpolation == "nearest" or (interpolation == "box" and larger):  # which are then the same
        rows, columns = (
            ((np.arange(wanted) + 0.5) * (count / wanted)).astype(np.intp)
            for wanted, count in zip((height, width), pixels.shape[:2], strict=True)
        )
        values = (columns[:, None] * 3 + np.arange(3)).ravel()  # numpy is slow in taking pixels, less so single values
        part: UInt8[np.ndarray, "height width 3"] = pixels[rows].reshape(height, -1).take(values, axis=1)
        return part.reshape(height, width, 3)
    if interpolation == "box":
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    import torch

    channels_last = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(channels_last, (height, width), mode=interpolation, antialias=True)
    part = resized[0].permute(1, 2, 0).numpy()
    return part


def change_colors(pixels: UInt8[np.ndarray, "3 height width"], colors: Colors) -> UInt8[np.ndarray, "3 height width"]:
    """The pixels with their colors changed, in 8 bits that saturate at each step, as in the Caffe code.

    Saturation and hue are those of HSV, but without its rounding; they are changed in one step.
    """
    pixels = _add(pixels, round(colors.brightness))
    if not colors.contrast_last:
        pixels = _multiply(pixels, colors.contrast)
    pixels = _saturate_and_turn(pixels, colors.saturation, colors.hue)
    if colors.contrast_last:
        pixels = _multiply(pixels, colors.contrast)
    return pixels


def _add(pixels: UInt8[np.ndarray, "3 height width"], amount: int) -> UInt8[np.ndarray, "3 height width"]:
    if amount == 0:
        return pixels
    change = min(abs(amount), 255)
    # numpy's `minimum` and `maximum` are many times faster with a whole array than with a single number
    added: UInt8[np.ndarray, "3 height width"]
    if amount > 0:
        added = np.minimum(pixels, np.full_like(pixels, 255 - change)) + np.uint8(change)
    else:
        added = np.maximum(pixels, np.full_like(pixels, change)) - np.uint8(change)
    return added


def _multiply(pixels: UInt8[np.ndarray, "3 height width"], factor: float) -> UInt8[np.ndarray, "3 height width"]:
    if factor == 1:
        return pixels
    product = pixels.astype(np.float32)
    product *= np.float32(factor)
    np.rint(product, out=product)
    np.minimum(product, np.full_like(product, 255), out=product)
    return product.astype(np.uint8)


def _saturate_and_turn(
    pixels: UInt8[np.ndarray, "3 height width"], saturation: float, hue: float
) -> UInt8[np.ndarray, "3 height width"]:
    """The pixels with HSV's saturation multiplied (up to 1) and its hue turned, at the same value.

    In HSV each color lies below the value (the largest of the three) by some part of the chroma (the largest less the
    smallest); which parts these are says the hue. The saturation is a factor on how far they lie below.
    """
    if saturation == 1 and hue == 0:
        return pixels
    red, green, blue = pixels
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    factor: np.float32 | Float32[np.ndarray, "height width"] = np.float32(saturation)
    if saturation > 1:
        factor = np.clip(value / (chroma + (chroma == 0)).astype(np.float32), 0, factor)
    if hue == 0:
        below = (value - pixels) * factor
    else:
        below = _turn(pixels, value, chroma, hue) * (factor / np.float32(FRACTIONS))
    np.rint(below, out=below)
    changed: UInt8[np.ndarray, "3 height width"] = value - below.astype(np.uint8)
    return changed


FRACTIONS = 16
"""Turning the hue counts in whole numbers of 16 bits, in this part of a gray level."""


def _turn(
    pixels: UInt8[np.ndarray, "3 height width"],
    value: UInt8[np.ndarray, "height width"],
    chroma: UInt8[np.ndarray, "height width"],
    hue: float,
) -> Int16[np.ndarray, "3 height width"]:
    """How far each color lies below the value when the hue is turned by up to 60 degrees, in `FRACTIONS`.

    All is a multiple of the chroma, so that nothing is divided by it and gray needs no case of its own. `way` is how
    far the hue is from red, either way round: 1 at yellow and magenta, 2 at green and blue, 3 at cyan, where both ways
    meet. The color that one meets first on the way (green or blue) is `near`, the other `far`.
    """
    red, green, blue = pixels
    red_part = chroma - (value - red)
    apart = np.maximum(green, blue) - np.minimum(green, blue)
    way = chroma.astype(np.int16)
    way *= 3
    way -= red_part
    way -= apart
    least = np.minimum(chroma - apart, red_part)
    way -= least
    way -= least
    way *= FRACTIONS

    through_blue = np.negative((green < blue).view(np.int8)).astype(np.int16)  # all bits set, or none
    turn = np.rint(chroma * np.float32(hue / 60 * FRACTIONS)).astype(np.int16)
    turn ^= through_blue
    turn -= through_blue  # the other way round it counts the other way
    way += turn
    zero = np.zeros_like(way)
    if hue < 0:
        np.maximum(way, zero, out=way)  # OpenCV's sum stops at 0 (red), but may pass the end of the circle

    unit = chroma.astype(np.int16) * FRACTIONS
    below = np.empty((3, *way.shape), np.int16)
    red_below, near, far = below
    np.subtract(way, unit, out=red_below)
    np.subtract(2 * unit, np.abs(red_below), out=far)
    np.subtract(np.abs(way - 2 * unit), unit, out=near)
    np.maximum(below, zero, out=below)
    np.minimum(below, unit, out=below)
    swap = (near ^ far) & through_blue
    near ^= swap
    far ^= swap
    return below
