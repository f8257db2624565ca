"""SSD300 of ssd.pytorch: its layers in its order, with its rules, against our network with the converted weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from multibox.default_boxes import make_default_boxes
from multibox.postprocess import postprocess
from multibox.ssd.build import load_network
from multibox.weights.converters.class_names import COCO, VOC
from multibox.weights.converters.ssd_pytorch import convert
from tests.weights.converters.pytorch_ports import (
    Shapes,
    State,
    arrays,
    check_predictions,
    check_shapes,
    conv,
    conv2d,
    empty_arrays,
    images,
    joined,
    l2_norm,
    random_state,
    slow_default_boxes,
    vgg16_features,
    vgg16_shapes,
)

PLACES = [f"vgg.{place}" for place in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)]

# add_extras of ssd.py makes these of [256, 'S', 512, 128, 'S', 256, 128, 256, 128, 256]: outputs, inputs, kernel
EXTRAS = (
    (256, 1024, 1), (512, 256, 3), (128, 512, 1), (256, 128, 3), (128, 256, 1), (256, 128, 3), (128, 256, 1),
    (256, 128, 3),
)  # fmt: skip

BOXES = (4, 6, 6, 6, 4, 4)
CHANNELS = (512, 1024, 512, 256, 256, 256)


def shapes(outputs: int) -> Shapes:
    found = vgg16_shapes(PLACES) | {"L2Norm.weight": (512,)}
    for place, (channels, inputs, kernel) in enumerate(EXTRAS):
        found |= conv(f"extras.{place}", channels, inputs, kernel)
    for place, (boxes, channels) in enumerate(zip(BOXES, CHANNELS, strict=True)):
        found |= conv(f"loc.{place}", boxes * 4, channels, 3) | conv(f"conf.{place}", boxes * outputs, channels, 3)
    return found


def forward(state: State, images: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """SSD.forward of ssd.py, of RGB pixels: data/voc0712.py takes the means from BGR and turns the channels."""
    x = images - torch.tensor([123.0, 117.0, 104.0]).view(3, 1, 1)
    conv4_3, x = vgg16_features(x, state, PLACES)
    sources = [l2_norm(conv4_3, state["L2Norm.weight"]), x]
    for place in range(8):
        how = {1: {"stride": 2, "padding": 1}, 3: {"stride": 2, "padding": 1}}.get(place, {})
        x = conv2d(x, state, f"extras.{place}", **how).relu()
        if place % 2 == 1:
            sources.append(x)
    offsets = [conv2d(source, state, f"loc.{place}", padding=1) for place, source in enumerate(sources)]
    logits = [conv2d(source, state, f"conf.{place}", padding=1) for place, source in enumerate(sources)]
    return joined(offsets, 4), joined(logits, outputs)


def test_predictions_are_those_of_its_layers():
    state = random_state(shapes(outputs=3))
    weights = convert(arrays(state))
    assert weights is not None
    check_predictions(weights, images(300), lambda images: forward(state, images, 3))


@pytest.mark.parametrize(
    ("outputs", "names", "sizes"),
    [
        (21, VOC, (30, 60, 111, 162, 213, 264, 315)),
        (81, COCO, (21, 45, 99, 153, 207, 261, 315)),
        (4, ("class 1", "class 2", "class 3"), (21, 45, 99, 153, 207, 261, 315)),
    ],
)
def test_names_and_default_boxes(outputs: int, names: tuple[str, ...], sizes: tuple[int, ...]):
    weights = convert(empty_arrays(shapes(outputs)))
    assert weights is not None
    assert weights.class_names == names
    check_shapes(weights)
    expected = slow_default_boxes(
        300,
        (38, 19, 10, 5, 3, 1),
        (8, 16, 32, 64, 100, 300),
        sizes,
        ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        clip=True,
    )
    assert len(expected) == 8732
    np.testing.assert_allclose(make_default_boxes(weights.config), expected, rtol=0, atol=1e-7)


def test_clipping_changes_134_default_boxes():
    """As computed for SSD300 on VOC: 114 centers on the 10x10 map, and 20 boxes that are longer than the image."""
    weights = convert(empty_arrays(shapes(21)))
    assert weights is not None
    clipped = make_default_boxes(weights.config)
    whole = make_default_boxes(replace(weights.config, clip_default_boxes="none"))
    assert (clipped != whole).any(axis=1).sum() == 134


def test_coco_as_its_config_counts_it():
    """data/config.py has 201 outputs for COCO: all are kept, so that scores are the same."""
    weights = convert(empty_arrays(shapes(201)))
    assert weights is not None
    assert weights.class_names[:80] == COCO
    assert len(set(weights.class_names)) == 200
    check_shapes(weights)


def slow_detect(offsets: Tensor, scores: Tensor, default_boxes: Tensor) -> dict[tuple[int, int], list[float]]:
    """Detect.forward with (0, 200, 0.01, 0.45), and nms of layers/box_utils.py: boxes by class and default box."""
    kept = {}
    for label in range(1, scores.shape[1]):
        above = [place for place in range(len(scores)) if scores[place, label] > 0.01]
        order = sorted(above, key=lambda place: float(scores[place, label]))[-200:]
        while order:
            best = order.pop()
            kept[label - 1, best] = decoded(offsets[best], default_boxes[best])
            order = [
                place
                for place in order
                if overlap(decoded(offsets[place], default_boxes[place]), kept[label - 1, best]) <= 0.45
            ]
    return kept


def decoded(offset: Tensor, default_box: Tensor) -> list[float]:
    x, y, width, height = default_box.tolist()
    moved_x, moved_y, wider, higher = offset.tolist()
    x, y = x + moved_x * 0.1 * width, y + moved_y * 0.1 * height
    width, height = width * np.exp(wider * 0.2), height * np.exp(higher * 0.2)
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def overlap(first: list[float], second: list[float]) -> float:
    width = max(min(first[2], second[2]) - max(first[0], second[0]), 0)
    height = max(min(first[3], second[3]) - max(first[1], second[1]), 0)
    both = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(both) - width * height)


def test_postprocessing_is_its_own():
    """Of 900 boxes with a good score 200 a class enter suppression; more than 200 in all are kept."""
    weights = convert(empty_arrays(shapes(3)))
    assert weights is not None
    torch.manual_seed(0)
    chosen = torch.randperm(8732)[:900]
    default_boxes = torch.from_numpy(make_default_boxes(weights.config))[chosen]
    offsets, logits = torch.randn(900, 4), torch.randn(900, 3) + torch.tensor([0.0, 1, 1])
    config = weights.config
    arrays_of_three = (values.numpy() for values in (offsets, logits, default_boxes))
    found = postprocess(*arrays_of_three, config, settings=config.postprocess)
    expected = slow_detect(offsets, logits.softmax(1), default_boxes)
    pairs = list(zip(found.labels.tolist(), found.default_box_indices.tolist(), strict=True))
    assert len(expected) > 200
    assert sorted(pairs) == sorted(expected)
    np.testing.assert_allclose(found.boxes, [expected[pair] for pair in pairs], atol=1e-5)
    assert config.clip_boxes is False


def test_pixels_are_prepared_as_eval_does():
    weights = convert(empty_arrays(shapes(21)))
    assert weights is not None
    config = weights.config
    assert (config.height, config.width, config.resize) == (300, 300, "bilinear")
    assert (config.mean, config.scale) == ((123, 117, 104), (1, 1, 1))


@pytest.mark.parametrize("key", ["priors", "extras.3.weight", "loc.5.bias"])
def test_other_keys_are_not_its_own(key: str):
    assert convert({key: np.zeros(4, np.float32)}) is None


def test_what_does_not_fit_is_named():
    whole = empty_arrays(shapes(21))
    with pytest.raises(ValueError, match=r"the layer 'extras\.7' of ssd\.pytorch's SSD300 is missing"):
        convert({key: tensor for key, tensor in whole.items() if not key.startswith("extras.7")})
    with pytest.raises(
        ValueError, match=r"its tensor 'extras\.8\.weight' belongs to no layer of ssd\.pytorch's SSD300"
    ):
        convert(whole | {"extras.8.weight": np.zeros(3)})
    with pytest.raises(
        ValueError, match=r"its layer 'conf\.0' has 83 outputs, expected as many for each of the 4 boxes"
    ):
        convert(whole | {"conf.0.bias": np.zeros(83)})
    weights = convert(whole | {"vgg.31.weight": np.zeros((1024, 512, 7, 7), np.float32)})
    assert weights is not None
    with pytest.raises(ValueError, match=r"1 tensor does not fit .* 'backbone\.conv6\.weight': \(1024, 512, 7, 7\)"):
        load_network(weights.config, weights.tensors, num_classes=20)
