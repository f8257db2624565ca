"""TensorFlow's SSDs in floats and other 8-bit forms: against the layers as written, and TensorFlow Lite itself."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multibox.boxes import box_iou
from multibox.config import Postprocess
from multibox.detector import Detector
from multibox.ssd.build import load_network
from multibox.weights.convert import convert_weights
from multibox.weights.converters.class_names import COCO, COCO_BY_ID
from multibox.weights.file import Weights
from tests.weights.converters.tflite_files import (
    ADD,
    EVERY,
    LOGISTIC,
    NETWORKS,
    OPTIONS,
    Written,
    anchor_table,
    flex_map,
    image,
    write_ssd,
)

GOLDEN = json.loads((Path(__file__).parent / "golden_float_tflite.json").read_text(encoding="utf-8"))
"""What TensorFlow Lite (ai-edge-litert 2.3.0) finds, written by make_golden_float_tflite.py."""

XYWH = [1, 0, 3, 2]


def converted(written: Written, tmp_path: Path) -> Weights:
    path = tmp_path / "it.tflite"
    path.write_bytes(written.data)
    return convert_weights(path)


@torch.inference_mode()
def check(weights: Weights, written: Written) -> None:
    """In 64 bits; our BatchNorms, whose variance is 1 - eps in 32 bits, change each layer by up to 1e-8."""
    config = weights.config
    pixels = image(config.height, config.width).transpose(2, 0, 1)[None].copy()
    network = load_network(config, weights.tensors, num_classes=len(weights.class_names)).double()
    offsets, logits = network(torch.from_numpy(pixels))
    expected, classes = written.run(pixels)
    classes = classes[..., list(COCO_BY_ID)] if weights.class_names == COCO else classes[..., 1:]
    for found, wanted in ((offsets, expected[..., XYWH]), (logits[..., 1:], classes)):
        assert wanted.std() > 0.01
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert not logits[..., 0].any()


@pytest.mark.parametrize(
    ("arguments", "name", "head"),
    [
        ({"version": 1, "classes": 90}, "ssd96-mobilenetv1", "conv1x1"),
        ({"version": 2, "height": 64}, "ssd64x96-mobilenetv2", "conv3x3"),
        ({"version": 2, "lite": True, "classes": 90}, "ssdlite96-mobilenetv2", "separable"),
        ({"version": 1, "lite": True, "numbers": "half"}, "ssdlite96-mobilenetv1", "separable"),
        ({"version": 1, "numbers": "weights"}, "ssd96-mobilenetv1", "conv1x1"),
        ({"version": 2, "lite": True, "numbers": "quantized"}, "ssdlite96-mobilenetv2", "separable"),
    ],
    ids=str,
)
def test_predictions_are_those_of_its_layers(arguments: dict[str, Any], name: str, head: str, tmp_path: Path):
    """Floats, floats of 16 bits, 8-bit weights with a scale for each channel, and everything in 8 bits."""
    written = write_ssd(**{"classes": 3, "height": 96, "width": 96} | arguments)
    weights = converted(written, tmp_path)
    assert weights.config.name == name
    assert {row.head for row in weights.config.feature_maps} == {head}
    assert len(weights.class_names) == (80 if arguments.get("classes") == 90 else 3)
    check(weights, written)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_tensorflow_lite_finds_is_found(name: str, tmp_path: Path):
    arguments = NETWORKS[name]
    path = tmp_path / "it.tflite"
    path.write_bytes(write_ssd(classes=3, **arguments).data)
    detector = Detector.convert(path)
    pixels = image(detector.config.height, detector.config.width)
    inputs = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
    with torch.inference_mode():
        offsets, logits = (output[0, ::EVERY].numpy() for output in detector.network(inputs))
    expected = np.array(GOLDEN[name]["offsets"])[:, XYWH]
    np.testing.assert_allclose(offsets, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 1:])), GOLDEN[name]["scores"], rtol=0, atol=2e-4)
    found = detector.detect(pixels, score_threshold=detector.config.postprocess.score_threshold)
    rows = np.array(GOLDEN[name]["detections"])
    rows = rows[rows[:, 1] > 0]
    assert len(found) == len(rows)
    height, width = pixels.shape[:2]
    boxes = (rows[:, 2:] * [width, height, width, height]).clip(0, [width, height, width, height])
    overlaps = box_iou(boxes, np.array(found.boxes, float))
    for label, score, row in zip(rows[:, 0], rows[:, 1], overlaps, strict=True):
        best = int(np.argmax(row - 10 * (np.array(found.labels) != label)))
        assert row[best] > 0.999
        assert found.scores[best] == pytest.approx(score, abs=2e-4)


def test_its_own_rules_are_in_the_config(tmp_path: Path):
    options = {"nms_iou_threshold": 0.5, "max_detections": 25, "nms_score_threshold": 0.25}
    weights = converted(write_ssd(1, lite=True, classes=20, options=options), tmp_path)
    config = weights.config
    assert config.postprocess == Postprocess(0.25, 0.5, True, 1917, 25)
    assert (config.mean, config.scale) == ((127.5,) * 3, (127.5,) * 3)
    assert (config.scoring, config.resize, config.stored_default_boxes) == ("sigmoid", "bilinear", True)
    assert (config.center_variance, config.size_variance) == (0.1, 0.2)
    assert weights.class_names == tuple(f"class {number}" for number in range(1, 21))
    assert weights.provenance["converted from"].startswith(
        "SSDLite MobileNet v1, TensorFlow Object Detection API, float"
    )
    table = anchor_table([(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)])[:, XYWH]
    np.testing.assert_allclose(weights.tensors["default_boxes"], table, rtol=0, atol=1e-6)
    assert config.feature_maps[0].box_sizes == ((30, 30), (84.853, 42.426), (42.426, 84.853))


def test_names_do_not_matter(small: Written, tmp_path: Path):
    """Other converters call the tensors differently."""
    named = converted(small, tmp_path)
    for number, tensor in enumerate(small.network.tensors):
        tensor[3] = f"t{number}"
    nameless = converted(small._replace(data=small.network.write([])), tmp_path)
    assert nameless.config == named.config
    for key, tensor in named.tensors.items():
        np.testing.assert_array_equal(nameless.tensors[key], tensor)


def test_an_8_bit_input_with_a_sign_has_128_less(tmp_path: Path):
    written = write_ssd(1, classes=1, numbers="quantized", height=64, width=64)
    scale, zero_point = written.network.tensors[0][4][2], written.network.tensors[0][4][3]
    assert converted(written, tmp_path).config.mean == (float(zero_point[0]),) * 3
    written.network.tensors[0][1] = ("i1", 9)
    weights = converted(written._replace(data=written.network.write([])), tmp_path)
    assert weights.config.mean == (float(zero_point[0]) + 128,) * 3
    assert weights.config.scale == pytest.approx((1 / float(scale[0]),) * 3)


# what is refused


@pytest.fixture
def small() -> Written:
    """An SSDLite of one class; a test may change it."""
    return copy.deepcopy(SMALL)


SMALL = write_ssd(1, lite=True, classes=1, height=64, width=64)


def refused(written: Written, tmp_path: Path) -> str:
    """The one line in which a file is refused, written again."""
    with pytest.raises(ValueError, match=r"it\.tflite: ") as caught:
        converted(written._replace(data=written.network.write([])), tmp_path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_classes_per_detection": 3}, "a box may be of several classes"),
        ({"use_regular_nms": 1, "detections_per_class": 5}, "each class has a limit of its own"),
        ({"y_scale": 8.0}, "x and y differ"),
        ({"num_classes": 4}, "a head has 6 outputs for 3 boxes, expected 3 times 5"),
    ],
)
def test_other_suppressions_are_refused(small: Written, options: dict[str, float], said: str, tmp_path: Path):
    small.network.operators[-1][5] = flex_map(OPTIONS | {"num_classes": 1} | options)
    assert said in refused(small, tmp_path)


def test_options_that_are_missing_are_refused(small: Written, tmp_path: Path):
    small.network.operators[-1][5] = flex_map({"num_classes": 1})
    assert "its last operator has the options" in refused(small, tmp_path)


def test_a_softmax_is_refused(small: Written, tmp_path: Path):
    small.network.codes[[code for code, _ in small.network.codes].index(LOGISTIC)] = (25, "")
    assert "its scores are a softmax, expected sigmoids" in refused(small, tmp_path)


@pytest.mark.parametrize(
    ("place", "field", "value", "said"),
    [
        (2, 3, ("i1", 1), "its layer 3 goes from 0.0 to inf, not from 0 to 6 as after ReLU6"),
        (4, 3, ("i1", 4), "has the activation 4, expected ReLU6"),
        (4, 0, ("i1", 1), "is not padded by SAME, or its strides differ"),
        (1, 4, ("i1", 0), "its layer 2 is 3x3 of stride 1, depthwise, linear, expected 3x3 of stride 1, depthwise as"),
        (32, 3, ("i1", 1), "its extra layer 6 has a shortcut, or no ReLU6"),
    ],
)
def test_other_layers_are_named(
    small: Written, place: int, field: int, value: tuple[str, int], said: str, tmp_path: Path
):
    small.network.operators[place][4][field] = value
    assert said in refused(small, tmp_path)


def test_another_stride_is_named(small: Written, tmp_path: Path):
    small.network.operators[3][4] |= {1: ("<i4", 1), 2: ("<i4", 1)}
    assert "its layer 4 is 3x3 of stride 1, depthwise, expected 3x3 of stride 2, depthwise" in refused(small, tmp_path)


def test_a_shortcut_elsewhere_is_refused(tmp_path: Path):
    written = write_ssd(2, classes=1, lite=True, height=64, width=64)
    additions = [one for one in written.network.operators if written.network.codes[one[0][1]][0] == ADD]
    (first, _), (_, last) = (one[1] for one in additions[:2])
    additions[1][1] = np.array([first, last], "<i4")
    assert "with a shortcut" in refused(written, tmp_path)


def test_heads_on_another_layer_are_refused(small: Written, tmp_path: Path):
    small.network.operators[39][1][0] = small.network.steps[18].output
    assert "the heads of its feature map 1 are not on one source layer" in refused(small, tmp_path)


def test_another_number_of_default_boxes_is_refused(small: Written, tmp_path: Path):
    (anchors,) = [one for one in small.network.tensors if one[3] == "anchors"]
    count = len(anchor_table([(4, 4), (2, 2), *[(1, 1)] * 4]))
    anchors[0] = np.array([count - 1, 4], "<i4")
    small.network.buffers[anchors[2][1]][0] = np.ones((count - 1, 4), "<f4").tobytes()
    assert f"its default boxes are ({count - 1}, 4), expected ({count}, 4)" in refused(small, tmp_path)


def test_weights_that_are_not_stored_are_refused(small: Written, tmp_path: Path):
    small.network.tensors[1][2] = ("<u4", 0)
    assert "'FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0/weights' is (32, 3, 3, 3), but has 0 bytes" in refused(
        small, tmp_path
    )


def test_a_graph_that_goes_round_is_refused(small: Written, tmp_path: Path):
    small.network.operators[-2][1] = small.network.operators[-2][2]
    assert "damaged, or another model" in refused(small, tmp_path)
