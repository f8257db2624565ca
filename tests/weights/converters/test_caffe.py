"""The authors' `.caffemodel`: files written here field by field, and the network of their prototxt applied to them."""

import pickle
import tracemalloc
from math import floor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from multibox.config import Postprocess
from multibox.default_boxes import make_default_boxes
from multibox.detector import Detector
from multibox.presets import preset
from multibox.weights.convert import convert_weights
from multibox.weights.converters.caffe import Layer, convert, is_caffemodel, read_layers
from multibox.weights.converters.class_names import COCO, VOC
from tests.weights.converters.caffe_files import blob, decimal, layer, nested, number, prior_box
from tests.weights.converters.pytorch_ports import (
    Shapes,
    State,
    check_predictions,
    check_shapes,
    conv,
    conv2d,
    empty_arrays,
    images,
    joined,
    l2_norm,
    random_state,
    vgg16_features,
    vgg16_shapes,
)

VGG = (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
    "conv5_1", "conv5_2", "conv5_3", "fc6", "fc7",
)  # fmt: skip

# AddExtraLayers of examples/ssd/ssd_pascal.py (ssd_coco.py has the same), and for 512: name, outputs, inputs, kernel,
# pad, stride
EXTRAS = {
    300: (
        ("conv6_1", 256, 1024, 1, 0, 1), ("conv6_2", 512, 256, 3, 1, 2), ("conv7_1", 128, 512, 1, 0, 1),
        ("conv7_2", 256, 128, 3, 1, 2), ("conv8_1", 128, 256, 1, 0, 1), ("conv8_2", 256, 128, 3, 0, 1),
        ("conv9_1", 128, 256, 1, 0, 1), ("conv9_2", 256, 128, 3, 0, 1),
    ),
    512: (
        ("conv6_1", 256, 1024, 1, 0, 1), ("conv6_2", 512, 256, 3, 1, 2), ("conv7_1", 128, 512, 1, 0, 1),
        ("conv7_2", 256, 128, 3, 1, 2), ("conv8_1", 128, 256, 1, 0, 1), ("conv8_2", 256, 128, 3, 1, 2),
        ("conv9_1", 128, 256, 1, 0, 1), ("conv9_2", 256, 128, 3, 1, 2), ("conv10_1", 128, 256, 1, 0, 1),
        ("conv10_2", 256, 128, 4, 1, 1),
    ),
}  # fmt: skip
SOURCES = {
    300: ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2"),
    512: ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2", "conv10_2"),
}
CHANNELS = (512, 1024, 512, 256, 256, 256, 256)
BOXES = {300: (4, 6, 6, 6, 4, 4), 512: (4, 6, 6, 6, 6, 4, 4)}
STEPS = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}
FIRST_AND_MIN_RATIO = {(300, "voc"): (10, 20), (300, "coco"): (7, 15), (512, "voc"): (7, 15), (512, "coco"): (4, 10)}


def prior_boxes(side: int, scales: str, *, steps: bool = True) -> bytes:
    """With the sizes that ssd_pascal.py and ssd_coco.py compute, which are no whole numbers for 512."""
    first, min_ratio = FIRST_AND_MIN_RATIO[side, scales]
    step = floor((90 - min_ratio) / (len(SOURCES[side]) - 2))
    edges = [first, *range(min_ratio, 91, step)]
    sizes = [(side * ratio / 100.0, side * (ratio + step) / 100.0) for ratio in edges[1:]]
    sizes.insert(0, (side * first / 100.0, side * min_ratio / 100.0))
    return b"".join(
        prior_box(source, low, high, (2, 3) if boxes == 6 else (2,), step if steps else None)
        for source, (low, high), boxes, step in zip(
            SOURCES[side], sizes[: len(SOURCES[side])], BOXES[side], STEPS[side], strict=True
        )
    )


def shapes(side: int, outputs: int) -> Shapes:
    found = vgg16_shapes(VGG) | {"conv4_3_norm.weight": (512,)}
    for name, channels, inputs, kernel, _, _ in EXTRAS[side]:
        found |= conv(name, channels, inputs, kernel)
    for source, channels, boxes in zip(SOURCES[side], CHANNELS, BOXES[side], strict=False):
        found |= conv(f"{source}_mbox_loc", boxes * 4, channels, 3)
        found |= conv(f"{source}_mbox_conf", boxes * outputs, channels, 3)
    return found


def tiny(side: int, outputs: int) -> State:
    """All layers, of one number each but for what tells the number of classes, and the first convolution."""
    found = {key: torch.zeros([1] * len(shape)) for key, shape in shapes(side, outputs).items()}
    found["conv1_1.weight"] = torch.arange(64 * 27.0).view(64, 3, 3, 3)
    found["conv4_3_norm_mbox_loc.bias"] = torch.zeros(16)
    found["conv4_3_norm_mbox_conf.bias"] = torch.zeros(4 * outputs)
    return found


def network(state: State, *, old: bool = False, more: bytes = b"") -> bytes:
    """NetParameter as a solver writes it: the data layer, then layers with and without weights."""
    found = [nested(1, b"VGG_VOC0712_SSD_300x300_train"), layer("data", "AnnotatedData")]
    for name in dict.fromkeys(key.rpartition(".")[0] for key in state):
        parts = [state[f"{name}.{part}"].numpy() for part in ("weight", "bias") if f"{name}.{part}" in state]
        kind = "Normalize" if len(parts) == 1 else "Convolution"
        found += [layer(name, kind, *(blob(part, old=old) for part in parts)), layer(f"{name}_relu", "ReLU")]
    return b"".join([*found, more])


def forward(state: State, images: Tensor, side: int, outputs: int) -> tuple[Tensor, Tensor]:
    """The network of RGB pixels, which Caffe reads as blue, green, red, less 104, 117, 123."""
    x = images.flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    conv4_3, x = vgg16_features(x, state, VGG)
    found = {"conv4_3_norm": l2_norm(conv4_3, state["conv4_3_norm.weight"]), "fc7": x}
    for name, _, _, _, pad, stride in EXTRAS[side]:
        found[name] = x = conv2d(x, state, name, padding=pad, stride=stride).relu()
    offsets = [conv2d(found[source], state, f"{source}_mbox_loc", padding=1) for source in SOURCES[side]]
    logits = [conv2d(found[source], state, f"{source}_mbox_conf", padding=1) for source in SOURCES[side]]
    return joined(offsets, 4), joined(logits, outputs)


def test_predictions_are_those_of_its_layers():
    state = random_state(shapes(300, outputs=3))
    weights = convert(read_layers(memoryview(network(state, more=prior_boxes(300, "voc")))))
    check_shapes(weights)
    check_predictions(weights, images(300), lambda images: forward(state, images, 300, 3))


def test_ssd512_has_the_shapes_of_its_layers():
    tensors = empty_arrays(shapes(512, 81))
    layers = {}
    for name in dict.fromkeys(key.rpartition(".")[0] for key in tensors):
        parts = [tensors[f"{name}.{part}"] for part in ("weight", "bias") if f"{name}.{part}" in tensors]
        layers[name] = Layer("Convolution", tuple(parts), {})
    weights = convert(layers)
    check_shapes(weights)
    assert weights.config.num_default_boxes == 24564
    assert weights.class_names == COCO


@pytest.mark.parametrize(("side", "scales"), FIRST_AND_MIN_RATIO)
@pytest.mark.parametrize("outputs", [21, 81])
def test_default_boxes_are_those_it_was_trained_with(side: int, scales: str, outputs: int):
    """Whatever the number of classes: models fine-tuned on VOC from COCO have COCO's. Sizes are cut to whole pixels."""
    data = network(tiny(side, outputs), more=prior_boxes(side, scales))
    weights = convert(read_layers(memoryview(data)))
    expected = preset(f"ssd{side}-vgg16", scales="voc" if scales == "voc" else "coco")
    assert weights.config == expected
    assert weights.config.postprocess == Postprocess(0.01, 0.45, False, 400, 200)
    assert weights.class_names == {21: VOC, 81: COCO}[outputs]


@pytest.mark.parametrize(("outputs", "scales"), [(21, "voc"), (81, "coco"), (201, "voc")])
def test_without_prior_boxes_the_number_of_classes_tells(outputs: int, scales: str):
    weights = convert(read_layers(memoryview(network(tiny(300, outputs)))))
    assert weights.config == preset("ssd300-vgg16", scales="voc" if scales == "voc" else "coco")
    assert len(set(weights.class_names)) == outputs - 1


def test_without_steps_cells_share_the_image():
    """As PriorBoxLayer does: 300 / 38."""
    data = network(tiny(300, 21), more=prior_boxes(300, "voc", steps=False))
    config = convert(read_layers(memoryview(data))).config
    centers = make_default_boxes(config)[: 38 * 4 : 4, 0]
    np.testing.assert_allclose(centers, (np.arange(38) + 0.5) / 38, rtol=1e-6)


def test_other_aspect_ratios_and_no_large_square():
    """The order of PriorBoxLayer: the square, then each ratio that is not 1, flipped if asked for."""
    others = prior_boxes(300, "voc")
    first = prior_box("conv4_3_norm", 30, 60, (2,), 8)
    assert others.startswith(first)
    content = decimal(1, 30.9) + decimal(3, 1) + decimal(3, 4) + b"\x20\x00" + decimal(6, 0.1) * 2 + decimal(6, 0.2) * 2
    own = layer("conv4_3_norm_mbox_priorbox", "PriorBox", more=nested(203, content))
    config = convert(read_layers(memoryview(network(tiny(300, 21), more=own + others[len(first) :])))).config
    assert config.feature_maps[0].box_sizes == ((30, 30), (60, 15))


def test_first_convolution_takes_rgb():
    weights = convert(read_layers(memoryview(network(tiny(300, 21)))))
    bgr = np.arange(64 * 27, dtype=np.float32).reshape(64, 3, 3, 3)
    rgb = weights.tensors["backbone.conv1_1.weight"]
    for channel in range(3):
        np.testing.assert_array_equal(rgb[:, channel], bgr[:, 2 - channel])


def test_files_of_before_shapes_were_messages():
    """Four numbers for every tensor, so that biases are (1, 1, 1, channels)."""
    data = memoryview(network(tiny(300, 21), old=True))
    assert read_layers(data)["conv4_3_norm_mbox_loc"].blobs[1].shape == (1, 1, 1, 16)
    old, new = convert(read_layers(data)), convert(read_layers(memoryview(network(tiny(300, 21)))))
    assert {key: tensor.shape for key, tensor in old.tensors.items()} == {
        key: tensor.shape for key, tensor in new.tensors.items()
    }


def test_a_file_is_known_by_its_content(tmp_path: Path):
    for name in ("model.caffemodel", "model.weights"):
        path = tmp_path / name
        path.write_bytes(network(tiny(300, 21)))
        assert convert_weights(path).provenance["converted from"] == "weiliu89/caffe"
    others = {
        "a.safetensors": b"\x40\0\0\0\0\0\0\0{}",
        "a.pth": b"PK\x03\x04",
        "a.pkl": pickle.dumps({"a": 1}),
        "a.tflite": b"\x1c\0\0\0TFL3",
        "a.onnx": b"\x08\x07\x12\x07pytorch",
        "a.bin": b"",
        "b.bin": b"\n",
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
        assert not is_caffemodel(tmp_path / name), name


WHOLE = network(tiny(300, 21), more=prior_boxes(300, "voc"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has no layers"),
        (WHOLE[: len(WHOLE) // 2], "not a .caffemodel file, or damaged"),
        (WHOLE[:-1], "not a .caffemodel file, or damaged"),
        (b"weights\n" * 99, "not a .caffemodel file, or damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
        (layer("conv1_1", "Convolution", nested(5, b"abc")), r"tensor of layer 'conv1_1' .* does not fit its 3 bytes"),
        (b"\xa0\x06\x01", "a number instead of a message"),
        (
            network({"ip1.weight": torch.zeros(2, 2), "ip1.bias": torch.zeros(2)}),
            "of no SSD300, SSD512 or MobileNet-SSD; its first",
        ),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, data: bytes, message: str):
    path = tmp_path / "it.caffemodel"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        Detector.convert(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_pickle_is_run(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "run", "yes"))

    path = tmp_path / "it.caffemodel"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"not a \.caffemodel file, or damaged"):
        Detector.convert(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content",
    [
        nested(7, nested(1, number(2**40))) + nested(5, bytes(8)),
        nested(7, nested(1, number(2**63))) + nested(5, bytes(8)),
        nested(7, nested(1, number(2**62) * 60)) + nested(5, bytes(8)),
        number(1 << 3) + number(2**31 - 1) + nested(5, bytes(8)),
        number(5 << 3 | 2) + number(2**40) + bytes(8),
        nested(7, nested(1, number(1) * 100)) + nested(5, bytes(4)),
    ],
    ids=["shape", "negative", "overflow", "old shape", "data", "axes"],
)
def test_declared_sizes_are_not_allocated(tmp_path: Path, content: bytes):
    path = tmp_path / "it.caffemodel"
    path.write_bytes(layer("conv1_1", "Convolution", content))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"not a \.caffemodel file, or damaged"):
            convert_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_what_does_not_fit_is_named(tmp_path: Path):
    whole = tiny(300, 21)

    def refused(state: State, more: bytes = b"") -> str:
        with pytest.raises(ValueError) as caught:
            convert(read_layers(memoryview(network(state, more=more))))
        return str(caught.value)

    without = {key: tensor for key, tensor in whole.items() if not key.startswith("conv8_2.")}
    assert refused(without) == "its layer 'conv8_2' has 0 tensors, expected 2"
    assert refused({key: tensor for key, tensor in whole.items() if key != "fc6.bias"}) == (
        "its layer 'fc6' has 1 tensors, expected 2"
    )
    extra = layer("conv6_1_bn", "BatchNorm", blob(np.zeros(3)))
    assert refused(whole, extra) == "its layer 'conv6_1_bn' is not one of ssd300-vgg16"
    some = prior_box("fc7", 60, 111, (2, 3), 16)
    assert refused(whole, some) == "it has 1 PriorBox layers, expected 6"
    whole["conv4_3_norm_mbox_conf.bias"] = torch.zeros(4)
    assert refused(whole).startswith("its layer 'conv4_3_norm_mbox_conf' has 4 outputs, expected")
    path = tmp_path / "it.caffemodel"
    path.write_bytes(WHOLE)
    with pytest.raises(ValueError, match=r"it\.caffemodel: \d+ tensors do not fit 'ssd300-vgg16' with 20 classes"):
        Detector.convert(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (decimal(1, float("nan")) + decimal(2, 60), "have sizes"),
        (decimal(1, 30) + decimal(2, float("inf")), "have sizes"),
        (decimal(1, 30) + decimal(3, 0), "aspect ratios"),
        (b"", "have sizes"),
        (decimal(1, 30) + decimal(2, 60) * 2, "do not have as many max_size as min_size"),
        (decimal(1, 30) + b"\x28\x01", "clips the default boxes of some"),
        (decimal(1, 30) + decimal(6, 0.1) * 3, "3 variances, expected 1 or 4"),
        (nested(1, b"abc"), "3 bytes cannot be 32-bit numbers"),
    ],
)
def test_bad_default_boxes_are_named(content: bytes, message: str):
    if "variances" not in message:
        content += decimal(6, 0.1) * 2 + decimal(6, 0.2) * 2
    prior = nested(203, content)
    others = prior_boxes(300, "voc")[len(prior_box("conv4_3_norm", 30, 60, (2,), 8)) :]
    own = layer("conv4_3_norm_mbox_priorbox", "PriorBox", more=prior)
    with pytest.raises(ValueError, match=message):
        convert(read_layers(memoryview(network(tiny(300, 21), more=own + others))))
