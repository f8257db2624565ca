"""Configs refuse what has no meaning, and come back from JSON as they were."""

import copy
import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from multibox.config import MAX_DEFAULT_BOXES, DetectorConfig, ExtraLayer, FeatureMap, Postprocess
from multibox.data.augment import Augmentation
from multibox.presets import PRESETS, preset
from multibox.training.recipes import RECIPES

NAN, INFINITE = float("nan"), float("inf")
TINY = preset("ssd256-tiny")


def made_with(config: Any, **values: Any) -> Any:
    """The config with these values, past the tests' own type checks, which would refuse some before the config does."""
    changed = copy.copy(config)
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    changed.__post_init__()
    return changed


@pytest.mark.parametrize(
    "values, message",
    [
        ({"score_threshold": -0.1}, "score_threshold must be from 0 to 1, but is -0.1"),
        ({"score_threshold": 1.5}, "score_threshold must be from 0 to 1, but is 1.5"),
        ({"iou_threshold": NAN}, "iou_threshold must be from 0 to 1, but is nan"),
        ({"max_detections": 0}, "max_detections must be at least 1, but is 0"),
        ({"max_candidates_per_class": -1}, "max_candidates_per_class must be at least 1, but is -1"),
        ({"max_detections": 2.5}, "max_detections must be a whole number, but is 2.5"),
        ({"class_agnostic": "no"}, "class_agnostic must be true or false, but is 'no'"),
        ({"merge": "mean"}, "merge must be one of none, weighted, but is 'mean'"),
    ],
)
def test_postprocess_refuses_what_has_no_meaning(values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        made_with(Postprocess(), **values)


def test_postprocess_takes_the_borders():
    for border in (0, 1):
        assert Postprocess(score_threshold=border, iou_threshold=border).score_threshold == border


def test_override_refuses_the_same():
    with pytest.raises(ValueError, match="max_detections must be at least 1, but is 0"):
        Postprocess().override(max_detections=0)


def test_override_changes_what_is_given_and_nothing_else():
    settings = Postprocess(score_threshold=0.2, iou_threshold=0.5, max_candidates_per_class=7, max_detections=9)
    assert settings.override() == settings
    changed = settings.override(score_threshold=0.0, class_agnostic=True, max_detections=3)
    assert changed == Postprocess(0.0, 0.5, True, 7, 3)
    assert settings == Postprocess(0.2, 0.5, False, 7, 9)
    voting = settings.override(merge="weighted")
    assert voting == replace(settings, merge="weighted") and voting.override(merge="none") == settings


def test_a_config_from_before_boxes_could_be_merged_does_not_merge_them():
    values = json.loads(preset("ssd256-tiny").to_json())
    assert values["postprocess"].pop("merge") == "none"
    assert DetectorConfig.from_json(json.dumps(values)).postprocess.merge == "none"
    voting = replace(preset("ssd256-tiny"), postprocess=Postprocess(merge="weighted"))
    assert DetectorConfig.from_json(voting.to_json()) == voting


def test_no_preset_merges_boxes():
    assert {preset(name).postprocess.merge for name in PRESETS} == {"none"}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"scoring": "softmx"}, "scoring must be one of softmax, sigmoid, but is 'softmx'"),
        ({"activation": "gelu"}, "activation must be one of relu, relu6, hardswish, but is 'gelu'"),
        (
            {"clip_default_boxes": "corner"},
            "clip_default_boxes must be one of none, size, all, corners, but is 'corner'",
        ),
        ({"resize": "nearest"}, "resize must be one of bilinear, antialias, float, but is 'nearest'"),
        ({"center_variance": 0.0}, "center_variance must be above 0, but is 0"),
        ({"center_variance": NAN}, "center_variance must be above 0, but is nan"),
        ({"size_variance": -0.2}, "size_variance must be above 0, but is -0.2"),
        ({"size_variance": INFINITE}, "size_variance must be above 0 and finite, but is inf"),
        ({"scale": (1.0, 0.0, 1.0)}, "scale must be above 0, but is 0"),
        ({"scale": (1.0, 1.0)}, "scale must be 3 numbers"),
        ({"mean": (1.0, NAN, 1.0)}, "mean must be a number, but is nan"),
        ({"height": 0}, "height must be from 1 to 4096, but is 0"),
        ({"width": 10**9}, "width must be from 1 to 4096, but is 1000000000"),
        ({"max_log_size": 0.0}, "max_log_size must be above 0, but is 0"),
        ({"feature_maps": ()}, "feature_maps must be 1 to 100 rows, but is \\[\\]"),
        ({"feature_maps": TINY.feature_maps * 2}, "feature_maps must have different layers, but has 'stage3' more"),
        ({"extras": TINY.extras * 2}, "extras must have different layers, but has 'conv6_1' more than once"),
        ({"height": 31}, "'stage3' has 32 x 32 cells, more than the input of 31 x 256 has pixels"),
        ({"postprocess": None}, "postprocess must be of type Postprocess, but is None"),
        ({"resize": "bilinear"}, "draft_decoding is for resize 'antialias', but resize is 'bilinear'"),
    ],
)
def test_a_detector_refuses_what_has_no_meaning(values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        made_with(TINY, **values)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"layer": ""}, "layer must be a name of letters, digits and _, but is ''"),
        ({"layer": "a.b"}, "layer must be a name of letters, digits and _, but is 'a.b'"),
        ({"rows": 0}, "rows must be from 1 to 4096, but is 0"),
        ({"columns": -1}, "columns must be from 1 to 4096, but is -1"),
        ({"step": (0.0, 8.0)}, "step must be from 0.001 to 1000000 pixels, but is 0.0"),
        ({"box_sizes": ()}, "box_sizes must be at least one pair of width and height"),
        ({"box_sizes": ((8.0, -8.0),)}, "box_sizes must be from 0.001 to 1000000 pixels, but is -8.0"),
        ({"box_sizes": ((NAN, 8.0),)}, "box_sizes must be from 0.001 to 1000000 pixels, but is nan"),
        ({"offset": INFINITE}, "offset must be from 0 to 1 and finite, but is inf"),
        ({"norm": "layer"}, "norm must be one of l2, batch, but is 'layer'"),
        ({"head": "conv5x5"}, "head must be one of conv3x3, conv1x1, separable, but is 'conv5x5'"),
    ],
)
def test_a_feature_map_refuses_what_has_no_meaning(values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        made_with(FeatureMap("conv4_3", 38, 38, (8.0, 8.0), ((30.0, 30.0),)), **values)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"channels": 0}, "channels must be from 1 to 65536, but is 0"),
        ({"kernel": -1}, "kernel must be from 1 to 64, but is -1"),
        ({"stride": 0}, "stride must be from 1 to 64, but is 0"),
        ({"padding": -1}, "padding must be from 0 to 64 or 'same', but is -1"),
        ({"padding": "valid"}, "padding must be from 0 to 64 or 'same', but is 'valid'"),
    ],
)
def test_an_extra_layer_refuses_what_has_no_meaning(values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        made_with(ExtraLayer("conv8_1", 256, 1), **values)


def test_a_depthwise_layer_keeps_its_channels():
    extras = (ExtraLayer("a", 8, 1), ExtraLayer("b", 16, 3, depthwise=True))
    with pytest.raises(ValueError, match="'b' is depthwise with 16 channels, but 'a' before it has 8"):
        replace(TINY, extras=extras)


def test_there_is_a_limit_on_default_boxes():
    rows = tuple(replace(row, rows=256, columns=256, box_sizes=row.box_sizes * 9) for row in TINY.feature_maps)
    with pytest.raises(ValueError, match=f"default boxes, but may have at most {MAX_DEFAULT_BOXES:,}"):
        replace(TINY, feature_maps=rows)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"hue": 61.0}, "hue must be from 0 to 60 degrees, but is 61.0"),
        ({"brightness": -1.0}, "brightness must be from 0 to 255, but is -1.0"),
        ({"contrast": NAN}, "contrast must be from 0 to 1, but is nan"),
        ({"crop_probability": 1.5}, "crop_probability must be from 0 to 1, but is 1.5"),
        ({"max_expansion": 0.5}, "max_expansion must be from 1 to 100, but is 0.5"),
        ({"interpolations": ()}, "interpolations must be at least one, but is \\[\\]"),
        ({"interpolations": ("linear",)}, "interpolations must be one of bilinear, box, .*, but is 'linear'"),
    ],
)
def test_augmentation_refuses_what_has_no_meaning(values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        made_with(Augmentation(), **values)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw, but is 'adam'"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, but is 0"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more, but is -1"),
        ({"ema_decay": 1.0}, "ema_decay must be from 0 to below 1, but is 1"),
        ({"batch_size": 0}, "batch_size must be above 0, but is 0"),
        ({"milestones": (0.9, 0.7)}, "milestones must rise between 0 and 1"),
    ],
)
def test_a_recipe_refuses_what_has_no_meaning(values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        made_with(RECIPES["paper"], **values)


def test_a_config_says_what_it_is_in_a_line():
    assert repr(preset("ssd300-vgg16")) == (
        "DetectorConfig(ssd300-vgg16: input 300 x 300, backbone vgg16, 6 feature maps, 8,732 default boxes, softmax)"
    )


def test_numbers_of_numpy_are_numbers():
    changed = made_with(TINY, height=np.int64(300), center_variance=np.float32(0.5), mean=np.array([1.0, 2.0, 3.0]))
    assert (changed.height, changed.center_variance, changed.mean) == (300, 0.5, (1.0, 2.0, 3.0))
    assert DetectorConfig.from_json(changed.to_json()) == changed


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_comes_back_from_json(name: str):
    config = preset(name)
    assert DetectorConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json()) == json.loads(json.dumps(asdict(config)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "truncated"),
        ("7", "Expected `object`"),
        ("{}", "missing required field `name`"),
        ("[" * 10**6, "nested too deeply"),
        (TINY.to_json().replace('"softmax"', '"softmx"'), r"Invalid enum value 'softmx' - at `\$.scoring`"),
        (TINY.to_json().replace('"center_variance":0.1', '"center_variance":-1'), r"Expected `float` > 0.0 .*variance"),
        (TINY.to_json()[:-1] + ',"color_of_the_day":"green"}', "unknown field 'color_of_the_day'"),
        (TINY.to_json().replace('"offset":0.5', '"offest":0.5', 1), "unknown field 'offest'"),
        (TINY.to_json()[:-1] + f',"{"x" * 10**6}":1}}', r"unknown field 'x{27}\.\.\.x{28}'"),
    ],
)
def test_json_that_is_no_config_is_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message) as refused:
        DetectorConfig.from_json(text)
    assert len(str(refused.value)) < 500
