"""Pixels: images that cannot be decoded, that look unlike the others, or that look like another one.

Each image is decoded once, at a reduced size where its format allows it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8, UInt64
from PIL import Image

from multibox.data.check import content_digest, content_size
from multibox.data.records import CheckedImage
from multibox.doctor.splits import shared
from multibox.doctor.survey import Finding, Survey

SIDE = 256
"""Long side in pixels of what brightness, contrast and sharpness are measured on."""

THUMBNAIL = 32
"""Side of the thumbnails that hashes are made from."""

HASH = 8
"""A hash has this number of frequencies in each direction, one bit each."""

NEAR = 6
"""Bits in which the hashes of two copies may differ."""

NEAR_PIXELS = 6.0
"""Gray levels by which the thumbnails of two copies may differ in the mean, brightness apart."""

PLAIN_DEVIATION = 12.0
"""Standard deviation in gray levels below which a thumbnail says too little to be compared."""

UNIFORM = 3.0
"""Standard deviation in gray levels below which there is nothing to see."""

FEWEST = 30
"""Images that are needed to call one an outlier."""

FAR = 5.0
"""Robust standard deviations from the median beyond which an image is an outlier."""

_CHUNK = 256
"""Number of images that are compared with all others at once."""


class _Look(NamedTuple):
    """What an image looks like.

    Attributes:
        brightness: Mean gray level, 0 to 255.
        contrast: Standard deviation of the gray levels.
        sharpness: Logarithm of the Laplacian's deviation, relative to the contrast.
        thumbnail: The whole image, squeezed to a square.
    """

    brightness: float
    contrast: float
    sharpness: float
    thumbnail: UInt8[np.ndarray, "side side"]


def find_in_pixels(survey: Survey, *, on_progress: Callable[[int, int], None] | None = None) -> Iterator[Finding]:
    """Yields what can be seen in the pixels only.

    Args:
        survey: The data set.
        on_progress: Called after each image with the number of images done and the number of all.
    """
    places = [(split.name, image) for split in survey.splits.values() for image in split]
    seen: list[tuple[str, CheckedImage, _Look]] = []
    with ThreadPoolExecutor() as pool:
        for number, ((split, image), look) in enumerate(zip(places, pool.map(_look, places), strict=True), start=1):
            if isinstance(look, str):
                yield Finding("image-damaged", str(image.stated.image), look, split)
            else:
                seen.append((split, image, look))
            if on_progress is not None:
                on_progress(number, len(places))
    yield from _outliers(seen)
    yield from _copies(seen)


def _look(place: tuple[str, CheckedImage]) -> _Look | str:
    """Returns what an image looks like, or why it cannot be decoded."""
    sample = place[1].sample
    try:
        gray = sample.open(at_least=(SIDE, SIDE)).convert("L")
    except (ValueError, OSError) as error:
        return str(error).removeprefix(f"{sample.image}: ")
    thumbnail = np.asarray(gray.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    gray.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(gray, np.float32)
    deviation = float(pixels.std())
    inner = pixels[1:-1, 1:-1]
    laplacian = 4 * inner - pixels[:-2, 1:-1] - pixels[2:, 1:-1] - pixels[1:-1, :-2] - pixels[1:-1, 2:]
    edges = float(laplacian.std()) if laplacian.size else 0.0
    return _Look(float(pixels.mean()), deviation, float(np.log((edges + 0.1) / (deviation + 1))), thumbnail)


def _outliers(seen: Sequence[tuple[str, CheckedImage, _Look]]) -> Iterator[Finding]:
    brightness, contrast, sharpness = (
        np.array([getattr(look, name) for _, _, look in seen], np.float64)
        for name in ("brightness", "contrast", "sharpness")
    )
    uniform = contrast < UNIFORM
    # an outlier must be far from the others and also odd by itself
    rules = {
        "image-uniform": (uniform, contrast, "standard deviation"),
        "image-dark": ((_distances(brightness) < -FAR) & (brightness < 50) & ~uniform, brightness, "mean gray level"),
        "image-bright": ((_distances(brightness) > FAR) & (brightness > 205) & ~uniform, brightness, "mean gray level"),
        "image-flat": ((_distances(contrast) < -FAR) & (contrast < 25) & ~uniform, contrast, "standard deviation"),
        "image-blurred": ((_distances(sharpness) < -FAR) & ~uniform, np.exp(sharpness), "sharpness"),
    }
    for kind, (rows, values, name) in rules.items():
        middle = float(np.median(values)) if len(values) else 0.0
        for place in np.flatnonzero(rows).tolist():
            split, image, _ = seen[place]
            value = f"{name} {values[place]:.3g}; the median is {middle:.3g}"
            yield Finding(kind, str(image.stated.image), value, split)


def _distances(values: Float[np.ndarray, " images"]) -> Float[np.ndarray, " images"]:
    """Returns how far each value is from the median, in robust standard deviations; 0 where there are few values."""
    if len(values) < FEWEST:
        return np.zeros(len(values))
    middle = np.median(values)
    deviation = 1.4826 * float(np.median(np.abs(values - middle)))
    return np.asarray((values - middle) / max(deviation, 1e-6))


def _copies(seen: Sequence[tuple[str, CheckedImage, _Look]]) -> Iterator[Finding]:
    """Yields images that look like another one, also if they are flipped or turned."""
    rows = [place for place, (_, _, look) in enumerate(seen) if look.thumbnail.std() >= PLAIN_DEVIATION]
    if len(rows) < 2:
        return
    thumbnails = np.stack([seen[place][2].thumbnail for place in rows])
    straight = list(_similar(thumbnails, thumbnails))
    yield from _groups(seen, rows, straight, "image-nearly-twice", "image-nearly-in-two-splits", "looks like")
    known = set(straight)
    turned = set()
    for turn in _TURNS:
        turned |= {pair for pair in _similar(thumbnails, turn(thumbnails)) if pair not in known}
    yield from _groups(
        seen, rows, sorted(turned), "image-turned-twice", "image-turned-in-two-splits", "flipped or turned, looks like"
    )


_TURNS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda each: each[:, :, ::-1],
    lambda each: each[:, ::-1],
    lambda each: each[:, ::-1, ::-1],
    lambda each: each.swapaxes(1, 2),
    lambda each: each.swapaxes(1, 2)[:, :, ::-1],
    lambda each: each.swapaxes(1, 2)[:, ::-1],
    lambda each: each.swapaxes(1, 2)[:, ::-1, ::-1],
)
"""The other seven positions of a square."""


def _similar(
    one: UInt8[np.ndarray, "images side side"], other: UInt8[np.ndarray, "images side side"]
) -> Iterator[tuple[int, int]]:
    """Yields the pairs of images, the first one first, of which the first looks like the other form of the second."""
    hashes, other_hashes = _hashes(one), _hashes(other)
    for start in range(0, len(one), _CHUNK):
        bits = np.bitwise_count(hashes[start : start + _CHUNK, None] ^ other_hashes)
        for row, second in np.argwhere(bits <= NEAR).tolist():
            first = start + row
            if first < second and _difference(one[first], other[second]) <= NEAR_PIXELS:
                yield first, second


def _difference(one: UInt8[np.ndarray, "side side"], other: UInt8[np.ndarray, "side side"]) -> float:
    """Returns the mean difference of two thumbnails in gray levels, apart from one being brighter as a whole."""
    difference = one.astype(np.float32) - other
    return float(np.abs(difference - difference.mean()).mean())


def _hashes(thumbnails: UInt8[np.ndarray, "images side side"]) -> UInt64[np.ndarray, " images"]:
    """Returns perceptual hashes: which of the lowest frequencies of a cosine transform are above their median."""
    steps = np.arange(THUMBNAIL)
    cosines = np.cos(np.pi * (2 * steps + 1) * np.arange(HASH)[:, None] / (2 * THUMBNAIL)).astype(np.float32)
    low = (cosines @ thumbnails.astype(np.float32) @ cosines.T).reshape(len(thumbnails), -1)
    above = np.packbits(low > np.median(low[:, 1:], axis=1, keepdims=True), axis=1)
    hashes: UInt64[np.ndarray, " images"] = above.view(np.uint64)[:, 0]
    return hashes


def _is_equal(one: CheckedImage, other: CheckedImage) -> bool:
    """Returns whether two files have the same content, which is a finding of its own."""
    samples = one.sample, other.sample
    sizes = {content_size(each) for each in samples}
    return len(sizes) == 1 and len({content_digest(each) for each in samples}) == 1


def _groups(
    seen: Sequence[tuple[str, CheckedImage, _Look]],
    rows: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    within: str,
    across: str,
    words: str,
) -> Iterator[Finding]:
    """Yields findings for pairs of images, each image once."""
    said: set[int] = set()
    for first, second in pairs:
        places = [seen[rows[first]][:2], seen[rows[second]][:2]]
        if first not in said and not _is_equal(places[0][1], places[1][1]):
            said.add(first)
            yield from shared(places, within, across, words)
