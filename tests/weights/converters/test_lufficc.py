"""lufficc/SSD: its layers in its order, with its rules, against our network with the converted weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from multibox.config import Postprocess
from multibox.default_boxes import make_default_boxes
from multibox.weights.converters.class_names import COCO, VOC
from multibox.weights.converters.lufficc import convert
from tests.weights.converters.pytorch_ports import (
    Shapes,
    State,
    arrays,
    batch_norm,
    check_predictions,
    check_shapes,
    conv,
    conv2d,
    empty_arrays,
    images,
    joined,
    l2_norm,
    norm,
    random_state,
    slow_default_boxes,
    vgg16_features,
    vgg16_shapes,
)

PLACES = [f"backbone.vgg.{place}" for place in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)]

# extras_base and add_extras of ssd/modeling/backbone/vgg.py: outputs, inputs, kernel, stride, padding
EXTRAS = {
    300: (
        (256, 1024, 1, 1, 0), (512, 256, 3, 2, 1), (128, 512, 1, 1, 0), (256, 128, 3, 2, 1),
        (128, 256, 1, 1, 0), (256, 128, 3, 1, 0), (128, 256, 1, 1, 0), (256, 128, 3, 1, 0),
    ),
    512: (
        (256, 1024, 1, 1, 0), (512, 256, 3, 2, 1), (128, 512, 1, 1, 0), (256, 128, 3, 2, 1), (128, 256, 1, 1, 0),
        (256, 128, 3, 2, 1), (128, 256, 1, 1, 0), (256, 128, 3, 2, 1), (128, 256, 1, 1, 0), (256, 128, 4, 1, 1),
    ),
}  # fmt: skip
BOXES = {300: (4, 6, 6, 6, 4, 4), 512: (4, 6, 6, 6, 6, 4, 4)}
CHANNELS = (512, 1024, 512, 256, 256, 256, 256)
MEAN = torch.tensor([123.0, 117.0, 104.0]).view(3, 1, 1)


def vgg_shapes(side: int, outputs: int) -> Shapes:
    found = vgg16_shapes(PLACES) | {"backbone.l2_norm.weight": (512,)}
    for place, (channels, inputs, kernel, _, _) in enumerate(EXTRAS[side]):
        found |= conv(f"backbone.extras.{place}", channels, inputs, kernel)
    for place, (boxes, channels) in enumerate(zip(BOXES[side], CHANNELS, strict=False)):
        found |= conv(f"box_head.predictor.cls_headers.{place}", boxes * outputs, channels, 3)
        found |= conv(f"box_head.predictor.reg_headers.{place}", boxes * 4, channels, 3)
    return found


def vgg_forward(state: State, images: Tensor, side: int, outputs: int) -> tuple[Tensor, Tensor]:
    conv4_3, x = vgg16_features(images - MEAN, state, PLACES)
    sources = [l2_norm(conv4_3, state["backbone.l2_norm.weight"]), x]
    for place, (_, _, _, stride, padding) in enumerate(EXTRAS[side]):
        x = conv2d(x, state, f"backbone.extras.{place}", stride=stride, padding=padding).relu()
        if place % 2 == 1:
            sources.append(x)
    heads = [f"box_head.predictor.{{}}_headers.{place}" for place in range(len(sources))]
    offsets = [conv2d(x, state, head.format("reg"), padding=1) for x, head in zip(sources, heads, strict=True)]
    logits = [conv2d(x, state, head.format("cls"), padding=1) for x, head in zip(sources, heads, strict=True)]
    return joined(offsets, 4), joined(logits, outputs)


def test_predictions_on_vgg16_are_those_of_its_layers():
    state = random_state(vgg_shapes(300, outputs=3))
    weights = convert(arrays(state))
    assert weights is not None
    check_predictions(weights, images(300), lambda images: vgg_forward(state, images, 300, 3))


SIZES = {
    (300, 21): (30, 60, 111, 162, 213, 264, 315),
    (300, 81): (21, 45, 99, 153, 207, 261, 315),
    (300, 6): (30, 60, 111, 162, 213, 264, 315),
    (512, 21): (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.65),
    (512, 81): (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
}
"""MIN_SIZES, and the last of MAX_SIZES, of ssd/config/defaults.py and configs/*.yaml."""


@pytest.mark.parametrize(("side", "outputs"), SIZES)
def test_vgg16_default_boxes_and_rules(side: int, outputs: int):
    weights = convert(empty_arrays(vgg_shapes(side, outputs)))
    assert weights is not None
    check_shapes(weights)
    maps = {300: (38, 19, 10, 5, 3, 1), 512: (64, 32, 16, 8, 4, 2, 1)}[side]
    steps = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}[side]
    ratios = [(2, 3) if boxes == 6 else (2,) for boxes in BOXES[side]]
    expected = slow_default_boxes(side, maps, steps, SIZES[side, outputs], ratios, clip=True)
    assert len(expected) == {300: 8732, 512: 24564}[side]
    np.testing.assert_allclose(make_default_boxes(weights.config), expected, rtol=0, atol=1e-7)
    names = {21: VOC, 81: COCO}.get(outputs, tuple(f"class {number}" for number in range(1, 6)))
    assert weights.class_names == names
    config = weights.config
    assert config.postprocess == Postprocess(0.01, 0.45, False, len(expected), 100)  # every candidate, MAX_PER_IMAGE
    assert (config.mean, config.scale, config.resize) == ((123, 117, 104), (1, 1, 1), "bilinear")


PARAMETERS = {(300, 21): 26_285_486, (300, 81): 34_305_206, (512, 21): 27_188_676, (512, 81): 36_038_196}
"""Of the authors' networks, which these are."""


@pytest.mark.parametrize(("side", "outputs"), PARAMETERS)
def test_vgg16_has_the_parameters_of_the_authors_networks(side: int, outputs: int):
    weights = convert(empty_arrays(vgg_shapes(side, outputs)))
    assert weights is not None
    assert sum(tensor.size for tensor in weights.tensors.values()) == PARAMETERS[side, outputs]


# interverted_residual_setting: expansion, channels, blocks, stride of the first
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# InvertedResidual(inputs, outputs, 2, ratio) of `self.extras`: inputs, inside, outputs
LITE_EXTRAS = ((1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 64))
LITE_CHANNELS = (96, 1280, 512, 256, 256, 64)


def residual_shapes(key: str, inputs: int, inside: int, outputs: int) -> Shapes:
    found: Shapes = {}
    place = 0
    if inside != inputs:
        found |= conv(f"{key}.conv.0.0", inside, inputs, 1, bias=False) | norm(f"{key}.conv.0.1", inside)
        place = 1
    found |= conv(f"{key}.conv.{place}.0", inside, 1, 3, bias=False) | norm(f"{key}.conv.{place}.1", inside)
    found |= conv(f"{key}.conv.{place + 1}", outputs, inside, 1, bias=False)
    return found | norm(f"{key}.conv.{place + 2}", outputs)


def residual(x: Tensor, state: State, key: str, stride: int) -> Tensor:
    """InvertedResidual.forward of mobilenet.py."""
    y, place = x, 0
    if f"{key}.conv.3.weight" in state:  # with an expansion
        y = batch_norm(conv2d(y, state, f"{key}.conv.0.0"), state, f"{key}.conv.0.1").clamp(0, 6)
        place = 1
    y = conv2d(y, state, f"{key}.conv.{place}.0", stride=stride, padding=1, groups=y.shape[1])
    y = batch_norm(y, state, f"{key}.conv.{place}.1").clamp(0, 6)
    y = batch_norm(conv2d(y, state, f"{key}.conv.{place + 1}"), state, f"{key}.conv.{place + 2}")
    return x + y if stride == 1 and x.shape == y.shape else y


def lite_shapes(outputs: int) -> Shapes:
    features = "backbone.features"
    found = conv(f"{features}.0.0", 32, 3, 3, bias=False) | norm(f"{features}.0.1", 32)
    inputs, place = 32, 1
    for expansion, channels, blocks, _ in BLOCKS:
        for _ in range(blocks):
            found |= residual_shapes(f"{features}.{place}", inputs, inputs * expansion, channels)
            inputs, place = channels, place + 1
    found |= conv(f"{features}.18.0", 1280, 320, 1, bias=False) | norm(f"{features}.18.1", 1280)
    for place, extra in enumerate(LITE_EXTRAS):
        found |= residual_shapes(f"backbone.extras.{place}", *extra)
    for place, channels in enumerate(LITE_CHANNELS):
        for head, width in (("cls", outputs), ("reg", 4)):
            key = f"box_head.predictor.{head}_headers.{place}"
            if place == 5:
                found |= conv(key, 6 * width, channels, 1)
            else:
                found |= conv(f"{key}.conv.0", channels, 1, 3) | norm(f"{key}.conv.1", channels)
                found |= conv(f"{key}.conv.3", 6 * width, channels, 1)
    return found


def lite_head(x: Tensor, state: State, key: str) -> Tensor:
    """SSDLiteBoxPredictor and SeparableConv2d (ssd/layers/separable_conv.py), whose first convolution has a bias."""
    if f"{key}.weight" in state:
        return conv2d(x, state, key)
    x = conv2d(x, state, f"{key}.conv.0", padding=1, groups=x.shape[1])
    return conv2d(batch_norm(x, state, f"{key}.conv.1").clamp(0, 6), state, f"{key}.conv.3")


def lite_forward(state: State, images: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    x = conv2d(images - MEAN, state, "backbone.features.0.0", stride=2, padding=1)
    x = batch_norm(x, state, "backbone.features.0.1").clamp(0, 6)
    place, sources = 1, []
    for _, _, blocks, stride in BLOCKS:
        for block in range(blocks):
            x = residual(x, state, f"backbone.features.{place}", stride if block == 0 else 1)
            if place == 13:
                sources.append(x)
            place += 1
    x = batch_norm(conv2d(x, state, "backbone.features.18.0"), state, "backbone.features.18.1").clamp(0, 6)
    sources.append(x)
    for place in range(4):
        x = residual(x, state, f"backbone.extras.{place}", 2)
        sources.append(x)
    heads = [f"box_head.predictor.{{}}_headers.{place}" for place in range(6)]
    offsets = [lite_head(x, state, head.format("reg")) for x, head in zip(sources, heads, strict=True)]
    logits = [lite_head(x, state, head.format("cls")) for x, head in zip(sources, heads, strict=True)]
    return joined(offsets, 4), joined(logits, outputs)


def test_predictions_on_mobilenet_v2_are_those_of_its_layers():
    state = random_state(lite_shapes(outputs=21))
    weights = convert(arrays(state))
    assert weights is not None
    check_predictions(weights, images(320), lambda images: lite_forward(state, images, 21))


def test_mobilenet_v2_default_boxes_and_rules():
    weights = convert(empty_arrays(lite_shapes(21)))
    assert weights is not None
    check_shapes(weights)
    expected = slow_default_boxes(
        320,
        (20, 10, 5, 3, 2, 1),
        (16, 32, 64, 107, 160, 320),
        (60, 105, 150, 195, 240, 285, 330),
        ((2, 3),) * 6,
        clip=True,
    )
    np.testing.assert_allclose(make_default_boxes(weights.config), expected, rtol=0, atol=1e-7)
    assert weights.class_names == VOC
    config = weights.config
    assert config.postprocess == Postprocess(0.01, 0.45, False, len(expected), 100)
    assert (config.mean, config.scale, config.resize) == ((123, 117, 104), (1, 1, 1), "bilinear")


def test_other_keys_are_not_its_own():
    assert convert({"backbone.vgg.0.weight": np.zeros((64, 3, 3, 3), np.float32)}) is None
    assert convert({"box_head.predictor.reg_headers.0.bias": np.zeros(16, np.float32)}) is None


def test_what_does_not_fit_is_named():
    whole = empty_arrays(vgg_shapes(300, 21))
    with pytest.raises(ValueError, match=r"'backbone\.extras\.2' of lufficc/SSD's SSD300 on VGG-16 is missing"):
        convert({key: tensor for key, tensor in whole.items() if not key.startswith("backbone.extras.2.")})
    with pytest.raises(ValueError, match=r"'backbone\.extras\.8\.weight' belongs to no layer of lufficc/SSD's SSD300"):
        convert(whole | {"backbone.extras.8.weight": np.zeros(1)})
    lite = empty_arrays(lite_shapes(21))
    with pytest.raises(ValueError, match=r"'backbone\.extras\.3\.conv\.2' of .*MobileNetV2 is missing"):
        convert({key: tensor for key, tensor in lite.items() if not key.startswith("backbone.extras.3.conv.2.")})


def test_other_backbones_are_refused_by_name():
    keys = ["backbone.conv1.weight", "box_head.predictor.cls_headers.0.conv.0.weight"]
    with pytest.raises(ValueError, match=r"those on VGG-16, MobileNetV2, MobileNetV3 and EfficientNet-B3 can be conv"):
        convert({key: np.zeros(1) for key in keys})


def golden_shapes(name: str) -> Shapes:
    keys = json.loads((Path(__file__).parents[1] / "golden" / f"lufficc-{name}.keys.json").read_text())
    return {key: tuple(shape) for key, (shape, _) in keys.items()}


@pytest.mark.parametrize("name", ["mobilenet_v3_ssd320_voc0712", "efficient_net_b3_ssd300_voc0712"])
def test_rules_of_mobilenet_v3_and_efficientnet(name: str):
    weights = convert(empty_arrays(golden_shapes(name)))
    assert weights is not None
    check_shapes(weights)
    config = weights.config
    assert config.postprocess == Postprocess(0.01, 0.45, False, config.num_default_boxes, 100)
    assert (config.mean, config.scale, config.resize) == ((123, 117, 104), (1, 1, 1), "bilinear")
    assert config.clip_default_boxes == "all"


def test_mobilenet_v3_of_before_april_2020_has_smaller_kernels_in_the_extra_layers():
    shapes = golden_shapes("mobilenet_v3_ssd320_voc0712")
    for place in range(4):
        key = f"backbone.extras.{place}.conv.3.weight"
        shapes[key] = (*shapes[key][:2], 1, 1)
    weights = convert(empty_arrays(shapes))
    assert weights is not None
    check_shapes(weights)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("mobilenet_v3_ssd320_voc0712", "backbone.extras.1.conv.5.fc.2"),
        ("efficient_net_b3_ssd300_voc0712", "backbone._blocks.7._se_reduce"),
    ],
)
def test_what_does_not_fit_on_mobilenet_v3_and_efficientnet_is_named(name: str, layer: str):
    whole = empty_arrays(golden_shapes(name))
    with pytest.raises(ValueError, match=rf"'{layer}' of lufficc/SSD's .* is missing"):
        convert({key: tensor for key, tensor in whole.items() if not key.startswith(f"{layer}.")})
    with pytest.raises(ValueError, match=r"'backbone\.more\.weight' belongs to no layer of lufficc/SSD's"):
        convert(whole | {"backbone.more.weight": np.zeros(1)})
