"""Change the colors of an image as the Caffe code does: brightness, contrast, saturation and hue, in 8 bits."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int16, UInt8

FRACTIONS = 16
"""Fixed point: the hue is rotated in 16-bit integers that count sixteenths of a gray level."""


class Colors(NamedTuple):
    """Changes of color. Brightness and hue of 0, contrast and saturation of 1 leave the image unchanged.

    Attributes:
        brightness: Value added to each pixel.
        contrast: Factor on each pixel.
        saturation: Factor on the saturation of HSV.
        hue: Degrees added to the hue of HSV.
        contrast_last: Whether contrast is changed after saturation and hue instead of before.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    contrast_last: bool


def change_colors(pixels: UInt8[np.ndarray, "3 height width"], colors: Colors) -> UInt8[np.ndarray, "3 height width"]:
    """Returns the pixels with changed colors. Each step saturates in 8 bits, as in the Caffe code.

    Saturation and hue are those of HSV, without OpenCV's rounding to 8-bit HSV. Both are changed in one step.
    """
    brightness = round(colors.brightness)
    change = np.uint8(min(abs(brightness), 255))
    # `minimum` and `maximum` of numpy are many times faster with a whole array than with a single number
    if brightness > 0:
        pixels = np.minimum(pixels, np.full_like(pixels, 255 - change)) + change
    elif brightness < 0:
        pixels = np.maximum(pixels, np.full_like(pixels, change)) - change
    if not colors.contrast_last:
        pixels = _multiply(pixels, colors.contrast)
    pixels = _change_saturation_and_hue(pixels, colors.saturation, colors.hue)
    if colors.contrast_last:
        pixels = _multiply(pixels, colors.contrast)
    return pixels


def _multiply(pixels: UInt8[np.ndarray, "3 height width"], factor: float) -> UInt8[np.ndarray, "3 height width"]:
    if factor == 1:
        return pixels
    product = pixels.astype(np.float32)
    product *= np.float32(factor)
    np.rint(product, out=product)
    np.minimum(product, np.full_like(product, 255), out=product)
    return product.astype(np.uint8)


def _change_saturation_and_hue(
    pixels: UInt8[np.ndarray, "3 height width"], saturation: float, hue: float
) -> UInt8[np.ndarray, "3 height width"]:
    """Returns the pixels with their HSV saturation multiplied (up to 1) and their hue rotated, at the same value.

    The value is the largest of the three colors, the chroma the difference between the largest and the smallest. Each
    color lies below the value by some part of the chroma, and the hue says which part. The saturation scales how far
    the colors lie below the value.
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
        below = _rotate_hue(pixels, value, chroma, hue) * (factor / np.float32(FRACTIONS))
    np.rint(below, out=below)
    changed: UInt8[np.ndarray, "3 height width"] = value - below.astype(np.uint8)
    return changed


def _rotate_hue(
    pixels: UInt8[np.ndarray, "3 height width"],
    value: UInt8[np.ndarray, "height width"],
    chroma: UInt8[np.ndarray, "height width"],
    hue: float,
) -> Int16[np.ndarray, "3 height width"]:
    """Returns how far each color lies below the value after a rotation of the hue, in units of 1 / `FRACTIONS`.

    Everything is a multiple of the chroma, so nothing is divided by it and gray needs no special case. `way` is the
    distance of the hue from red, in either direction: 1 at yellow and magenta, 2 at green and blue, 3 at cyan, where
    both directions meet. `near` is the color that comes first in that direction (green or blue), `far` the other.

    Args:
        pixels: Pixels of the image.
        value: Largest color of each pixel.
        chroma: Difference between the largest and the smallest color of each pixel.
        hue: Rotation in degrees, from -60 to 60.
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
    turn -= through_blue  # in the direction of blue, the rotation counts backward
    way += turn
    zero = np.zeros_like(way)
    if hue < 0:  # OpenCV clamps the sum at 0 (red), but lets it pass the other end of the circle
        np.maximum(way, zero, out=way)

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
