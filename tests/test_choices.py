"""An unknown choice is refused; no code takes it for one of the known ones."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import multibox.images
import multibox.postprocess
import multibox.ssd.postprocess
from multibox.config import Postprocess
from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.voc import best_objects
from multibox.images import resize
from multibox.presets import preset
from multibox.training.optimizer import make_optimizer
from multibox.training.recipes import RECIPES

CONFIG = preset("ssd256-tiny")


def unknown(value: object, **fields: str) -> SimpleNamespace:
    """Returns the fields of a config with others in their place, which the config itself would refuse."""
    return SimpleNamespace(**vars(value) | fields)


def test_an_image_is_not_resized_by_an_unknown_rule():
    # without the types that the tests check at every call, as users call it
    with pytest.raises(ValueError, match="rule must be one of bilinear, antialias, float, but is 'nearset'"):
        inspect.unwrap(resize)(Image.new("RGB", (4, 4)), 2, 2, "nearset")


@pytest.mark.parametrize("source", [np.zeros((4, 5, 3), np.uint8), Image.new("RGB", (4, 4)), "nowhere.jpg"])
def test_no_image_has_an_unknown_order_of_colors(source):
    with pytest.raises(ValueError, match="channels must be one of rgb, bgr, but is 'grb'"):
        inspect.unwrap(multibox.images._open)(source, None, 100, "grb")


def test_nothing_is_detected_by_an_unknown_scoring():
    offsets, logits, boxes = np.zeros((3, 4), np.float32), np.zeros((3, 2), np.float32), np.ones((3, 4), np.float32)
    config = unknown(CONFIG, scoring="entmax")
    with pytest.raises(AssertionError, match="entmax"):
        inspect.unwrap(multibox.postprocess._scores)(logits, 0.5, "entmax")
    with pytest.raises(AssertionError, match="entmax"):
        inspect.unwrap(multibox.ssd.postprocess.postprocess)(
            torch.from_numpy(offsets)[None],
            torch.from_numpy(logits)[None],
            torch.from_numpy(boxes),
            config,
            settings=Postprocess(),
        )


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_is_merged_by_an_unknown_rule(count):
    offsets, logits, boxes = np.zeros((3, 4), np.float32), np.zeros((3, 2), np.float32), np.ones((3, 4), np.float32)
    settings = Postprocess()
    object.__setattr__(settings, "merge", "mean")
    with pytest.raises(AssertionError, match="mean"):
        inspect.unwrap(multibox.postprocess.postprocess)(
            offsets[:count], logits[:count], boxes[:count], CONFIG, settings=settings
        )
    with pytest.raises(AssertionError, match="mean"):
        inspect.unwrap(multibox.ssd.postprocess.postprocess)(
            *(torch.from_numpy(each)[None, :count] for each in (offsets, logits)),
            torch.from_numpy(boxes[:count]),
            CONFIG,
            settings=settings,
        )


def test_nothing_is_evaluated_by_unknown_pixels():
    boxes = np.array([[0, 0, 5, 5]], np.float32)
    found = Detections(boxes, np.ones(1, np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64), ("cat",))
    with pytest.raises(AssertionError, match="exclusive"):
        inspect.unwrap(best_objects)(GroundTruth(boxes, [0]), found, "exclusive")


def test_nothing_learns_by_an_unknown_optimizer():
    recipe = unknown(RECIPES["paper"], optimizer="lion")
    with pytest.raises(AssertionError, match="lion"):
        inspect.unwrap(make_optimizer)(torch.nn.Linear(2, 2), recipe)
