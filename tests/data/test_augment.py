"""The augmentation keeps images and boxes in register, and samples its random numbers as the paper's code does."""

import colorsys
import importlib
import random
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from multibox.data.augment import (
    INTERPOLATIONS,
    MIN_OVERLAPS,
    Augmentation,
    AugmentParams,
    Colors,
    change_colors,
    crop_boxes,
    normalized_boxes,
    random_crops,
    render,
    sample_crop,
    sample_params,
)
from multibox.data.sample import GroundTruth, Sample
from multibox.images import to_array

# the modules themselves: in the package, `render` is the function
PARAMS_MODULE, RENDER_MODULE = (
    importlib.import_module(f"multibox.data.augment.{name}") for name in ("params", "render")
)

PAPER = Augmentation()
PLAIN = replace(PAPER, color_probability=0.0)
UNCHANGED = Colors(brightness=0.0, contrast=1.0, saturation=1.0, hue=0.0, contrast_last=False)
WHOLE = AugmentParams(UNCHANGED, 1.0, 0, np.array([0.0, 0.0, 1.0, 1.0]), False, "bilinear")
BLACK = (0.0, 0.0, 0.0)
TWO = np.array([[0.05, 0.1, 0.3, 0.6], [0.25, 0.2, 0.95, 0.9]])


# In register: each of the three colors holds one object, a rectangle of 255 on 0, so that the objects may overlap


def three_rectangles(rng, height, width):
    """Returns pixels with a random rectangle in each of the three colors, and the boxes of the rectangles."""
    pixels = np.zeros((3, height, width), np.uint8)
    boxes = []
    for color in range(3):
        (x_min, x_max), (y_min, y_max) = (
            np.sort(rng.choice(side + 1, 2, replace=False)).tolist() for side in (width, height)
        )
        pixels[color, y_min:y_max, x_min:x_max] = 255
        boxes.append([x_min, y_min, x_max, y_max])
    return pixels, boxes


def three_rectangles_sample(rng, height, width, image=None):
    pixels, boxes = three_rectangles(rng, height, width)
    return Sample("rectangles", pixels if image is None else image, height, width, GroundTruth(boxes, [0, 1, 2]), 0)


def extent(channel):
    """Returns the box around the pixels that are nearer to 255 than to 0."""
    rows, columns = np.nonzero(channel >= 128)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def check_in_register(sample, params, *, height, width, within=1.0):
    """Checks that each box is the extent of its color. Returns how many boxes were large enough to be checked.

    An edge may fall between two pixels of the augmented image. Interpolation by `box`, which weighs whole pixels, moves
    it by up to half a pixel more.
    """
    augmented = render(sample, params, height=height, width=width, margin=BLACK)
    boxes = augmented.boxes * [width, height, width, height]
    if params.interpolation in ("bicubic", "lanczos"):
        # these two widen a line of a single pixel by up to a fifth of the pixel on each side
        enlarged = [width, height] / (params.window[2:] - params.window[:2]) / [sample.width, sample.height]
        within += 0.2 * max(enlarged)
    # a rectangle of less than two pixels may fall between the pixels that are sampled
    seen = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) > 2
    for box, label in zip(boxes[seen], augmented.labels[seen], strict=True):
        np.testing.assert_allclose(extent(augmented.image[label]), box, atol=within + 1e-4)
    return np.count_nonzero(seen)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("height", "width"), [(60, 90), (96, 64), (300, 500), (7, 5), (1, 1), (3, 500), (200, 2), (211, 97)]
)
def test_image_and_boxes_stay_in_register(interpolation, height, width):
    rng = np.random.default_rng((height, width))
    augmentation = replace(PLAIN, interpolations=(interpolation,))
    checked = 0
    for _ in range(30):
        sample = three_rectangles_sample(rng, height, width)
        params = sample_params(rng, normalized_boxes(sample), augmentation)
        assert params.interpolation == interpolation
        checked += check_in_register(sample, params, height=64, width=80)
    assert checked > 20


def test_each_combination_of_sampler_expansion_and_flip_stays_in_register():
    rng = np.random.default_rng(1)
    seen = np.zeros((7, 2, 2), int)
    for _ in range(400):
        sample = three_rectangles_sample(rng, 75, 110)
        # the sampler that requires an IoU of 0.9 succeeds more often with a large object
        sample.image[0] = 0
        sample.image[0, 2:74, 3:108] = 255
        sample.truth.boxes[0] = [3, 2, 108, 74]
        params = sample_params(rng, normalized_boxes(sample), PLAIN)
        way = params.sampler, int(params.expansion > 1), int(params.flip)
        seen[way] += check_in_register(sample, params, height=100, width=70)
    assert seen.sum(axis=(1, 2)).min() > 10
    assert seen.sum(axis=0).min() > 50


def test_without_expansion_and_crop_boxes_are_exact():
    rng = np.random.default_rng(2)
    sample = three_rectangles_sample(rng, 40, 56)
    for interpolation in INTERPOLATIONS:
        for flip in (False, True):
            params = WHOLE._replace(interpolation=interpolation, flip=flip)
            assert check_in_register(sample, params, height=160, width=168, within=0) == 3


def test_at_the_size_of_the_original_the_pixels_are_the_originals():
    pixels = np.random.default_rng(3).integers(0, 256, (3, 31, 45), dtype=np.uint8)
    sample = Sample("noise", pixels, 31, 45, GroundTruth([[1, 2, 30, 20]], [4]), 0)
    for interpolation in INTERPOLATIONS:
        params = WHOLE._replace(interpolation=interpolation)
        same = render(sample, params, height=31, width=45, margin=BLACK)
        np.testing.assert_array_equal(same.image, pixels)
        flipped = render(sample, params._replace(flip=True), height=31, width=45, margin=BLACK)
        np.testing.assert_array_equal(flipped.image, pixels[:, :, ::-1])
    np.testing.assert_allclose(same.boxes, [[1 / 45, 2 / 31, 30 / 45, 20 / 31]], rtol=1e-6)
    np.testing.assert_allclose(flipped.boxes, [[15 / 45, 2 / 31, 44 / 45, 20 / 31]], rtol=1e-6)
    np.testing.assert_array_equal(same.labels, [4])


def ours_and_pillows(interpolation, height, width, *, levels=(0, 256)):
    """Returns noise that is rendered at another size, and the same from Pillow's own resize."""
    pixels = np.random.default_rng(4).integers(*levels, (3, 31, 45), dtype=np.uint8)
    sample = Sample("noise", pixels, 31, 45, GroundTruth([[1, 2, 30, 20]], [4]), 0)
    rendered = render(
        sample, WHOLE._replace(interpolation=interpolation), height=height, width=width, margin=BLACK
    ).image
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    resized = image.resize((width, height), Image.Resampling[interpolation.upper()])
    return rendered.transpose(1, 2, 0), np.asarray(resized)


@pytest.mark.parametrize(("height", "width"), [(31, 45), (40, 100), (25, 30), (64, 20), (13, 90)])
@pytest.mark.parametrize("interpolation", ["box", "nearest"])
def test_box_and_nearest_are_pillows(interpolation, height, width):
    np.testing.assert_array_equal(*ours_and_pillows(interpolation, height, width))


@pytest.mark.parametrize(("height", "width"), [(31, 45), (40, 100), (25, 30), (64, 20), (13, 90)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_torchs_kernels_are_within_two_levels_of_pillows(interpolation, height, width):
    # Pillow may begin with the other axis; what overshoots 0 or 255 in between is cut off, so that no level may do so
    ours, pillows = ours_and_pillows(interpolation, height, width, levels=(80, 176))
    np.testing.assert_allclose(ours.astype(int), pillows, rtol=0, atol=2)


def test_lanczos_is_pillows_where_torch_has_no_kernel(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.11.0"))
    np.testing.assert_array_equal(*ours_and_pillows("lanczos", 40, 100))
    np.testing.assert_array_equal(*ours_and_pillows("lanczos", 25, 30))


def stored_as(pixels, orientation, path):
    """Writes a JPEG that is shown as `pixels`, but is stored turned, with an EXIF `orientation` that says so."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    exif = Image.Exif()
    if orientation > 1:
        image = image.transpose(undo[orientation])
        exif[0x0112] = orientation
    image.save(path, quality=95, subsampling=0, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_files_stay_in_register(tmp_path, orientation):
    rng = np.random.default_rng(orientation)
    checked = 0
    for number in range(8):
        pixels, boxes = three_rectangles(rng, 83, 131)
        path = stored_as(pixels, orientation, tmp_path / f"{number}.jpg")
        sample = Sample(path.name, path, 83, 131, GroundTruth(boxes, [0, 1, 2]), 0)
        for _ in range(4):
            params = sample_params(rng, normalized_boxes(sample), PLAIN)
            checked += check_in_register(sample, params, height=60, width=64)
    assert checked > 30


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_files_that_are_decoded_at_less_than_full_size_stay_in_register(tmp_path, orientation):
    """1203 x 1601 is no multiple of 8, so the image covers the last pixel of the reduced one only in part."""
    rng = np.random.default_rng(orientation)
    pixels, boxes = three_rectangles(rng, 1203, 1601)
    path = stored_as(pixels, orientation, tmp_path / "large.jpg")
    sample = Sample(path.name, path, 1203, 1601, GroundTruth(boxes, [0, 1, 2]), 0)
    assert sample.open(at_least=(64, 64)).size == (201, 151)
    checked = 0
    for _ in range(40):
        params = sample_params(rng, normalized_boxes(sample), PLAIN)
        checked += check_in_register(sample, params, height=64, width=64, within=1.5)
    assert checked > 40


def test_a_file_is_never_decoded_with_fewer_pixels_than_the_input_needs(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    pixels, boxes = three_rectangles(rng, 640, 480)
    path = stored_as(pixels, 6, tmp_path / "turned.jpg")
    sample = Sample(path.name, path, 640, 480, GroundTruth(boxes, [0, 1, 2]), 0)
    opened = []
    decode_image = RENDER_MODULE.decode_image
    monkeypatch.setattr(
        RENDER_MODULE,
        "decode_image",
        lambda *args, **kwargs: opened.append(decode_image(*args, **kwargs)) or opened[-1],
    )
    sizes = set()
    for _ in range(20):
        params = sample_params(rng, normalized_boxes(sample), PLAIN)
        render(sample, params, height=120, width=100, margin=BLACK)
        if opened:  # not if the window sees only margin
            left, top, right, bottom = params.window
            rows, columns, _ = opened.pop().pixels.shape
            assert columns * (right - left) >= 100 * (1 - 1e-9)
            assert rows * (bottom - top) >= 120 * (1 - 1e-9)
            sizes.add(rows)
    assert {640, 320, 160} & sizes >= {320}  # some are decoded at less than full size


def test_a_window_that_sees_only_margin():
    sample = three_rectangles_sample(np.random.default_rng(6), 20, 30)
    params = WHOLE._replace(expansion=4.0, sampler=6, window=np.array([1.5, 1.5, 2.5, 2.5]))
    image, boxes, labels = render(sample, params, height=9, width=11, margin=(12.4, 34.6, 56.0))
    assert (image.reshape(3, -1).T == [12, 35, 56]).all()
    assert boxes.shape == (0, 4) and labels.shape == (0,)


def test_the_margin_keeps_the_mean_color():
    gray = np.full((3, 40, 40), 100, np.uint8)
    sample = Sample("gray", gray, 40, 40, GroundTruth([[0, 0, 40, 40]], [0]), 0)
    params = WHOLE._replace(
        colors=Colors(brightness=30.0, contrast=1.4, saturation=0.5, hue=20.0, contrast_last=True),
        expansion=2.0,
        window=np.array([-0.25, -0.75, 1.75, 1.25]),
    )
    image, boxes, _ = render(sample, params, height=80, width=80, margin=(123.0, 117.0, 104.0))
    np.testing.assert_allclose(boxes * 80, [[10, 30, 50, 70]], atol=1e-4)
    inside = np.zeros((80, 80), bool)
    inside[30:70, 10:50] = True
    assert (image[:, inside] == 182).all()  # (100 + 30) x 1.4
    np.testing.assert_array_equal(image[:, ~inside].T, np.tile([123, 117, 104], (80 * 80 - 1600, 1)))


# What is kept of the objects


def test_the_center_rule_and_clipping_are_the_definition():
    rng = np.random.default_rng(7)
    for _ in range(300):
        low = rng.uniform(0, 0.9, (6, 2))
        boxes = np.concatenate([low, low + rng.uniform(0.01, 1, (6, 2)) * (1 - low)], axis=1)
        params = sample_params(rng, boxes, PLAIN)
        left, top, right, bottom = params.window.tolist()
        expected, kept = [], []
        for x_min, y_min, x_max, y_max in boxes.tolist():
            kept.append(left <= (x_min + x_max) / 2 <= right and top <= (y_min + y_max) / 2 <= bottom)
            if kept[-1]:
                x_min, x_max = ((min(max(x, left), right) - left) / (right - left) for x in (x_min, x_max))
                y_min, y_max = ((min(max(y, top), bottom) - top) / (bottom - top) for y in (y_min, y_max))
                expected.append([1 - x_max, y_min, 1 - x_min, y_max] if params.flip else [x_min, y_min, x_max, y_max])
        seen, mask = crop_boxes(boxes, params)
        np.testing.assert_array_equal(mask, kept)
        np.testing.assert_allclose(seen, np.reshape(expected, (-1, 4)), atol=1e-6)
        assert seen.dtype == np.float32


@pytest.mark.parametrize("window", [(0.25, 0.25, 1, 1), (-1, -1, 0.25, 0.25), (0.25, -1, 1, 0.25), (-1, 0.25, 0.25, 1)])
def test_a_center_on_the_edge_of_the_window_is_inside(window):
    """As `MeetEmitConstraint` of the Caffe code has it."""
    boxes = np.array([[0.125, 0.125, 0.375, 0.375]])
    assert crop_boxes(boxes, WHOLE._replace(window=np.array(window)))[1].tolist() == [True]
    for axis in (0, 1):
        outside = np.array(window, dtype=float)
        side = axis if outside[axis] == 0.25 else axis + 2
        outside[side] += 0.01 if side < 2 else -0.01
        assert crop_boxes(boxes, WHOLE._replace(window=outside))[1].tolist() == [False]


def test_crowd_regions_are_left_out_and_difficult_objects_kept():
    truth = GroundTruth(
        [[0, 0, 20, 20], [5, 5, 30, 30], [10, 10, 40, 40]],
        [3, 4, 5],
        difficult=[False, False, True],
        crowd=[False, True, False],
    )
    sample = Sample("three", np.zeros((3, 40, 40), np.uint8), 40, 40, truth, 0)
    expected = np.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 1, 1]])
    np.testing.assert_allclose(normalized_boxes(sample), expected)
    _, boxes, labels = render(sample, WHOLE, height=16, width=16, margin=BLACK)
    np.testing.assert_allclose(boxes, expected)
    np.testing.assert_array_equal(labels, [3, 5])


def test_an_image_of_crowd_regions_alone_is_taken_whole():
    truth = GroundTruth([[0, 0, 20, 20]], [0], crowd=[True])
    sample = Sample("crowd", np.zeros((3, 40, 40), np.uint8), 40, 40, truth, 0)
    rng = np.random.default_rng(8)
    for _ in range(100):
        params = sample_params(rng, normalized_boxes(sample), PAPER)
        assert params.sampler == 0
        assert len(render(sample, params, height=8, width=8, margin=BLACK).labels) == 0


# Colors


IMAGE = np.concatenate(
    [
        np.random.default_rng(9).integers(0, 256, (20, 20, 3)),
        np.tile(np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]), (1, 4, 1)),
    ]
).astype(np.uint8)


def literally_changed(pixel, colors):
    """Applies the Caffe code's steps to one pixel, with HSV from the standard library."""

    def saturate(values):
        return [min(max(round(value), 0), 255) for value in values]

    def contrast(values):
        return saturate([value * colors.contrast for value in values])

    pixel = saturate([value + colors.brightness for value in pixel])
    if not colors.contrast_last:
        pixel = contrast(pixel)
    hue, saturation, value = colorsys.rgb_to_hsv(*(value / 255 for value in pixel))
    saturation = min(saturation * colors.saturation, 1)
    hue = max(hue + colors.hue / 360, 0) % 1
    pixel = saturate([255 * value for value in colorsys.hsv_to_rgb(hue, saturation, value)])
    return contrast(pixel) if colors.contrast_last else pixel


def changed(pixels, colors):
    """Returns `change_colors` of pixels with the colors in the last axis."""
    return change_colors(to_array(Image.fromarray(pixels)), colors).transpose(1, 2, 0).astype(int)


def off(pixels, colors):
    """Returns how far `change_colors` is from the literal steps, for each pixel and color."""
    expected = [[literally_changed(pixel, colors) for pixel in row] for row in pixels.tolist()]
    return np.abs(changed(pixels, colors) - expected)


@pytest.mark.parametrize("brightness", [-300.0, -32.0, -0.4, 7.3, 32.0, 300.0])
@pytest.mark.parametrize("contrast", [0.5, 1.0, 1.12345, 1.5])
def test_brightness_and_contrast_are_exact(brightness, contrast):
    for contrast_last in (False, True):
        assert off(IMAGE, Colors(brightness, contrast, 1.0, 0.0, contrast_last)).max() == 0


@pytest.mark.parametrize("hue", [-60.0, -36.0, -10.0, 0.0, 3.0, 36.0, 60.0])
@pytest.mark.parametrize("saturation", [0.5, 1.0, 1.5])
def test_saturation_and_hue_are_those_of_hsv(saturation, hue):
    """Up to the last rounding, which may go the other way."""
    difference = off(IMAGE, Colors(0.0, 1.0, saturation, hue, False))
    assert difference.max() <= 1
    assert difference.mean() < 0.2


def test_all_changes_together_are_in_the_papers_order():
    for contrast_last in (False, True):
        colors = Colors(-30.0, 1.5, 1.5, 25.0, contrast_last)
        difference = off(IMAGE, colors)
        assert difference.max() <= 2 and difference.mean() < 0.2
        swapped = off(IMAGE, colors) - np.abs(
            changed(IMAGE, colors) - changed(IMAGE, colors._replace(contrast_last=not contrast_last))
        )
        assert swapped.min() < -40  # the two orders are told apart by this image


def test_hue_stops_at_red_and_passes_the_end_of_the_circle():
    orange, pink = np.array([[[255, 64, 0]]], np.uint8), np.array([[[255, 0, 64]]], np.uint8)
    np.testing.assert_allclose(changed(orange, Colors(0.0, 1.0, 1.0, -36.0, False)), [[[255, 0, 0]]])
    # 15 degrees before red becomes 21 after it
    np.testing.assert_allclose(changed(pink, Colors(0.0, 1.0, 1.0, 36.0, False)), [[[255, 89, 0]]], atol=1)


@pytest.mark.parametrize("hue", [-1.0, 61.0, float("nan")])
def test_a_hue_that_cannot_be_turned_is_refused(hue):
    with pytest.raises(ValueError, match="hue must be from 0 to 60 degrees, but is"):
        Augmentation(hue=hue)


def test_gray_has_no_hue_and_no_saturation():
    gray = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    for hue in (-36.0, 0.0, 36.0):
        for saturation in (0.5, 1.0, 1.5):
            np.testing.assert_array_equal(changed(gray, Colors(0.0, 1.0, saturation, hue, False)), gray)


def test_neutral_values_change_nothing():
    for contrast_last in (False, True):
        neutral = UNCHANGED._replace(contrast_last=contrast_last)
        np.testing.assert_array_equal(changed(IMAGE, neutral), IMAGE)


# The distribution. Seeds are fixed; with random seeds, the bounds would fail for one in a million or fewer.


def assert_shares(shares, probabilities, *, count, sigmas=5.0):
    spread = np.sqrt(np.maximum(probabilities * (1 - probabilities), 1 / count) / count)
    np.testing.assert_array_less(np.abs(shares - probabilities), sigmas * spread)


def assert_share(values, probability):
    assert_shares(np.mean(values), np.array(probability), count=len(values))


def assert_uniform(values, low=0.0, high=1.0):
    """Checks with Kolmogorov's and Smirnov's test that the values are uniform."""
    values = (np.sort(values) - low) / (high - low)
    assert values[0] >= -1e-9 and values[-1] <= 1 + 1e-9
    steps = np.arange(len(values) + 1) / len(values)
    distance = max((steps[1:] - values).max(), (values - steps[:-1]).max())
    assert distance < 2.7 / sqrt(len(values))


def literal_overlap(one, other):
    x = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    y = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - x * y
    return x * y / union


def literal_crop(rng):
    """Samples one crop as `SampleBBox` of the Caffe code does."""
    scale = rng.uniform(0.3, 1.0)
    ratio = rng.uniform(max(0.5, scale**2), min(2.0, 1 / scale**2))
    width, height = scale * sqrt(ratio), scale / sqrt(ratio)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return left, top, left + width, top + height


def literal_sample(rng, objects, *, expand):
    """Samples one image as `GenerateBatchSamples` of the Caffe code does, one trial after the other.

    Returns the sampler, its crop of the canvas, the number of objects that it keeps, and the canvas: its sides as a
    multiple of the image's, and where the image lies on it.
    """
    ratio, x, y = 1.0, 0.0, 0.0
    if expand and rng.random() < 0.5:
        ratio = rng.uniform(1, 4)
        x, y = rng.uniform(0, ratio - 1), rng.uniform(0, ratio - 1)
        objects = [((a + x) / ratio, (b + y) / ratio, (c + x) / ratio, (d + y) / ratio) for a, b, c, d in objects]
    found = [(0, (0.0, 0.0, 1.0, 1.0))]
    ranges = [(0.1, None), (0.3, None), (0.5, None), (0.7, None), (0.9, None), (None, 1.0)]
    for sampler, (least, most) in enumerate(ranges, start=1):
        for _ in range(50):
            crop = literal_crop(rng)
            overlaps = [literal_overlap(crop, box) for box in objects]
            if any((least is None or o >= least) and (most is None or o <= most) for o in overlaps):
                found.append((sampler, crop))
                break
    sampler, crop = rng.choice(found)
    kept = sum(crop[0] <= (a + c) / 2 <= crop[2] and crop[1] <= (b + d) / 2 <= crop[3] for a, b, c, d in objects)
    return sampler, crop, kept, (ratio, x, y)


class Case(NamedTuple):
    """The objects of an image, and the distribution of 100,000 samples of it by the literal steps.

    Attributes:
        samplers: Which of the seven gave the crop.
        kept: How many objects the crop keeps: none, one, ...
        below: Crops of a scale (square root of the area of the canvas) under 0.4, 0.5, ..., 0.9.
        narrower: Crops of an aspect ratio under 0.6, 0.8, 1, 1.25 and 1.6.
    """

    objects: tuple[tuple[float, float, float, float], ...]
    expand: bool
    samplers: tuple[float, ...]
    kept: tuple[float, ...]
    below: tuple[float, ...]
    narrower: tuple[float, ...]


SCALES, RATIOS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9), (0.6, 0.8, 0.999999, 1.25, 1.6)
CASES = {
    "small": Case(
        objects=((0.4, 0.3, 0.45, 0.35),),
        expand=False,
        samplers=(0.4988, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5012),
        kept=(0.1363, 0.8637),
        below=(0.0696, 0.1423, 0.2144, 0.2868, 0.3586, 0.4301),
        narrower=(0.0213, 0.0785, 0.1864, 0.8136, 0.9145),
    ),
    "large": Case(
        objects=((0.1, 0.2, 0.9, 0.95),),
        expand=False,
        samplers=(0.1664, 0.1654, 0.167, 0.1653, 0.1634, 0.0081, 0.1644),
        kept=(0.0717, 0.9283),
        below=(0.0462, 0.1075, 0.1907, 0.3083, 0.4803, 0.6854),
        narrower=(0.0234, 0.102, 0.3151, 0.7427, 0.9051),
    ),
    "three, expanded": Case(
        objects=((0.05, 0.1, 0.3, 0.6), (0.25, 0.2, 0.95, 0.9), (0.7, 0.05, 0.8, 0.15)),
        expand=True,
        samplers=(0.2108, 0.2076, 0.159, 0.1226, 0.0844, 0.0012, 0.2144),
        kept=(0.0501, 0.2035, 0.2599, 0.4865),
        below=(0.1068, 0.2144, 0.3258, 0.4508, 0.588, 0.6976),
        narrower=(0.0315, 0.1251, 0.3017, 0.7211, 0.88),
    ),
}


def shares(samples, objects):
    """Returns the distribution of samples of `(sampler, size of the crop, number of objects kept)`, as in a `Case`."""
    samplers, sizes, kept = (np.array(column) for column in zip(*samples, strict=True))
    scales, ratios = np.sqrt(sizes.prod(axis=1)), sizes[:, 0] / sizes[:, 1]
    return (
        np.bincount(samplers, minlength=7) / len(samples),
        np.bincount(kept, minlength=len(objects) + 1) / len(samples),
        np.array([(scales < limit).mean() for limit in SCALES]),
        np.array([(ratios < limit).mean() for limit in RATIOS]),
    )


def check_geometry(name):
    """Compares samplers, crops and the objects that they keep with the literal steps."""
    case = CASES[name]
    rng, boxes = np.random.default_rng(10), np.array(case.objects)
    augmentation = replace(PLAIN, expand_probability=0.5 if case.expand else 0.0)
    samples = []
    for _ in range(2000):
        params = sample_params(rng, boxes, augmentation)
        size = (params.window[2:] - params.window[:2]) / params.expansion
        samples.append((params.sampler, size, np.count_nonzero(RENDER_MODULE.crop_boxes(boxes, params)[1])))
    for ours, literal in zip(shares(samples, boxes), case[2:], strict=True):
        assert_shares(ours, np.array(literal), count=2000)


@pytest.mark.parametrize("name", CASES)
def test_samplers_crops_and_what_they_keep_are_those_of_the_literal_steps(name):
    check_geometry(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_literal_steps_give_the_numbers_above(name):
    case = CASES[name]
    rng = random.Random(name)
    samples = []
    for _ in range(20_000):
        sampler, (left, top, right, bottom), kept, _ = literal_sample(rng, case.objects, expand=case.expand)
        samples.append((sampler, [right - left, bottom - top], kept))
    for again, literal in zip(shares(samples, case.objects), case[2:], strict=True):
        assert_shares(again, np.array(literal), count=20_000)


# Pixels and margin: a small image of many colors with two objects, by the literal order of the steps

MEAN = (123, 117, 104)
SPECKLED = np.random.default_rng(18).integers((0, 0, 0), (256, 200, 150), (12, 16, 3)).astype(np.uint8)
SIDE = 60  # of the augmented images


def literal_image(rng):
    """Changes colors at full size, expands, crops, and resizes to the nearest pixels, one after the other."""

    def amount(limit):
        return rng.uniform(-limit, limit) if rng.random() < 0.5 else 0

    contrast_last = rng.random() < 0.5
    colors = Colors(amount(32), 1 + amount(0.5), 1 + amount(0.5), amount(36), contrast_last)
    image = [[literally_changed(pixel, colors) for pixel in row] for row in SPECKLED.tolist()]
    _, (left, top, right, bottom), _, (ratio, x, y) = literal_sample(rng, TWO.tolist(), expand=True)

    def places(low, high, start, count):
        """Returns the original pixel under the center of each augmented pixel; None for the margin."""
        under = [((low + (i + 0.5) / SIDE * (high - low)) * ratio - start) * count for i in range(SIDE)]
        return [int(place) if 0 <= place < count else None for place in under]

    columns, rows = places(left, right, x, 16), places(top, bottom, y, 12)
    return [[MEAN if row is None or column is None else image[row][column] for column in columns] for row in rows]


def numbers(colors):
    """Returns a number of its own for each color."""
    return colors @ np.array([1, 256, 256**2])


def pixel_statistics(image):
    """Returns statistics of one `(height, width, 3)` image.

    They are the share of the margin, whether the original colors are unchanged, the mean of each color, the spread, the
    colorfulness, and the squares of all these.
    """
    pixels = np.reshape(image, (-1, 3)).astype(float)
    is_margin = (pixels == MEAN).all(axis=1)
    unchanged = not is_margin.all() and np.isin(numbers(pixels[~is_margin]), numbers(SPECKLED)).all()
    values = [
        is_margin.mean(),
        float(unchanged),
        *pixels.mean(axis=0) / 255,
        pixels.std() / 255,
        np.ptp(pixels, axis=1).mean() / 255,
    ]
    return [*values, *(value**2 for value in values)]  # the squares tell how much the images differ


def assert_same_means(ours, means, deviations, *, count, sigmas=5.0):
    """Checks that our samples have the means of `count` literal samples, which have these standard deviations."""
    spread = np.array(deviations) * sqrt(1 / len(ours) + 1 / count)
    np.testing.assert_array_less(np.abs(np.mean(ours, axis=0) - means), sigmas * spread)


LITERAL_IMAGES = 6000
LITERAL_MEANS = (
    0.2887,
    0.0662,
    0.4852,
    0.4326,
    0.3401,
    0.1966,
    0.3281,
    0.2151,
    0.0662,
    0.2425,
    0.1946,
    0.1229,
    0.0438,
    0.1320,
)
LITERAL_DEVIATIONS = (
    0.3630,
    0.2486,
    0.0842,
    0.0861,
    0.0852,
    0.0720,
    0.1561,
    0.3118,
    0.2486,
    0.0811,
    0.0749,
    0.0580,
    0.0278,
    0.1069,
)


def check_pixels():
    rng = np.random.default_rng(19)
    sample = Sample("speckled", SPECKLED.transpose(2, 0, 1), 12, 16, GroundTruth(TWO * [16, 12, 16, 12], [0, 1]), 0)
    augmentation = replace(PAPER, interpolations=("nearest",))
    ours = []
    for _ in range(500):
        params = PARAMS_MODULE.sample_params(rng, normalized_boxes(sample), augmentation)
        image = RENDER_MODULE.render(sample, params, height=SIDE, width=SIDE, margin=MEAN).image
        ours.append(pixel_statistics(image.transpose(1, 2, 0)))
    assert_same_means(ours, LITERAL_MEANS, LITERAL_DEVIATIONS, count=LITERAL_IMAGES)


def test_pixels_are_those_of_the_literal_steps():
    check_pixels()


@pytest.mark.slow
def test_the_literal_steps_give_the_pixels_above():
    rng = random.Random(20)
    again = [pixel_statistics(literal_image(rng)) for _ in range(1500)]
    assert_same_means(again, LITERAL_MEANS, LITERAL_DEVIATIONS, count=LITERAL_IMAGES)


# The comparisons find faults: they fail with each of these


def leave_out_a_sampler(monkeypatch):
    monkeypatch.setattr(PARAMS_MODULE, "MIN_OVERLAPS", (0.1, 0.3, 0.7, 0.9))


def do_not_narrow_the_ratio(monkeypatch):
    def crops(rng, count):
        scale, ratio = rng.uniform(0.3, 1.0, count), rng.uniform(0.5, 2.0, count)
        size = np.minimum(np.stack([scale * np.sqrt(ratio), scale / np.sqrt(ratio)], axis=1), 1)
        corner = rng.uniform(0, 1, (count, 2)) * (1 - size)
        return np.concatenate([corner, corner + size], axis=1)

    monkeypatch.setattr(PARAMS_MODULE, "random_crops", crops)


def try_once(monkeypatch):
    monkeypatch.setattr(PARAMS_MODULE, "TRIALS", 1)


def keep_whatever_is_touched(monkeypatch):
    def touched(boxes, params):
        low, high = params.window[:2], params.window[2:]
        return boxes, ((boxes[:, :2] < high) & (boxes[:, 2:] > low)).all(axis=1)

    monkeypatch.setattr(RENDER_MODULE, "crop_boxes", touched)


def change_the_margin_too(monkeypatch):
    def changed(sample, params, **size_and_margin):
        augmented = render(sample, params._replace(colors=UNCHANGED), **size_and_margin)
        return augmented._replace(image=change_colors(augmented.image, params.colors))

    monkeypatch.setattr(RENDER_MODULE, "render", changed)


def only_raise_the_contrast(monkeypatch):
    def raised(rng, boxes, augmentation):
        params = sample_params(rng, boxes, augmentation)
        contrast = 1 + abs(params.colors.contrast - 1)
        return params._replace(colors=params.colors._replace(contrast=contrast))

    monkeypatch.setattr(PARAMS_MODULE, "sample_params", raised)


def change_every_image(monkeypatch):
    monkeypatch.setattr(
        PARAMS_MODULE,
        "sample_params",
        lambda rng, boxes, augmentation: sample_params(rng, boxes, replace(augmentation, color_probability=1.0)),
    )


PIXEL_FAULTS = (change_the_margin_too, only_raise_the_contrast, change_every_image)
GEOMETRY_FAULTS = (leave_out_a_sampler, do_not_narrow_the_ratio, try_once, keep_whatever_is_touched)


@pytest.mark.parametrize("fault", GEOMETRY_FAULTS, ids=lambda fault: fault.__name__)
def test_the_comparison_of_crops_finds_a_fault(monkeypatch, fault):
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_geometry("three, expanded")


@pytest.mark.parametrize("fault", PIXEL_FAULTS, ids=lambda fault: fault.__name__)
def test_the_comparison_of_pixels_finds_a_fault(monkeypatch, fault):
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_pixels()


@pytest.mark.parametrize(("expand", "expected"), [(False, 0.249), (True, 0.218)], ids=["not expanded", "expanded"])
def test_the_share_of_crops_that_keep_no_object(expand, expected):
    """The only object has 5 % of the side and lies anywhere; the shares are those of 60,000 literal samples."""
    rng = np.random.default_rng(11)
    augmentation = replace(PLAIN, expand_probability=0.5 if expand else 0.0)
    empty = []
    for _ in range(1000):
        corner = rng.uniform(0, 0.95, 2)
        boxes = np.concatenate([corner, corner + 0.05])[None]
        empty.append(not crop_boxes(boxes, sample_params(rng, boxes, augmentation))[1].any())
    assert_share(empty, expected)


def test_crops_are_uniform_within_their_ranges():
    crops = random_crops(np.random.default_rng(12), 6000)
    size = crops[:, 2:] - crops[:, :2]
    scale, ratio = np.sqrt(size.prod(axis=1)), size[:, 0] / size[:, 1]
    assert_uniform(scale, 0.3, 1.0)
    low, high = np.maximum(0.5, scale**2), np.minimum(2.0, scale**-2)
    assert_uniform((ratio - low) / (high - low))
    wide = scale > 0.95  # where the ratio is narrowed the most
    assert ratio[wide].min() > 0.95**2 and ratio[wide].max() < 0.95**-2
    assert ratio[~wide].min() < 0.52 and ratio[~wide].max() > 1.95
    assert crops.min() >= 0 and crops.max() <= 1 + 1e-12
    for axis in (0, 1):
        assert_uniform(crops[:, axis] / (1 - size[:, axis]))


@pytest.mark.parametrize("sampler", range(1, 6))
def test_a_samplers_crop_overlaps_some_object_enough(sampler):
    rng = np.random.default_rng(sampler)
    objects = [(0.02, 0.01, 0.98, 0.97), (0.05, 0.1, 0.3, 0.6)]
    overlaps = []
    for _ in range(100):
        found, crop = sample_crop(rng, np.array(objects))
        if found == sampler:
            overlaps.append(max(literal_overlap(crop.tolist(), box) for box in objects))
    assert len(overlaps) > 5
    assert min(overlaps) >= MIN_OVERLAPS[sampler - 1] - 1e-12


def test_images_without_objects_are_only_taken_whole():
    rng = np.random.default_rng(13)
    for _ in range(200):
        params = sample_params(rng, np.zeros((0, 4)), PAPER)
        assert params.sampler == 0
        np.testing.assert_allclose(params.window[2:] - params.window[:2], params.expansion)


def test_an_expanded_image_lies_anywhere_in_its_canvas():
    rng = np.random.default_rng(14)
    draws = [sample_params(rng, TWO, replace(PAPER, crop_probability=0.0)) for _ in range(4000)]
    assert all(params.sampler == 0 for params in draws)
    expanded = [params for params in draws if params.expansion > 1]
    assert_share([params.expansion > 1 for params in draws], 0.5)
    ratios = np.array([params.expansion for params in expanded])
    assert_uniform(ratios, 1, 4)
    windows = np.array([params.window for params in expanded])
    np.testing.assert_allclose(windows[:, 2:] - windows[:, :2], np.tile(ratios[:, None], 2))
    for axis in (0, 1):
        assert_uniform(-windows[:, axis] / (ratios - 1))
    whole = np.array([params.window for params in draws if params.expansion == 1])
    np.testing.assert_array_equal(whole, np.tile([0.0, 0.0, 1.0, 1.0], (len(whole), 1)))


@pytest.fixture(scope="module")
def draws():
    rng = np.random.default_rng(15)
    return [sample_params(rng, np.zeros((0, 4)), PAPER) for _ in range(4000)]


def test_flip_and_interpolation_are_drawn_evenly(draws):
    assert_share([params.flip for params in draws], 0.5)
    for interpolation in INTERPOLATIONS:
        assert_share([params.interpolation == interpolation for params in draws], 1 / 5)
        # and not together with the flip
        assert_share([params.flip for params in draws if params.interpolation == interpolation], 0.5)


def test_colors_are_drawn_as_the_paper_does(draws):
    colors = [params.colors for params in draws]
    neutral_and_range = {
        "brightness": (0, -32, 32),
        "contrast": (1, 0.5, 1.5),
        "saturation": (1, 0.5, 1.5),
        "hue": (0, -36, 36),  # 18 of OpenCV's 180
    }
    changes = np.zeros(len(colors), int)
    for place, (name, (neutral, low, high)) in enumerate(neutral_and_range.items()):
        values = np.array([getattr(each, name) for each in colors])
        assert_uniform(values[values != neutral], low, high)
        changes += (values != neutral) << place
    for combination in range(16):  # each with a half, whatever the others
        assert_share(changes == combination, 1 / 16)
    assert_share([each.contrast_last for each in colors], 0.5)


def test_probabilities_of_none_and_of_all():
    rng = np.random.default_rng(16)
    nothing = Augmentation(
        color_probability=0, expand_probability=0, crop_probability=0, flip_probability=0, interpolations=("box",)
    )
    for _ in range(20):
        params = sample_params(rng, TWO, nothing)
        assert params.colors._replace(contrast_last=False) == UNCHANGED
        assert (params.expansion, params.sampler, params.flip, params.interpolation) == (1.0, 0, False, "box")
        np.testing.assert_array_equal(params.window, [0, 0, 1, 1])
        params = sample_params(rng, TWO, replace(PAPER, expand_probability=1, flip_probability=1))
        assert params.expansion > 1 and params.flip


GOLDEN = {  # colors, expansion, sampler, window, flip and interpolation of these seeds, as of version 0.1.0
    0: (
        (0.0, 1.4127555772777218, 1.1066357757671799, 16.523752390847886, False),
        (1.0, 4, True, "lanczos"),
        [0.03597083371053845, 0.20601797186642878, 0.97179174880639, 0.8985568440958217],
    ),
    1: (
        (0.0, 1.0, 1.3277025938204416, 0.0, False),
        (3.2605393260244195, 0, True, "nearest"),
        [-1.2164941225692554, -0.7453715121837328, 2.0440452034551644, 2.5151678138406868],
    ),
    2: (
        (6.406433661801856, 1.2285605268117945, 1.0, -32.02944283201909, True),
        (1.0, 6, True, "nearest"),
        [0.00777229307473837, 0.172805553222027, 0.9963937345237971, 0.7315527555815995],
    ),
}


@pytest.mark.parametrize("seed", GOLDEN)
def test_a_seed_keeps_its_sample(seed):
    """A run that is resumed by a later version goes on with the same samples."""
    colors, others, window = GOLDEN[seed]
    params = sample_params(np.random.default_rng(seed), TWO, PAPER)
    np.testing.assert_allclose(params.colors, colors, rtol=1e-12, atol=0)
    assert params.expansion == pytest.approx(others[0], rel=1e-12)
    assert (params.sampler, params.flip, params.interpolation) == others[1:]
    np.testing.assert_allclose(params.window, window, rtol=1e-9)


def test_the_generator_decides_everything():
    first, second = (sample_params(np.random.default_rng((4, 2)), TWO, PAPER) for _ in range(2))
    np.testing.assert_array_equal(first.window, second.window)
    assert first == second._replace(window=first.window)


def test_nothing_that_is_given_is_written_to():
    rng = np.random.default_rng(17)
    sample = three_rectangles_sample(rng, 30, 40)
    pixels, boxes = sample.image.copy(), sample.truth.boxes.copy()
    for _ in range(30):
        render(sample, sample_params(rng, normalized_boxes(sample), PAPER), height=20, width=20, margin=BLACK)
    np.testing.assert_array_equal(sample.image, pixels)
    np.testing.assert_array_equal(sample.truth.boxes, boxes)


def test_a_broken_file_is_named(tmp_path: Path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8 no image")
    sample = Sample("broken", path, 10, 10, GroundTruth([], []), 0)
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        render(sample, WHOLE, height=8, width=8, margin=BLACK)
