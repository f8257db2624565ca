"""The randomness of augmentation: how far each change may go, and the numbers drawn for one sample."""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from msgspec import Meta

from multibox.boxes import box_iou
from multibox.checks import Fraction, check_fields
from multibox.data.augment.color import Colors

Interpolation = Literal["bilinear", "box", "nearest", "bicubic", "lanczos"]

INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
"""Stand-ins for OpenCV's linear, area, nearest, cubic and Lanczos4. All except nearest average when they shrink."""

MIN_OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""The IoU with at least one object that samplers 1 to 5 require of a crop."""

TRIALS = 50
"""The number of crops that a sampler tries before it gives up."""


@dataclass(frozen=True)
class Augmentation:
    """The limits of each random change. The defaults are the Caffe code's.

    Attributes:
        color_probability: Probability of each of the four changes of color.
        brightness: Largest value added to or subtracted from the pixels, which go from 0 to 255.
        contrast: Largest deviation from 1 of the factor on the pixels.
        saturation: Largest deviation from 1 of the factor on the saturation of HSV.
        hue: Largest change of the hue in degrees, in either direction; at most 60.
        expand_probability: Probability of placing the image on a larger canvas of the mean color.
        max_expansion: Largest side of the canvas, as a multiple of the side of the image.
        crop_probability: Probability of cropping by the seven samplers.
        flip_probability: Probability of a horizontal flip.
        interpolations: Interpolation methods, one of which is drawn for each sample.
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


class AugmentParams(NamedTuple):
    """All random numbers of one augmented sample.

    Attributes:
        colors: Changes of color.
        expansion: Side of the canvas as a multiple of the side of the image; 1 if the image is not expanded.
        sampler: The sampler that gave the crop: 0 is the whole image, 1 to 5 are those of `MIN_OVERLAPS`, 6 accepts any
            crop.
        window: The visible region in corner form, normalized by the size of the image. Everything outside 0 to 1 is
            margin.
        flip: Whether the image is flipped horizontally.
        interpolation: One of `INTERPOLATIONS`.
    """

    colors: Colors
    expansion: float
    sampler: int
    window: Float[np.ndarray, " 4"]
    flip: bool
    interpolation: str


def sample_params(
    rng: np.random.Generator, boxes: Float[np.ndarray, "objects 4"], augmentation: Augmentation
) -> AugmentParams:
    """Draws the random numbers of one sample.

    Args:
        rng: Random generator; its state advances.
        boxes: Boxes of the objects in corner form, normalized by the size of the image.
        augmentation: How far each change may go.
    """
    change = rng.random(4) < augmentation.color_probability
    amount = rng.uniform(-1, 1, 4)
    colors = Colors(
        brightness=change[0] * amount[0] * augmentation.brightness,
        contrast=1 + change[1] * amount[1] * augmentation.contrast,
        saturation=1 + change[2] * amount[2] * augmentation.saturation,
        hue=change[3] * amount[3] * augmentation.hue,
        contrast_last=bool(rng.random() < 0.5),
    )

    expansion, left, top = 1.0, 0.0, 0.0
    if rng.random() < augmentation.expand_probability:
        expansion = rng.uniform(1, augmentation.max_expansion)
        left, top = rng.uniform(0, expansion - 1, size=2)
    corner = np.array([left, top, left, top])

    sampler, crop = 0, np.array([0.0, 0.0, 1.0, 1.0])
    if rng.random() < augmentation.crop_probability:
        sampler, crop = sample_crop(rng, (boxes + corner) / expansion)
    return AugmentParams(
        colors=colors,
        expansion=expansion,
        sampler=sampler,
        window=crop * expansion - corner,
        flip=bool(rng.random() < augmentation.flip_probability),
        interpolation=augmentation.interpolations[rng.integers(len(augmentation.interpolations))],
    )


def sample_crop(rng: np.random.Generator, boxes: Float[np.ndarray, "objects 4"]) -> tuple[int, Float[np.ndarray, " 4"]]:
    """Draws one of the seven samplers that succeed, all equally likely. Returns its number and its crop.

    The first sampler takes the whole image, five require a minimum IoU with at least one object, and the last takes any
    crop. An image without objects is always taken whole. (The paper's text allows crops from 0.1 of the image, its
    code from 0.3.)
    """
    whole = (0, np.array([0.0, 0.0, 1.0, 1.0]))
    if len(boxes) == 0:
        return whole
    # the first success in a random order is a fair draw of all samplers that succeed, without trying the others
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
    """Returns crops of scale 0.3 to 1 and aspect ratio 1/2 to 2, as far as they fit, at uniformly random positions.

    Crops are normalized by the size of the image, so the aspect ratio is relative to that of the image.
    """
    scale = rng.uniform(0.3, 1.0, count)
    ratio = rng.uniform(np.maximum(0.5, scale**2), np.minimum(2.0, scale**-2))
    root = np.sqrt(ratio)
    size = np.stack([scale * root, scale / root])
    corner = rng.uniform(0, 1, (2, count)) * (1 - size)
    return np.concatenate([corner, corner + size]).T
