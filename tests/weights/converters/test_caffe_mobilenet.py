"""chuanqi305's MobileNet-SSD: files written here, and the network of its prototxt applied to them in 64 bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from multibox.boxes import center_to_corner
from multibox.config import Postprocess
from multibox.default_boxes import make_default_boxes
from multibox.detector import Detector
from multibox.ssd.build import load_network
from multibox.weights.convert import convert_weights
from multibox.weights.converters.caffe import convert, read_layers
from multibox.weights.converters.class_names import VOC
from multibox.weights.file import Weights
from tests.weights.converters.caffe_files import blob, decimal, layer, nested, number
from tests.weights.converters.pytorch_ports import State, check_shapes, images, joined, random_state
from tests.weights.converters.test_caffe_prior_box import Prior, caffe_prior_boxes

# gen.py: outputs and stride of conv1 to conv13; outputs, kernel and stride of the extra layers
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
EXTRAS = (
    ("conv14_1", 256, 1, 1), ("conv14_2", 512, 3, 2), ("conv15_1", 128, 1, 1), ("conv15_2", 256, 3, 2),
    ("conv16_1", 128, 1, 1), ("conv16_2", 256, 3, 2), ("conv17_1", 64, 1, 1), ("conv17_2", 128, 3, 2),
)  # fmt: skip
SOURCES = {"conv11": 512, "conv13": 1024, "conv14_2": 512, "conv15_2": 256, "conv16_2": 256, "conv17_2": 128}
GRIDS = (19, 10, 5, 3, 2, 1)
PRIORS = (
    Prior((60,), (), (2,)),
    *(Prior((low,), (high,), (2, 3)) for low, high in ((105, 150), (150, 195), (195, 240), (240, 285), (285, 300))),
)
"""deploy.prototxt"""


def layers(width: float = 1.0) -> list[tuple[str, int, int, int, int, int]]:
    """Name, inputs, outputs, kernel, stride and groups of every convolution but the heads'."""
    channels = int(32 * width)
    found = [("conv0", 3, channels, 3, 2, 1)]
    for place, (outputs, stride) in enumerate(BLOCKS, start=1):
        outputs = int(outputs * width)
        found.append((f"conv{place}/dw", channels, channels, 3, stride, channels))
        found.append((f"conv{place}", channels, outputs, 1, 1, 1))
        channels = outputs
    for name, outputs, kernel, stride in EXTRAS:
        found.append((name, channels, outputs, kernel, stride, 1))
        channels = outputs
    return found


def trained(outputs: int = 21, *, width: float = 1.0) -> State:
    """What the file of the training holds: convolutions without bias, BatchNorm with its factor, Scale."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, inputs, channels, kernel, _, groups in layers(width):
        shapes[f"{name}.weight"] = (channels, inputs // groups, kernel, kernel)
        shapes |= {f"{name}/bn.running_mean": (channels,), f"{name}/bn.running_var": (channels,)}
        shapes |= {f"{name}/scale.weight": (channels,), f"{name}/scale.bias": (channels,)}
    for place, (source, channels) in enumerate(SOURCES.items()):
        boxes = 3 if place == 0 else 6
        if place < 2:
            channels = int(channels * width)
        for part, count in (("loc", 4), ("conf", outputs)):
            shapes[f"{source}_mbox_{part}.weight"] = (boxes * count, channels, 1, 1)
            shapes[f"{source}_mbox_{part}.bias"] = (boxes * count,)
    state = random_state(shapes)
    return state | {f"{name}/bn.factor": torch.tensor([4.0]) for name, *_ in layers(width)}


def merged(state: State) -> State:
    """What merge_bn.py makes of it."""
    found = {key: tensor for key, tensor in state.items() if "_mbox_" in key}
    for name, *_ in layers():
        mean, variance, factor = (state[f"{name}/bn.{part}"] for part in ("running_mean", "running_var", "factor"))
        rstd = 1 / torch.sqrt(variance / factor + 1e-5)
        found[f"{name}.weight"] = state[f"{name}.weight"] * (rstd * state[f"{name}/scale.weight"]).view(-1, 1, 1, 1)
        bias = -mean / factor * rstd * state[f"{name}/scale.weight"] + state[f"{name}/scale.bias"]
        found[f"{name}.bias"] = bias
    return found


PARTS = {"/bn": ("running_mean", "running_var", "factor"), "/scale": ("weight", "bias"), "": ("weight", "bias")}


def network(state: State, *, more: bytes = b"", old_layers: bool = False) -> bytes:
    """NetParameter as `Net.save` writes it, with Convolution, BatchNorm, Scale and ReLU layers."""
    found = [nested(1, b"MobileNet-SSD")]
    for name in dict.fromkeys(key.rpartition(".")[0] for key in state):
        suffix = f"/{name.rpartition('/')[2]}" if name.endswith(("/bn", "/scale")) else ""
        kind = {"/bn": "BatchNorm", "/scale": "Scale", "": "Convolution"}[suffix]
        blobs = [blob(state[f"{name}.{part}"].numpy()) for part in PARTS[suffix] if f"{name}.{part}" in state]
        if old_layers:  # V1LayerParameter: bottom 2, name 4, type 5 (CONVOLUTION is 4), blobs 6
            content = nested(2, b"data") + nested(4, name.encode()) + b"\x28\x04"
            found.append(nested(2, content + b"".join(nested(6, one) for one in blobs)))
        else:
            found += [layer(name, kind, *blobs), layer(f"{name}/relu", "ReLU")]
    return b"".join([*found, more])


def prior_layers() -> bytes:
    return b"".join(
        layer(f"{source}_mbox_priorbox", "PriorBox", more=nested(203, prior.message()))
        for source, prior in zip(SOURCES, PRIORS, strict=True)
    )


def detection_output(score: float = 0.25, top_k: int = 100, keep: int = 100, more: bytes = b"") -> bytes:
    nms = decimal(1, 0.45) + number(2 << 3) + number(top_k)
    content = number(1 << 3) + number(21) + nested(4, nms) + b"\x30\x02" + number(7 << 3) + number(keep)
    return layer("detection_out", "DetectionOutput", more=nested(204, content + decimal(9, score) + more))


def input_layer(height: int, width: int) -> bytes:
    shape = nested(1, b"".join(map(number, (1, 3, height, width))))
    return layer("input", "Input", more=nested(143, nested(1, shape)))


def forward(state: State, pixels: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """deploy.prototxt applied to RGB pixels, which Caffe reads as blue, green, red."""
    state = {key: tensor.double() for key, tensor in state.items()}
    x = (pixels.double().flip(1) - 127.5) * 0.007843
    found: dict[str, Tensor] = {}
    for name, _, _, kernel, stride, groups in layers():
        x = F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, kernel // 2, groups=groups)
        if f"{name}/bn.factor" in state:
            mean, variance, factor = (state[f"{name}/bn.{part}"].view(-1, 1, 1) for part in PARTS["/bn"])
            x = (x - mean / factor) / (variance / factor + 1e-5).sqrt()
            x = x * state[f"{name}/scale.weight"].view(-1, 1, 1) + state[f"{name}/scale.bias"].view(-1, 1, 1)
        x = found[name] = x.relu()
    heads = {
        part: [
            F.conv2d(found[source], state[f"{source}_mbox_{part}.weight"], state[f"{source}_mbox_{part}.bias"])
            for source in SOURCES
        ]
        for part in ("loc", "conf")
    }
    return joined(heads["loc"], 4), joined(heads["conf"], outputs)


def converted(data: bytes) -> Weights:
    return convert(read_layers(memoryview(data)))


@pytest.mark.parametrize("deploy", [True, False], ids=["deploy", "train"])
def test_predictions_are_those_of_its_layers(deploy: bool):
    state = trained(outputs=4)
    state = merged(state) if deploy else state
    weights = converted(network(state, more=prior_layers()))
    check_shapes(weights)
    pixels = images(300)
    ours = load_network(weights.config, weights.tensors, num_classes=3).double()
    with torch.inference_mode():
        for found, expected in zip(ours(pixels), forward(state, pixels, outputs=4), strict=True):
            assert expected.std() > 0.01
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def small(state: State) -> State:
    """Of one number each but for what tells the network and the number of classes."""
    kept = ("conv0.weight", "conv11_mbox_conf.bias")
    return {
        key: tensor if key in kept else tensor.flatten()[:1].view([1] * tensor.ndim) for key, tensor in state.items()
    }


TRAINED = trained()
DEPLOYED = merged(TRAINED)


def test_its_own_rules_are_in_the_config():
    weights = converted(network(small(DEPLOYED), more=prior_layers() + detection_output()))
    config = weights.config
    assert weights.class_names == VOC
    assert weights.provenance == {"converted from": "chuanqi305/MobileNet-SSD"}
    assert (config.height, config.width, config.resize) == (300, 300, "bilinear")
    assert config.mean == (127.5,) * 3
    assert config.scale == pytest.approx((1 / 0.007843,) * 3)
    assert (config.center_variance, config.size_variance, config.clip_default_boxes) == (0.1, 0.2, "none")
    assert config.num_default_boxes == 1917
    assert config.postprocess == Postprocess(0.01, 0.45, False, 100, 100)
    assert config.detect_score_threshold == 0.25


@pytest.mark.parametrize("priors", [True, False], ids=["in the file", "not in the file"])
def test_default_boxes_are_those_of_caffe(priors: bool):
    weights = converted(network(small(DEPLOYED), more=prior_layers() if priors else b""))
    expected = caffe_prior_boxes([(prior, grid, grid) for prior, grid in zip(PRIORS, GRIDS, strict=True)], 300, 300)
    np.testing.assert_allclose(center_to_corner(make_default_boxes(weights.config)), expected, rtol=0, atol=1e-6)


def test_old_layers_are_read_as_new_ones(tmp_path: Path):
    """V1LayerParameter, whose types are numbers; recognized without the suffix too."""
    old, new = (converted(network(small(DEPLOYED), old_layers=old)) for old in (True, False))
    assert old.config == new.config
    for key, tensor in new.tensors.items():
        np.testing.assert_array_equal(old.tensors[key], tensor)
    path = tmp_path / "model.weights"
    path.write_bytes(network(small(DEPLOYED), old_layers=True))
    assert convert_weights(path).config == new.config


def test_first_convolution_takes_rgb():
    rgb = converted(network(small(DEPLOYED))).tensors["backbone.conv0.convolution.weight"]
    np.testing.assert_array_equal(rgb[:, ::-1], DEPLOYED["conv0.weight"].numpy())


def test_numbers_of_64_bits_are_read():
    """`double_data`, field 8 of a BlobProto."""
    bias = DEPLOYED["conv17_2_mbox_loc.bias"].double().numpy()
    content = nested(8, bias.astype("<f8").tobytes()) + nested(7, nested(1, number(len(bias))))
    weight = blob(np.zeros((1, 1, 1, 1)))
    data = network({key: tensor for key, tensor in small(DEPLOYED).items() if not key.startswith("conv17_2_mbox_loc")})
    weights = converted(data + layer("conv17_2_mbox_loc", "Convolution", weight, content))
    np.testing.assert_array_equal(weights.tensors["offsets.conv17_2.bias"], bias.astype(np.float32))


@pytest.mark.parametrize("width", [0.5, 0.25])
def test_narrower_networks_fit(width: float):
    """`gen.py --size`: the extra layers keep their channels."""
    check_shapes(converted(network(trained(outputs=3, width=width))))


def test_another_input_size_is_that_of_the_input_layer():
    weights = converted(network(small(DEPLOYED), more=input_layer(480, 640) + prior_layers()))
    assert (weights.config.height, weights.config.width) == (480, 640)
    grids = ((30, 40), (15, 20), (8, 10), (4, 5), (2, 3), (1, 2))
    expected = caffe_prior_boxes([(prior, *grid) for prior, grid in zip(PRIORS, grids, strict=True)], 480, 640)
    np.testing.assert_allclose(center_to_corner(make_default_boxes(weights.config)), expected, rtol=0, atol=1e-6)


def test_eps_of_batch_norm_goes_into_the_variance():
    one = layer("conv0/bn", "BatchNorm", *(blob(np.ones(1)) for _ in range(3)), more=nested(139, decimal(3, 0.001)))
    state = {key: tensor for key, tensor in small(TRAINED).items() if not key.startswith("conv0/bn")}
    variance = converted(network(state, more=one)).tensors["backbone.conv0.norm.running_var"]
    np.testing.assert_allclose(variance, 1.00099, rtol=1e-6)


@pytest.mark.parametrize(
    ("score", "top_k", "keep", "expected", "shown"),
    [
        (0.01, 400, 200, Postprocess(0.01, 0.45, False, 400, 200), 0.5),
        (0.0, 400, 2**64 - 1, Postprocess(0.0, 0.45, False, 400, 1917), 0.5),  # keep_top_k: -1
        (0.6, 2**64 - 1, 10, Postprocess(0.01, 0.45, False, 1917, 10), 0.6),
    ],
)
def test_limits_are_those_of_the_detection_output(
    score: float, top_k: int, keep: int, expected: Postprocess, shown: float
):
    config = converted(network(small(DEPLOYED), more=detection_output(score, top_k, keep))).config
    assert config.postprocess == expected
    assert config.detect_score_threshold == shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (detection_output(more=b"\x30\x01"), "code_type 1, expected 2"),
        (detection_output(more=b"\x18\x14"), "background_label_id 20, expected 0"),
        (detection_output(more=b"\x10\x00"), "share_location 0, expected 1"),
        (detection_output(more=b"\x40\x01"), "variance_encoded_in_target 1, expected 0"),
        (detection_output(more=nested(4, decimal(1, 0.45) + decimal(3, 0.9))), r"adaptive suppression \(eta 0\.9\)"),
        (layer("conv3/relu6", "ReLU6"), "MobileNet-SSD with ReLU6"),
        (layer("conv18", "Convolution", blob(np.zeros(1))), "its layer 'conv18' is not one of ssd300-mobilenetv1"),
        (layer("conv9/bn", "BatchNorm", blob(np.zeros(1))), "its layer 'conv9' has 2 tensors|'conv9/bn' has 1 tensors"),
    ],
)
def test_what_does_not_fit_is_named(more: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        converted(network(small(DEPLOYED), more=more))


@pytest.mark.parametrize(("shape", "channels"), [((), 0), ((1,), 1), ((48, 3, 3, 3), 48)])
def test_a_first_layer_of_another_shape_is_named(shape: tuple[int, ...], channels: int):
    state = small(DEPLOYED) | {"conv0.weight": torch.zeros(shape)}
    with pytest.raises(ValueError, match=f"its layer 'conv0' has {channels} channels, expected one of"):
        converted(network(state))


def test_a_missing_layer_is_named():
    state = {key: tensor for key, tensor in small(DEPLOYED).items() if not key.startswith("conv5/dw")}
    with pytest.raises(ValueError, match="its layer 'conv5/dw' has 0 tensors, expected 2"):
        converted(network(state))


def test_a_converted_file_detects(tmp_path: Path):
    path = tmp_path / "MobileNetSSD_deploy.caffemodel"
    path.write_bytes(network(DEPLOYED, more=input_layer(300, 300) + prior_layers() + detection_output()))
    detector = Detector.convert(path)
    found = detector.detect(np.full((40, 60, 3), 128, np.uint8), score_threshold=0.0)
    assert len(found) <= 100
    detector.save(tmp_path / "it.safetensors")
    assert Detector.load(tmp_path / "it.safetensors").config == detector.config
