"""A backbone that starts from a file gives the features of the network in the file, whoever named its tensors."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from multibox.detector import Detector
from multibox.ssd.backbones import BACKBONES, make_backbone
from multibox.weights import start
from multibox.weights.backbone_names import is_classifier
from multibox.weights.converters.pytorch_ports import VGG16_PLACES
from multibox.weights.converters.state_dict import StateDict
from tests.tolerances import assert_close
from tests.weights.converters.test_caffe import VGG, network
from tests.weights.converters.test_caffe import tiny as tiny_ssd

LITE = "ssd300-lite0"
PARTS = ("weight", "bias")


def randomized(network: nn.Module) -> nn.Module:
    """The network with random weights and statistics, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.6, 1.4),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.6, 1.4),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return network.eval()


def timm_lite0(**values: object) -> nn.Module:
    timm = pytest.importorskip("timm")
    return randomized(timm.create_model("tf_efficientnet_lite0", pretrained=False, **values))


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    return timm_lite0()


def create(file: Path, model: str = LITE) -> Detector:
    return Detector.create(model, ["cat"], start_from=file, seed=1)


def saved(content: object, folder: Path, name: str = "weights.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


@torch.no_grad()
def features_of(layers: list[nn.Module], network: nn.Module, inputs: Tensor) -> list[Tensor]:
    """What the layers of a network give in float64."""
    seen: list[Tensor] = []
    for layer in layers:
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    network.double()(inputs)
    return seen


@torch.no_grad()
def check_features(detector: Detector, inputs: Tensor, expected: list[Tensor]) -> None:
    found = detector.network.backbone.double()(inputs)
    assert len(found) == len(expected)
    for features, other in zip(found.values(), expected, strict=True):
        assert_close(features, other)


@pytest.mark.parametrize("height, width", [(64, 96), (75, 61)])
def test_lite0_by_timms_names(lite0: nn.Module, tmp_path: Path, height: int, width: int):
    inputs = torch.rand(1, 3, height, width, dtype=torch.float64)
    detector = create(saved(lite0.state_dict(), tmp_path))
    blocks = lite0.blocks
    expected = features_of([blocks[3][0].bn1, blocks[5][0].bn1, blocks[6][0]], lite0, inputs)
    lite0.float()
    check_features(detector, inputs, expected)


@pytest.mark.parametrize(
    "name, model, layers",
    [
        ("resnet18", "ssd300-resnet18", lambda net: [net.layer1, net.layer2, net.layer3, net.layer4]),
        (
            "mobilenet_v2",
            "ssdlite320-mobilenetv2",
            lambda net: [net.features[13], net.features[14].conv[0], net.features[18]],
        ),
    ],
)
def test_torchvisions_names(name: str, model: str, layers: Callable[[nn.Module], list[nn.Module]], tmp_path: Path):
    network = randomized(getattr(models, name)(weights=None))
    detector = create(saved(network.state_dict(), tmp_path), model)
    inputs = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    check_features(detector, inputs, features_of(layers(network), network, inputs))


@pytest.mark.slow
def test_vgg16_by_torchvisions_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The classifier's 494 MB are one row again and again, which is why they are not written."""
    network = models.vgg16(weights=None).features[:23].eval()
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in models.vgg16(weights=None).state_dict().items()}
    generator = np.random.default_rng(0)
    tensors = {
        key: np.broadcast_to(generator.normal(size=shape[-1]).astype(np.float32), shape)
        for key, shape in shapes.items()
    }
    tensors |= {f"features.{key}": tensor.numpy() for key, tensor in network.state_dict().items()}
    monkeypatch.setattr(start, "read_state_dicts", lambda path: iter([StateDict("", "", tensors)]))
    (tmp_path / "vgg16.pth").write_bytes(b"stands for the tensors above")
    detector = create(tmp_path / "vgg16.pth", "ssd300-vgg16")
    inputs = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        found = detector.network.backbone.double()(inputs)["conv4_3"]
        assert_close(found, network.double()(inputs))
    del tensors["classifier.3.bias"]
    with pytest.raises(
        ValueError, match=r"'vgg16': the tensor 'classifier\.3\.bias' of torchvision's VGG-16 is missing"
    ):
        create(tmp_path / "vgg16.pth", "ssd300-vgg16")


def test_vgg16_by_the_places_of_its_layers(tmp_path: Path):
    """As in `vgg16_reducedfc.pth`, whose convolutions are numbered as in the list that `vgg` of ssd.pytorch makes."""
    tensors = {
        f"{place}.{part}": torch.full((2,), float(place)) for place in VGG16_PLACES for part in ("weight", "bias")
    }
    torch.save(tensors, tmp_path / "vgg16_reducedfc.pth")
    shapes = {f"{name}.{part}": (2,) for name in VGG16_PLACES.values() for part in ("weight", "bias")}
    begun = start.read_start(tmp_path / "vgg16_reducedfc.pth", "vgg16", shapes)
    assert begun.tensors.keys() == shapes.keys()
    for place, name in VGG16_PLACES.items():
        assert (begun.tensors[f"{name}.weight"] == place).all()
    assert begun.mean is None  # the detector keeps its own pixels, which are those of the ports


def test_vgg16_from_a_file_of_caffe(tmp_path: Path):
    """The authors' start. Its first convolution takes blue, green, red; the layer that classifies is left out."""
    state = {f"{name}.{part}": torch.rand([2, 3, 1, 1] if part == "weight" else [2]) for name in VGG for part in PARTS}
    (tmp_path / "it.caffemodel").write_bytes(
        network(state | {"fc8.weight": torch.rand(2, 2), "fc8.bias": torch.rand(2)})
    )
    names = {theirs: {"fc6": "conv6", "fc7": "conv7"}.get(theirs, theirs) for theirs in VGG}
    shapes = {f"{names[key.partition('.')[0]]}.{key.partition('.')[2]}": tuple(t.shape) for key, t in state.items()}
    begun = start.read_start(tmp_path / "it.caffemodel", "vgg16", shapes)
    assert begun.tensors.keys() == shapes.keys()
    for theirs, ours in names.items():
        expected = state[f"{theirs}.weight"].flip(1) if theirs == "conv1_1" else state[f"{theirs}.weight"]
        assert np.array_equal(begun.tensors[f"{ours}.weight"], expected)
    assert begun.mean is None  # the pixels of the presets on VGG-16 are Caffe's
    with pytest.raises(ValueError, match=r"a Caffe network, and of these only VGG-16 is read, not 'resnet18'"):
        start.read_start(tmp_path / "it.caffemodel", "resnet18", {})
    (tmp_path / "ssd.caffemodel").write_bytes(network(tiny_ssd(300, 21)))
    with pytest.raises(ValueError, match="a whole detector of another project, not a backbone"):
        start.read_start(tmp_path / "ssd.caffemodel", "vgg16", shapes)
    state.pop("fc7.bias")
    (tmp_path / "less.caffemodel").write_bytes(network(state))
    with pytest.raises(ValueError, match=r"less.caffemodel: no VGG-16 of Caffe \(its layer 'fc7' has 1 tensors"):
        start.read_start(tmp_path / "less.caffemodel", "vgg16", shapes)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto"])
def test_a_full_model_of_timm_for_its_own_backbone(name: str, tmp_path: Path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(name, pretrained=False).state_dict()
    detector = create(saved(theirs, tmp_path), f"timm/{name}")
    wanted = {key.replace("_", "."): tensor for key, tensor in theirs.items()}
    ours = detector.network.backbone.state_dict()
    for key, tensor in ours.items():
        assert torch.equal(tensor, wanted[key.removeprefix("network.").replace("_", ".")])


WRAPPED: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "state_dict": lambda state: {"epoch": 3, "arch": "x", "state_dict": state, "optimizer": {}},
    "model and its average": lambda state: {"model": state, "model_ema": {k: 0 * v for k, v in state.items()}},
    "DataParallel": lambda state: {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}},
    "a prefix": lambda state: {f"model.{key}": tensor for key, tensor in state.items()},
    "old, without counts": lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
    "without the classifier": lambda state: {
        key: tensor for key, tensor in state.items() if not key.startswith(("conv_head", "bn2", "classifier"))
    },
}


@pytest.mark.parametrize("how", WRAPPED)
def test_wrapped_as_checkpoints_are(lite0: nn.Module, tmp_path: Path, how: str):
    state = lite0.state_dict()
    detector = create(saved(WRAPPED[how](state), tmp_path))
    found = detector.network.backbone.state_dict()
    assert torch.equal(found["stem.0.weight"], state["conv_stem.weight"])
    assert torch.equal(found["block0.layers.project.1.running_var"], state["blocks.0.0.bn2.running_var"])
    assert torch.equal(found["block15.layers.project.1.running_var"], state["blocks.6.0.bn3.running_var"])


def test_our_own_files_of_any_detector_on_the_backbone(tmp_path: Path):
    """Also in half precision and as plain state dicts; the pixels are those of the file."""
    other = Detector.create("ssd320-lite0", ["a", "b", "c"], seed=5)
    other.config = config = replace(other.config, mean=(1.0, 2.0, 3.0))
    other.save(tmp_path / "own.safetensors")
    other.save(tmp_path / "half.bin", half=True)
    saved(other.network.state_dict(), tmp_path, "network.pt")
    saved(other.network.backbone.state_dict(), tmp_path, "backbone.pth")
    state = other.network.backbone.state_dict()
    for name in ("own.safetensors", "half.bin", "network.pt", "backbone.pth"):
        detector = create(tmp_path / name)
        for key, tensor in detector.network.backbone.state_dict().items():
            torch.testing.assert_close(tensor, state[key], rtol=1e-3 if name == "half.bin" else 0, atol=1e-6)
        assert (detector.config.mean == config.mean) == (name in ("own.safetensors", "half.bin"))
    with pytest.raises(ValueError, match=r"own\.safetensors: its backbone is 'efficientnet-lite0', but .* is 'tiny'$"):
        create(tmp_path / "own.safetensors", "ssd256-tiny")


def test_provenance_has_name_hash_and_number(lite0: nn.Module, tmp_path: Path):
    file = saved({"state_dict": lite0.state_dict()}, tmp_path)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    detector = create(file)
    assert detector.provenance == {"backbone": f"weights.pth, state_dict (288 tensors, SHA-256 {sha256})"}
    assert detector.config.mean == (127, 127, 127)  # the preset's


def test_torchvisions_own_file_gives_the_pixels_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = saved(models.mobilenet_v3_large(weights=None).state_dict(), tmp_path)
    assert create(file, "ssdlite320-mobilenetv3").config.mean == (127.5, 127.5, 127.5)
    monkeypatch.setattr(start, "torchvision_hash", lambda backbone: start.file_sha256(file)[:8])
    assert create(file, "ssdlite320-mobilenetv3").config.mean == pytest.approx((123.675, 116.28, 103.53))


def without(key: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {other: tensor for other, tensor in state.items() if other != key}


@pytest.mark.parametrize(
    "change, model, message",
    [
        (
            without("blocks.3.1.bn2.bias"),
            LITE,
            r"'efficientnet-lite0': 'block6.layers.depthwise.1.bias' is missing, expected \(480,\)$",
        ),
        (
            lambda state: state | {"neck.weight": torch.zeros(3)},
            LITE,
            r"'neck.weight' is \(3,\), expected none of that name \(the first is 'stem.0.weight'\)$",
        ),
        (
            lambda state: state | {"conv_stem.weight": torch.zeros(32, 1, 3, 3)},
            LITE,
            r"'conv_stem.weight' is \(32, 1, 3, 3\), expected \(32, 3, 3, 3\)$",
        ),
        (
            lambda state: state,
            "ssd300-resnet18",
            r"'resnet18': 'conv_stem.weight' is .*, expected none of that name \(the first is 'conv1.weight'\) \(and ",
        ),
        (
            lambda state: {"net": state | {"conv_stem.weight": torch.full((32, 3, 3, 3), torch.nan)}},
            LITE,
            "weights.pth, net .*'stem.0.weight' holds values that are not finite",
        ),
    ],
)
def test_what_does_not_fit_is_said(
    lite0: nn.Module,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], object],
    model: str,
    message: str,
):
    file = saved(change(dict(lite0.state_dict())), tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        create(file, model)
    assert str(file.name) in str(error.value)


def test_a_whole_detector_of_another_project_is_to_be_converted(tmp_path: Path):
    network = models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    file = saved(network.state_dict(), tmp_path)
    with pytest.raises(ValueError, match=r"weights\.pth: a whole detector of another project, .*`multibox convert`"):
        create(file, "ssdlite320-mobilenetv3")


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("imagnet", ValueError, "did you mean 'imagenet'\\?"),
        ("ssd300-vgg16", ValueError, "'ssd300-vgg16' is a model: --model ssd300-vgg16"),
        ("multibox/shapes", ValueError, "'multibox/shapes' is a model"),
        ("hf://owner/name", ValueError, "is a model"),
        ("timm/resnet18", ValueError, "is a model"),
        ("missing.pth", FileNotFoundError, "^missing.pth: there is no such file of weights to start from"),
        (".", ValueError, "'.' is a folder"),
    ],
)
def test_what_is_no_file_is_said(
    name: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        Detector.create(LITE, ["cat"], start_from=name)


def test_no_layer_of_a_backbone_is_taken_for_one_that_classifies():
    with torch.device("meta"):
        for name in BACKBONES:
            assert not any(map(is_classifier, make_backbone(name).network.state_dict())), name
