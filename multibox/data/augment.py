"""The paper's augmentation (section 2.2 and the Caffe code): colour, expand, crop by seven samplers, resize, mirror.

Everything random is drawn first, as numbers (`draw`), and then applied with one crop and resize of the decoded picture
(`apply`). The colours are changed last, on the small picture, and only where the picture is.
"""

from dataclasses import dataclass
from math import ceil, floor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from multibox.boxes import box_iou
from multibox.data.sample import Sample
from multibox.pictures import to_array

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's stand-ins for OpenCV's nearest, area, linear, cubic and Lanczos4; these average where they make smaller."""

MIN_OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the samplers 1 to 5: some object must overlap the crop by at least this."""

TRIALS = 50
"""How often a sampler tries to draw a crop that meets its condition."""


@dataclass(frozen=True)
class Augmentation:
    """How far each random change goes; the defaults are the Caffe code's.

    Attributes:
        colour_probability: Of each of the four changes of colour.
        brightness: Added to the pixels: up to this, up or down (of 255).
        contrast: Factor on the pixels: from 1 - this to 1 + this.
        saturation: The same for the saturation of HSV.
        hue: Added to the hue: up to this many degrees, either way.
        expand_probability: Of placing the picture on a larger canvas of the mean colour.
        max_expansion: Of the canvas's sides, as a multiple of the picture's.
        crop_probability: Of cropping by the seven samplers.
        mirror_probability: Of swapping left and right.
        interpolations: One is drawn for each resize.
    """

    colour_probability: float = 0.5
    brightness: float = 32.0
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 36.0
    expand_probability: float = 0.5
    max_expansion: float = 4.0
    crop_probability: float = 1.0
    mirror_probability: float = 0.5
    interpolations: tuple[str, ...] = ("bilinear", "box", "nearest", "bicubic", "lanczos")


class Colours(NamedTuple):
    """Changes of colour; 0 and 1 leave the picture as it is.

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
        colours: Changes of colour.
        expansion: The canvas's sides as a multiple of the picture's; 1 where it is not expanded.
        sampler: Which of the seven gave the crop: 0 the whole picture, 1 to 5 those of `MIN_OVERLAPS`, 6 the free one.
        window: What is seen, corner form, as fractions of the picture: below 0 and above 1 there is only margin.
        mirror: Whether left and right are swapped.
        interpolation: A key of `FILTERS`.
    """

    colours: Colours
    expansion: float
    sampler: int
    window: Float[np.ndarray, " 4"]
    mirror: bool
    interpolation: str


class Augmented(NamedTuple):
    """A picture as the network is trained on it.

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
        boxes: The objects, corner form, as fractions of the picture.
        augmentation: How far each change goes.
    """
    colours = _draw_colours(rng, augmentation)

    expansion, left, top = 1.0, 0.0, 0.0
    if rng.random() < augmentation.expand_probability:
        expansion = rng.uniform(1, augmentation.max_expansion)
        left, top = rng.uniform(0, expansion - 1, size=2)
    corner = np.array([left, top, left, top])

    sampler, crop = 0, np.array([0.0, 0.0, 1.0, 1.0])
    if rng.random() < augmentation.crop_probability:
        sampler, crop = draw_crop(rng, (boxes + corner) / expansion)
    return Draw(
        colours=colours,
        expansion=expansion,
        sampler=sampler,
        window=crop * expansion - corner,
        mirror=bool(rng.random() < augmentation.mirror_probability),
        interpolation=augmentation.interpolations[rng.integers(len(augmentation.interpolations))],
    )


def draw_crop(rng: np.random.Generator, boxes: Float[np.ndarray, "objects 4"]) -> tuple[int, Float[np.ndarray, " 4"]]:
    """A sampler and its crop: each of the seven is tried, and one of those that succeeded is drawn.

    The first is the whole picture, five ask for an overlap with at least one object, the last takes any crop. A picture
    without objects is only ever taken whole. (The paper's text lets crops be 0.1 of the picture, its code 0.3.)
    """
    found = [(0, np.array([0.0, 0.0, 1.0, 1.0]))]
    if len(boxes):
        for sampler, min_overlap in enumerate((*MIN_OVERLAPS, 0.0), start=1):
            crops = random_crops(rng, TRIALS if min_overlap else 1)
            meets = (box_iou(crops, boxes.astype(np.float64)) >= min_overlap).any(axis=1)
            if meets.any():
                found.append((sampler, crops[np.argmax(meets)]))
    return found[rng.integers(len(found))]


def random_crops(rng: np.random.Generator, count: int) -> Float[np.ndarray, "count 4"]:
    """Crops of scale 0.3 to 1 and aspect ratio 1/2 to 2, as far as they fit, at uniformly random places.

    The ratio is relative to the picture's own: all in fractions of the picture.
    """
    scale = rng.uniform(0.3, 1.0, count)
    ratio = rng.uniform(np.maximum(0.5, scale**2), np.minimum(2.0, scale**-2))
    size = np.stack([scale * np.sqrt(ratio), scale / np.sqrt(ratio)], axis=1)
    corner = rng.uniform(0, 1, (count, 2)) * (1 - size)
    return np.concatenate([corner, corner + size], axis=1)


def apply(sample: Sample, drawn: Draw, *, height: int, width: int, margin: tuple[float, float, float]) -> Augmented:
    """The sample as drawn, `height` x `width`, and the objects whose centre is in the window, clipped to it.

    Crowd regions are left out. `margin` is the colour outside the picture: the mean that the network takes off.
    """
    image = _window(sample, drawn, height, width, margin)
    boxes, kept = see_boxes(fractions(sample), drawn)
    return Augmented(to_array(image), boxes, sample.truth.labels[~sample.truth.crowd][kept])


def see_boxes(
    boxes: Float[np.ndarray, "objects 4"], drawn: Draw
) -> tuple[Float[np.ndarray, "kept 4"], Bool[np.ndarray, " objects"]]:
    """The boxes in the window, as fractions of it, and which of them those are.

    A box is kept when its centre lies in the window (the Caffe code's emit constraint), and is clipped to it.
    """
    low, high = drawn.window[:2], drawn.window[2:]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    kept = ((center >= low) & (center <= high)).all(axis=1)
    seen = (boxes[kept] - np.tile(low, 2)) / np.tile(high - low, 2)
    seen = seen.clip(0, 1)
    if drawn.mirror:
        seen[:, [0, 2]] = 1 - seen[:, [2, 0]]
    return seen.astype(np.float32), kept


def fractions(sample: Sample) -> Float[np.ndarray, "objects 4"]:
    """The sample's boxes that are trained on (no crowd regions), as fractions of the picture."""
    sides = np.array([sample.width, sample.height] * 2, dtype=np.float64)
    boxes: Float[np.ndarray, "objects 4"] = sample.truth.boxes[~sample.truth.crowd] / sides
    return boxes


def _draw_colours(rng: np.random.Generator, augmentation: Augmentation) -> Colours:
    change = rng.random(4) < augmentation.colour_probability
    amount = rng.uniform(-1, 1, 4)
    return Colours(
        brightness=change[0] * amount[0] * augmentation.brightness,
        contrast=1 + change[1] * amount[1] * augmentation.contrast,
        saturation=1 + change[2] * amount[2] * augmentation.saturation,
        hue=change[3] * amount[3] * augmentation.hue,
        contrast_last=bool(rng.random() < 0.5),
    )


def _window(sample: Sample, drawn: Draw, height: int, width: int, margin: tuple[float, float, float]) -> Image.Image:
    """The one crop and resize: of the part of the window that the picture fills, straight to its place in the image."""
    left, top, right, bottom = drawn.window
    scale_x, scale_y = width / (right - left), height / (bottom - top)
    # whole pixels of the image that the picture covers
    x_min, x_max = ceil(max(-left, 0) * scale_x - 1e-6), floor(min(1 - left, right - left) * scale_x + 1e-6)
    y_min, y_max = ceil(max(-top, 0) * scale_y - 1e-6), floor(min(1 - top, bottom - top) * scale_y + 1e-6)
    image = Image.new("RGB", (width, height), tuple(round(value) for value in margin))
    if x_max <= x_min or y_max <= y_min:  # a crop of an expanded picture may see nothing but margin
        return image

    picture = sample.open(at_least=(ceil(scale_y), ceil(scale_x)))
    part = picture.resize(
        (x_max - x_min, y_max - y_min),
        FILTERS[drawn.interpolation],
        box=(
            max(left + x_min / scale_x, 0) * picture.width,
            max(top + y_min / scale_y, 0) * picture.height,
            min(left + x_max / scale_x, 1) * picture.width,
            min(top + y_max / scale_y, 1) * picture.height,
        ),
    )
    image.paste(change_colours(part, drawn.colours), (x_min, y_min))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if drawn.mirror else image


def change_colours(picture: Image.Image, colours: Colours) -> Image.Image:
    """The picture with its colours changed, in 8 bits that saturate at each step, as in the Caffe code."""
    values = _scale(np.arange(256) + colours.brightness)
    if not colours.contrast_last:
        values = _scale(values * colours.contrast)
    picture = _look_up(picture, values)
    if colours.saturation != 1 or colours.hue != 0:
        hue, saturation, value = picture.convert("HSV").split()
        if colours.hue != 0:
            # OpenCV's sum stops at 0 (red) but may pass the end of the circle; Pillow's circle has 255 steps
            turned = np.maximum(np.arange(256) + round(colours.hue * 255 / 360), 0) % 255
            hue = hue.point(turned.tolist())
        if colours.saturation != 1:
            saturation = saturation.point(_scale(np.arange(256) * colours.saturation).tolist())
        picture = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    if colours.contrast_last:
        picture = _look_up(picture, _scale(np.arange(256) * colours.contrast))
    return picture


def _scale(values: Float[np.ndarray, " 256"]) -> Int[np.ndarray, " 256"]:
    """The values as whole numbers of 8 bits, which stop at 0 and 255."""
    whole: Int[np.ndarray, " 256"] = np.clip(np.rint(values), 0, 255).astype(np.int64)
    return whole


def _look_up(picture: Image.Image, values: Int[np.ndarray, " 256"]) -> Image.Image:
    if np.array_equal(values, np.arange(256)):
        return picture
    return picture.point(values.tolist() * 3)
