"""qfgaohao/pytorch-ssd: its layers in its order, with its rules, against our networks with the converted weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from multibox.config import Postprocess
from multibox.default_boxes import make_default_boxes
from multibox.weights.converters.class_names import VOC
from multibox.weights.converters.qfgaohao import convert
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
    norm,
    random_state,
    slow_default_boxes,
    vgg16_features,
    vgg16_shapes,
)

PLACES = [f"base_net.{place}" for place in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)]


def extra_shapes(pairs: tuple[tuple[int, int, int], ...]) -> Shapes:
    """Sequential(Conv2d, ReLU, Conv2d, ReLU): inputs, inside, outputs."""
    found: Shapes = {}
    for place, (inputs, inside, outputs) in enumerate(pairs):
        found |= conv(f"extras.{place}.0", inside, inputs, 1) | conv(f"extras.{place}.2", outputs, inside, 3)
    return found


def head_shapes(boxes: tuple[int, ...], channels: tuple[int, ...], outputs: int) -> Shapes:
    found: Shapes = {}
    for place, (count, width) in enumerate(zip(boxes, channels, strict=True)):
        found |= conv(f"classification_headers.{place}", count * outputs, width, 3)
        found |= conv(f"regression_headers.{place}", count * 4, width, 3)
    return found


def heads(sources: list[Tensor], state: State, outputs: int) -> tuple[Tensor, Tensor]:
    offsets = [conv2d(x, state, f"regression_headers.{place}", padding=1) for place, x in enumerate(sources)]
    logits = [conv2d(x, state, f"classification_headers.{place}", padding=1) for place, x in enumerate(sources)]
    return joined(offsets, 4), joined(logits, outputs)


# vision/ssd/vgg_ssd.py


def vgg16_ssd_shapes(outputs: int) -> Shapes:
    return (
        vgg16_shapes(PLACES)
        | norm("source_layer_add_ons.0", 512)
        | extra_shapes(((1024, 256, 512), (512, 128, 256), (256, 128, 256), (256, 128, 256)))
        | head_shapes((4, 6, 6, 6, 4, 4), (512, 1024, 512, 256, 256, 256), outputs)
    )


def vgg16_ssd(state: State, images: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    conv4_3, x = vgg16_features(images - torch.tensor([123.0, 117.0, 104.0]).view(3, 1, 1), state, PLACES)
    sources = [batch_norm(conv4_3, state, "source_layer_add_ons.0"), x]
    for place, how in enumerate(({"stride": 2, "padding": 1}, {"stride": 2, "padding": 1}, {}, {})):
        x = conv2d(conv2d(x, state, f"extras.{place}.0").relu(), state, f"extras.{place}.2", **how).relu()
        sources.append(x)
    return heads(sources, state, outputs)


# vision/ssd/mobilenetv1_ssd.py, vision/nn/mobilenet.py: inputs, outputs and stride of conv_dw
MOBILENET_V1 = (
    (32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1),
    (512, 512, 1), (512, 512, 1), (512, 512, 1), (512, 512, 1), (512, 1024, 2), (1024, 1024, 1),
)  # fmt: skip


def mb1_ssd_shapes(outputs: int) -> Shapes:
    found = conv("base_net.0.0", 32, 3, 3, bias=False) | norm("base_net.0.1", 32)
    for block, (inputs, channels, _) in enumerate(MOBILENET_V1, start=1):
        found |= conv(f"base_net.{block}.0", inputs, 1, 3, bias=False) | norm(f"base_net.{block}.1", inputs)
        found |= conv(f"base_net.{block}.3", channels, inputs, 1, bias=False) | norm(f"base_net.{block}.4", channels)
    found |= extra_shapes(((1024, 256, 512), (512, 128, 256), (256, 128, 256), (256, 128, 256)))
    return found | head_shapes((6,) * 6, (512, 1024, 512, 256, 256, 256), outputs)


def mb1_ssd(state: State, images: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """SSD.forward with source_layer_indexes [12, 14]: the layers before the twelfth, and all."""
    x = conv2d((images - 127) / 128, state, "base_net.0.0", stride=2, padding=1)
    x = batch_norm(x, state, "base_net.0.1").relu()
    sources = []
    for block, (inputs, _, stride) in enumerate(MOBILENET_V1, start=1):
        if block == 12:
            sources.append(x)
        x = conv2d(x, state, f"base_net.{block}.0", stride=stride, padding=1, groups=inputs)
        x = conv2d(batch_norm(x, state, f"base_net.{block}.1").relu(), state, f"base_net.{block}.3")
        x = batch_norm(x, state, f"base_net.{block}.4").relu()
    sources.append(x)
    for place in range(4):
        x = conv2d(x, state, f"extras.{place}.0").relu()
        x = conv2d(x, state, f"extras.{place}.2", stride=2, padding=1).relu()
        sources.append(x)
    return heads(sources, state, outputs)


# vision/ssd/mobilenet_v2_ssd_lite.py, vision/nn/mobilenet_v2.py: expansion, channels, blocks, stride of the first
MOBILENET_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
LITE_EXTRAS = ((1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 64))


def residual_shapes(key: str, inputs: int, inside: int, outputs: int) -> Shapes:
    """InvertedResidual, a flat list of convolutions (0, 3, 6), BatchNorm and ReLU6."""
    found: Shapes = {}
    place = 0
    if inside != inputs:
        found |= conv(f"{key}.conv.0", inside, inputs, 1, bias=False) | norm(f"{key}.conv.1", inside)
        place = 3
    found |= conv(f"{key}.conv.{place}", inside, 1, 3, bias=False) | norm(f"{key}.conv.{place + 1}", inside)
    place += 3
    return (
        found | conv(f"{key}.conv.{place}", outputs, inside, 1, bias=False) | norm(f"{key}.conv.{place + 1}", outputs)
    )


def mb2_ssd_lite_shapes(outputs: int, width: float = 1.0) -> Shapes:
    """`width` is `width_mult` of create_mobilenetv2_ssd_lite: channels are `int(c * width_mult)`."""
    inputs, place = int(32 * width), 1
    found = conv("base_net.0.0", inputs, 3, 3, bias=False) | norm("base_net.0.1", inputs)
    for expansion, channels, blocks, _ in MOBILENET_V2:
        channels = int(channels * width)
        for _ in range(blocks):
            found |= residual_shapes(f"base_net.{place}", inputs, inputs * expansion, channels)
            inputs, place = channels, place + 1
    found |= conv("base_net.18.0", 1280, inputs, 1, bias=False) | norm("base_net.18.1", 1280)
    for place, extra in enumerate(LITE_EXTRAS):
        found |= residual_shapes(f"extras.{place}", *extra)
    for place, channels in enumerate((round(576 * width), 1280, 512, 256, 256, 64)):
        for head, width in (("classification", outputs), ("regression", 4)):
            key = f"{head}_headers.{place}"
            if place == 5:
                found |= conv(key, 6 * width, channels, 1)
            else:
                found |= conv(f"{key}.0", channels, 1, 3) | norm(f"{key}.1", channels)
                found |= conv(f"{key}.3", 6 * width, channels, 1)
    return found


def mb2_ssd_lite(state: State, images: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """SSD.forward with source_layer_indexes [GraphPath(14, 'conv', 3), 19]."""
    x = conv2d((images - 127) / 128, state, "base_net.0.0", stride=2, padding=1)
    x = batch_norm(x, state, "base_net.0.1").clamp(0, 6)
    sources: list[Tensor] = []
    place = 1
    for expansion, _, blocks, stride in MOBILENET_V2:
        for block in range(blocks):
            key, step, y = f"base_net.{place}.conv", stride if block == 0 else 1, x
            first = 0
            if expansion != 1:
                y = batch_norm(conv2d(y, state, f"{key}.0"), state, f"{key}.1").clamp(0, 6)
                first = 3
            if place == 14:
                sources.append(y)
            y = conv2d(y, state, f"{key}.{first}", stride=step, padding=1, groups=y.shape[1])
            y = batch_norm(y, state, f"{key}.{first + 1}").clamp(0, 6)
            y = batch_norm(conv2d(y, state, f"{key}.{first + 3}"), state, f"{key}.{first + 4}")
            x = x + y if block > 0 else y
            place += 1
    x = batch_norm(conv2d(x, state, "base_net.18.0"), state, "base_net.18.1").clamp(0, 6)
    sources.append(x)
    for extra in range(4):
        key = f"extras.{extra}.conv"
        x = batch_norm(conv2d(x, state, f"{key}.0"), state, f"{key}.1").clamp(0, 6)
        x = conv2d(x, state, f"{key}.3", stride=2, padding=1, groups=x.shape[1])
        x = batch_norm(x, state, f"{key}.4").clamp(0, 6)
        x = batch_norm(conv2d(x, state, f"{key}.6"), state, f"{key}.7")
        sources.append(x)

    def lite_head(source: Tensor, key: str) -> Tensor:
        if f"{key}.weight" in state:
            return conv2d(source, state, key)
        source = conv2d(source, state, f"{key}.0", padding=1, groups=source.shape[1])
        return conv2d(batch_norm(source, state, f"{key}.1").clamp(0, 6), state, f"{key}.3")

    offsets = [lite_head(x, f"regression_headers.{place}") for place, x in enumerate(sources)]
    logits = [lite_head(x, f"classification_headers.{place}") for place, x in enumerate(sources)]
    return joined(offsets, 4), joined(logits, outputs)


class Port(NamedTuple):
    shapes: Callable[[int], Shapes]
    forward: Callable[[State, Tensor, int], tuple[Tensor, Tensor]]
    default_boxes: Callable[[], np.ndarray]
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]


def vgg_default_boxes() -> np.ndarray:
    """vision/ssd/config/vgg_ssd_config.py."""
    return slow_default_boxes(
        300,
        (38, 19, 10, 5, 3, 1),
        (8, 16, 32, 64, 100, 300),
        (30, 60, 111, 162, 213, 264, 315),
        ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        clip=True,
    )


def mobilenet_default_boxes() -> np.ndarray:
    """vision/ssd/config/mobilenetv1_ssd_config.py."""
    return slow_default_boxes(
        300,
        (19, 10, 5, 3, 2, 1),
        (16, 32, 64, 100, 150, 300),
        (60, 105, 150, 195, 240, 285, 330),
        ((2, 3),) * 6,
        clip=True,
    )


PORTS = {
    "vgg16-ssd": Port(vgg16_ssd_shapes, vgg16_ssd, vgg_default_boxes, (123, 117, 104), (1, 1, 1)),
    "mb1-ssd": Port(mb1_ssd_shapes, mb1_ssd, mobilenet_default_boxes, (127, 127, 127), (128, 128, 128)),
    "mb2-ssd-lite": Port(mb2_ssd_lite_shapes, mb2_ssd_lite, mobilenet_default_boxes, (127, 127, 127), (128, 128, 128)),
}


@pytest.mark.parametrize("name", PORTS)
def test_predictions_are_those_of_its_layers(name: str):
    port = PORTS[name]
    state = random_state(port.shapes(5))
    weights = convert(arrays(state))
    assert weights is not None
    assert weights.provenance["converted from"] == f"qfgaohao/pytorch-ssd, {name}"
    check_predictions(weights, images(300), lambda images: port.forward(state, images, 5))


@pytest.mark.parametrize("name", PORTS)
def test_default_boxes_and_rules(name: str):
    port = PORTS[name]
    weights = convert(empty_arrays(port.shapes(21)))
    assert weights is not None
    check_shapes(weights)
    np.testing.assert_allclose(make_default_boxes(weights.config), port.default_boxes(), rtol=0, atol=1e-7)
    config = weights.config
    assert weights.class_names == VOC
    assert config.postprocess == Postprocess(0.01, 0.45, False, 200, 200 * 20)
    assert (config.mean, config.scale, config.resize) == (port.mean, port.scale, "bilinear")


@pytest.mark.parametrize("width", [0.875, 0.75, 0.5, 0.25, 0.125])
def test_mb2_ssd_lite_with_a_width_multiplier(width: float):
    state = random_state(mb2_ssd_lite_shapes(5, width))
    weights = convert(arrays(state))
    assert weights is not None
    assert weights.config.backbone == f"mobilenet-v2-{width:g}"
    check_shapes(weights)
    check_predictions(weights, images(300), lambda images: mb2_ssd_lite(state, images, 5))


def test_a_width_with_which_the_project_does_not_run_is_refused():
    with pytest.raises(
        ValueError, match=r"11 channels in its first layer; .* 0\.34375, .* does not run; it does with 1,"
    ):
        convert(empty_arrays(mb2_ssd_lite_shapes(5, 0.35)))


def golden_shapes(name: str) -> Shapes:
    keys = json.loads((Path(__file__).parents[1] / "golden" / f"qfgaohao-{name}.keys.json").read_text())
    return {key: tuple(shape) for key, (shape, _) in keys.items()}


LITE = ("mb1-ssd-lite", "sq-ssd-lite", "mb3-large-ssd-lite", "mb3-small-ssd-lite")


@pytest.mark.parametrize("name", LITE)
def test_rules_of_the_lite_detectors(name: str):
    weights = convert(empty_arrays(golden_shapes(name)))
    assert weights is not None
    assert weights.provenance["converted from"] == f"qfgaohao/pytorch-ssd, {name}"
    check_shapes(weights)
    config = weights.config
    assert config.postprocess == Postprocess(0.01, 0.45, False, 200, 200 * 20)
    assert (config.mean, config.scale, config.resize) == ((127,) * 3, (128,) * 3, "bilinear")
    assert config.clip_default_boxes == "all"


@pytest.mark.parametrize("name", LITE)
def test_what_does_not_fit_in_the_lite_detectors_is_named(name: str):
    whole = empty_arrays(golden_shapes(name))
    with pytest.raises(ValueError, match=rf"the layer 'regression_headers\.5' of qfgaohao's {name} is missing"):
        convert({key: tensor for key, tensor in whole.items() if not key.startswith("regression_headers.5.")})
    with pytest.raises(ValueError, match=rf"'extras\.9\.0\.weight' belongs to no layer of qfgaohao's {name}"):
        convert(whole | {"extras.9.0.weight": np.zeros(1)})


def test_files_from_before_the_counter_of_batches():
    whole = empty_arrays(PORTS["mb1-ssd"].shapes(21))
    weights = convert({key: tensor for key, tensor in whole.items() if not key.endswith("num_batches_tracked")})
    assert weights is not None
    check_shapes(weights)


@pytest.mark.parametrize("keys", [["base_net.0.0.weight"], ["classification_headers.5.bias", "base_net.12.3.weight"]])
def test_other_keys_are_not_its_own(keys: list[str]):
    """Among them the face detectors that were made from this project, whose base network has one block less."""
    assert convert({key: np.zeros(12, np.float32) for key in keys}) is None


@pytest.mark.parametrize("name", PORTS)
def test_what_does_not_fit_is_named(name: str):
    whole = empty_arrays(PORTS[name].shapes(21))
    with pytest.raises(ValueError, match=rf"the layer 'regression_headers\.5' of qfgaohao's {name} is missing"):
        convert({key: tensor for key, tensor in whole.items() if not key.startswith("regression_headers.5.")})
    with pytest.raises(ValueError, match=rf"'extras\.4\.0\.weight' belongs to no layer of qfgaohao's {name}"):
        convert(whole | {"extras.4.0.weight": np.zeros(1)})
    with pytest.raises(ValueError, match=r"'classification_headers\.5' has 5 outputs"):
        convert(whole | {"classification_headers.5.bias": np.zeros(5)})
