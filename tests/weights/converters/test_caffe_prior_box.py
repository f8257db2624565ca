"""Default boxes of a `.caffemodel`, against PriorBoxLayer written out as its loops (prior_box_layer.cpp)."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
import pytest

from multibox.boxes import center_to_corner
from multibox.config import DetectorConfig
from multibox.default_boxes import make_default_boxes
from multibox.weights.converters.caffe import convert, read_layers
from tests.weights.converters.caffe_files import decimal, layer, nested, number


class Prior(NamedTuple):
    """The fields of a PriorBoxParameter; what is `None` is left out."""

    min_sizes: Sequence[float]
    max_sizes: Sequence[float]
    ratios: Sequence[float]
    flip: bool | None = True
    clip: bool | None = False
    step: float | None = None
    step_h: float | None = None
    step_w: float | None = None
    img_size: int | None = None
    img_h: int | None = None
    img_w: int | None = None
    offset: float | None = 0.5

    def message(self, variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2)) -> bytes:
        lists = {1: self.min_sizes, 2: self.max_sizes, 3: self.ratios, 6: variances}
        numbers = {4: self.flip, 5: self.clip, 7: self.img_size, 8: self.img_h, 9: self.img_w}
        decimals = {10: self.step, 11: self.step_h, 12: self.step_w, 13: self.offset}
        found = [decimal(field, value) for field, values in lists.items() for value in values]
        found += [number(field << 3) + number(int(value)) for field, value in numbers.items() if value is not None]
        found += [decimal(field, value) for field, value in decimals.items() if value is not None]
        return b"".join(found)


def caffe_prior_boxes(maps: Sequence[tuple[Prior, int, int]], height: int, width: int) -> np.ndarray:
    """Corners of all boxes, fractions of the image, for maps of rows x columns on an input of height x width."""
    found = []
    for prior, rows, columns in maps:
        ratios = [1.0]
        for ratio in prior.ratios:
            if not any(abs(ratio - other) < 1e-6 for other in ratios):
                ratios.append(ratio)
                if prior.flip is not False:
                    ratios.append(1 / ratio)
        image_height = prior.img_h or prior.img_size or height
        image_width = prior.img_w or prior.img_size or width
        step_h = prior.step_h or prior.step or image_height / rows
        step_w = prior.step_w or prior.step or image_width / columns
        offset = 0.5 if prior.offset is None else prior.offset
        for row in range(rows):
            for column in range(columns):
                center_x, center_y = (column + offset) * step_w, (row + offset) * step_h
                for place, min_size in enumerate(map(int, prior.min_sizes)):
                    sizes = [(float(min_size), float(min_size))]
                    if prior.max_sizes:
                        sizes.append((sqrt(min_size * int(prior.max_sizes[place])),) * 2)
                    sizes += [
                        (min_size * sqrt(ratio), min_size / sqrt(ratio)) for ratio in ratios if abs(ratio - 1) >= 1e-6
                    ]
                    for box_width, box_height in sizes:
                        box = np.array(
                            [
                                (center_x - box_width / 2) / image_width,
                                (center_y - box_height / 2) / image_height,
                                (center_x + box_width / 2) / image_width,
                                (center_y + box_height / 2) / image_height,
                            ]
                        )
                        found.append(box.clip(0, 1) if prior.clip else box)
    return np.array(found)


PLAIN = (
    Prior((30,), (60,), (2,), step=8),
    Prior((60,), (111,), (2, 3), step=16),
    Prior((111,), (162,), (2, 3), step=32),
    Prior((162,), (213,), (2, 3), step=64),
    Prior((213,), (264,), (2,), step=100),
    Prior((264,), (315,), (2,), step=300),
)
"""Those of SSD300 (examples/ssd/ssd_pascal.py)."""

SOURCES = ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2")
GRIDS = (38, 19, 10, 5, 3, 1)


def config_of(priors: Sequence[Prior]) -> DetectorConfig:
    """The config of an SSD300 with these PriorBox layers, made of tensors of one number each."""
    first = len(caffe_prior_boxes([(priors[0], 1, 1)], 300, 300))
    names = [f"conv{stage}_{part}" for stage in (1, 2) for part in (1, 2)]
    names += [f"conv{stage}_{part}" for stage in (3, 4, 5) for part in (1, 2, 3)]
    names += ["fc6", "fc7", *(f"conv{stage}_{part}" for stage in (6, 7, 8, 9) for part in (1, 2))]
    names += [f"{source}_mbox_{part}" for source in SOURCES for part in ("loc", "conf")]
    one = nested(5, bytes(4)) + nested(7, nested(1, b"\x01\x01\x01\x01"))
    data = layer("conv4_3_norm", "Normalize", one)
    for name in names:
        weight, bias = one, one
        if name == "conv1_1":
            weight = nested(5, bytes(12)) + nested(7, nested(1, b"\x01\x03\x01\x01"))
        if name == "conv4_3_norm_mbox_conf":
            bias = nested(5, bytes(4 * first * 21)) + nested(7, nested(1, number(first * 21)))
        data += layer(name, "Convolution", weight, bias)
    for source, prior in zip(SOURCES, priors, strict=True):
        data += layer(f"{source}_mbox_priorbox", "PriorBox", more=nested(203, prior.message()))
    return convert(read_layers(memoryview(data))).config


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"clip": True},
        {"clip": None},
        {"clip": True, "step": None},
        {"flip": None},
        {"flip": False},
        {"ratios": (2, 2, 0.5, 1, 3, 3.0000001)},
        {"ratios": (2, 2, 0.5, 1, 3), "flip": False},
        {"ratios": (1.0000001, 4)},
        {"ratios": ()},
        {"max_sizes": ()},
        {"min_sizes": (30.7, 50), "max_sizes": (61.2, 90)},
        {"min_sizes": (16, 24, 33), "max_sizes": ()},
        {"img_size": 300},
        {"img_size": 600},
        {"img_size": 600, "step": None},
        {"img_h": 300, "img_w": 600},
        {"img_h": 200, "img_w": 400, "step": None, "clip": True},
        {"step": None, "step_h": 8, "step_w": 10},
        {"step": None},
        {"offset": 0.25},
        {"offset": None},
    ],
    ids=str,
)
def test_default_boxes_are_those_of_the_layer(change: dict):
    """For `clip` on all maps, because detectors clip all or none; anything else on the first map alone."""
    clip = {"clip": change["clip"]} if "clip" in change else {}
    priors = [PLAIN[0]._replace(**change), *(prior._replace(**clip) for prior in PLAIN[1:])]
    config = config_of(priors)
    expected = caffe_prior_boxes([(prior, grid, grid) for prior, grid in zip(priors, GRIDS, strict=True)], 300, 300)
    found = make_default_boxes(config)
    assert found.shape == expected.shape
    np.testing.assert_allclose(center_to_corner(found), expected, rtol=0, atol=1e-6)
    assert config.clip_default_boxes == ("corners" if change.get("clip") else "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": True}, "clips the default boxes of some feature maps"),
        ({"img_size": 300, "img_h": 300, "img_w": 300}, r"has img, img_h and img_w \(\[300\], \[300\], \[300\]\)"),
        ({"img_h": 300}, "has img, img_h and img_w"),
        ({"step": 8, "step_w": 8, "step_h": 8}, "has step, step_h and step_w"),
        ({"step": None, "step_w": 8}, "has step, step_h and step_w"),
        ({"step": -8}, "has step, step_h and step_w"),
        ({"step": float("nan")}, "has step, step_h and step_w"),
        ({"min_sizes": (0.5,)}, "have sizes"),
    ],
    ids=str,
)
def test_what_caffe_would_refuse_is_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        config_of([PLAIN[0]._replace(**change), *PLAIN[1:]])
