import dataclasses
from math import sqrt

import numpy as np
import pytest

from multibox.boxes import center_to_corner
from multibox.config import FeatureMap
from multibox.default_boxes import make_default_boxes, place_of
from multibox.presets import preset

# name, scales, number, sum of centers (x and y), sum of sizes (w and h), how many have a side above 1, some rows
GOLDEN = [
    (
        ("ssd300-vgg16", "voc", 8732, 4443.9467, 1510.4293, 20),
        {
            0: (0.013333, 0.013333, 0.1, 0.1),
            1: (0.013333, 0.013333, 0.141421, 0.141421),
            2: (0.013333, 0.013333, 0.141421, 0.070711),
            3: (0.013333, 0.013333, 0.070711, 0.141421),
            -1: (0.5, 0.5, 0.622254, 1.244508),
        },
    ),
    (
        ("ssd300-vgg16", "coco", 8732, 4443.9467, 1172.1980, 2),
        {
            0: (0.013333, 0.013333, 0.07, 0.07),
            1: (0.013333, 0.013333, 0.102470, 0.102470),
            2: (0.013333, 0.013333, 0.098995, 0.049497),
            -1: (0.5, 0.5, 0.615183, 1.230366),
        },
    ),
    (
        ("ssd512-vgg16", "voc", 24564, 12282.0, 3105.5545, 42),
        {
            0: (0.007812, 0.007812, 0.068359, 0.068359),
            1: (0.007812, 0.007812, 0.100733, 0.100733),
            2: (0.007812, 0.007812, 0.096675, 0.048337),
            -1: (0.5, 0.5, 0.635291, 1.270582),
        },
    ),
    (
        ("ssd512-vgg16", "coco", 24564, 12282.0, 2173.6820, 42),
        {
            0: (0.007812, 0.007812, 0.039062, 0.039062),
            1: (0.007812, 0.007812, 0.062378, 0.062378),
            2: (0.007812, 0.007812, 0.055243, 0.027621),
            -1: (0.5, 0.5, 0.635291, 1.270582),
        },
    ),
]

# The authors' scripts: side, cells, steps, min_sizes and max_sizes as PriorBoxLayer cuts them to whole pixels, ratios
CAFFE = {
    ("ssd300-vgg16", "voc"): (
        300,
        (38, 19, 10, 5, 3, 1),
        (8, 16, 32, 64, 100, 300),
        (30, 60, 111, 162, 213, 264, 315),
        ([2], [2, 3], [2, 3], [2, 3], [2], [2]),
    ),
    ("ssd300-vgg16", "coco"): (
        300,
        (38, 19, 10, 5, 3, 1),
        (8, 16, 32, 64, 100, 300),
        (21, 45, 99, 153, 207, 261, 315),
        ([2], [2, 3], [2, 3], [2, 3], [2], [2]),
    ),
    ("ssd512-vgg16", "voc"): (
        512,
        (64, 32, 16, 8, 4, 2, 1),
        (8, 16, 32, 64, 128, 256, 512),
        (35, 76, 153, 230, 307, 384, 460, 537),
        ([2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]),
    ),
    ("ssd512-vgg16", "coco"): (
        512,
        (64, 32, 16, 8, 4, 2, 1),
        (8, 16, 32, 64, 128, 256, 512),
        (20, 51, 133, 215, 296, 378, 460, 542),
        ([2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]),
    ),
}


def prior_box_layer(side, cells, steps, edges, ratios):
    """PriorBoxLayer's loops; the max size of a map is the min size of the next."""
    rows = []
    for cell, step, min_size, max_size, aspects in zip(cells, steps, edges[:-1], edges[1:], ratios, strict=True):
        for row in range(cell):
            for column in range(cell):
                center = [(column + 0.5) * step / side, (row + 0.5) * step / side]
                rows.append([*center, min_size / side, min_size / side])
                rows.append([*center, *[sqrt(min_size * max_size) / side] * 2])
                for aspect in aspects:
                    for flipped in (aspect, 1 / aspect):
                        width, height = min_size * sqrt(flipped), min_size / sqrt(flipped)
                        rows.append([*center, width / side, height / side])
    return np.array(rows)


@pytest.mark.parametrize("figures, rows", GOLDEN)
def test_golden_numbers(figures, rows):
    name, scales, count, centers, sizes, above_one = figures
    boxes = make_default_boxes(preset(name, scales=scales))
    assert boxes.shape == (count, 4) and boxes.dtype == np.float32
    np.testing.assert_allclose(boxes.sum(axis=0, dtype=np.float64), [centers, centers, sizes, sizes], atol=6e-4)
    assert int((boxes[:, 2:] > 1).any(axis=1).sum()) == above_one
    for index, row in rows.items():
        np.testing.assert_allclose(boxes[index], row, atol=1.1e-6)


@pytest.mark.parametrize("name, scales", CAFFE)
def test_table_is_what_the_loops_of_the_caffe_code_give(name, scales):
    expected = prior_box_layer(*CAFFE[name, scales])
    np.testing.assert_allclose(make_default_boxes(preset(name, scales=scales)), expected, atol=1e-6)


def test_nothing_is_clipped():
    """The last of ten centers 32 pixels apart lies outside 300 pixels; ports that clip move 114 of them."""
    boxes = make_default_boxes(preset("ssd300-vgg16", scales="voc"))
    assert int((boxes[:, :2] > 1).any(axis=1).sum()) == 114
    assert boxes[:, :2].max() == pytest.approx(304 / 300)


@pytest.mark.parametrize("scales", ["voc", "coco"])
def test_the_tiny_presets_boxes_lie_in_the_middle_of_their_cells(scales):
    boxes = make_default_boxes(preset("ssd256-tiny", scales=scales))
    assert len(boxes) == 32 * 32 * 4 + 16 * 16 * 6 + 8 * 8 * 6 + 4 * 4 * 6 + 2 * 2 * 4 + 4 == 6132
    np.testing.assert_allclose(boxes[:, :2].mean(axis=0), 0.5, atol=1e-6)
    np.testing.assert_allclose(boxes[4096::6][:16, 0], (np.arange(16) + 0.5) / 16)


def test_corners_keeps_the_part_of_each_box_inside_the_image():
    config = dataclasses.replace(preset("ssd300-vgg16", scales="voc"), clip_default_boxes="corners")
    found = center_to_corner(make_default_boxes(config).astype(float))
    whole = center_to_corner(make_default_boxes(preset("ssd300-vgg16", scales="voc")).astype(float))
    np.testing.assert_allclose(found, whole.clip(0, 1), rtol=0, atol=1e-6)
    assert (found != whole).any()


def test_corners_leaves_nothing_of_a_box_beyond_the_image():
    row = FeatureMap("conv7", 1, 2, (300.0, 600.0), ((40.0, 40.0),))
    config = dataclasses.replace(preset("ssd300-vgg16"), clip_default_boxes="corners", feature_maps=(row,))
    with pytest.raises(ValueError, match="1 default box lies outside the image"):
        make_default_boxes(config)


def test_order_is_map_row_column_box_also_where_nothing_is_square():
    wide = FeatureMap("a", rows=2, columns=3, step=(50, 100), box_sizes=((30, 10), (20, 20)))
    last = FeatureMap("b", rows=1, columns=1, step=(100, 300), box_sizes=((60, 50),), offset=0.25)
    config = dataclasses.replace(preset("ssd300-vgg16"), height=100, width=300, feature_maps=(wide, last))
    expected = [
        (x, y, width, height) for y in (25, 75) for x in (50, 150, 250) for width, height in ((30, 10), (20, 20))
    ] + [(75, 25, 60, 50)]
    boxes = make_default_boxes(config) * [300, 100, 300, 100]
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    assert config.num_default_boxes == len(expected)


@pytest.mark.parametrize("name", ["ssd300-vgg16", "ssdlite320-mobilenetv3"])
def test_a_default_box_is_found_at_its_place(name: str):
    """Going through maps, rows, columns and shapes one by one gives the order of the table."""
    config = preset(name)
    places = [
        (number, row, column, shape)
        for number, each in enumerate(config.feature_maps)
        for row in range(each.rows)
        for column in range(each.columns)
        for shape in range(len(each.box_sizes))
    ]
    chosen = [*range(0, len(places), 37), len(places) - 1]
    assert [place_of(index, config) for index in chosen] == [places[index] for index in chosen]
    for index in (-1, len(places)):
        with pytest.raises(IndexError, match=f"there is no default box {index}: the detector has {len(places)}, "):
            place_of(index, config)
