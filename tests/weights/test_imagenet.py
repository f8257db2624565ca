"""Backbones that start from ImageNet: decimation as loops, and every tensor in its place."""

import hashlib
import io
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision import models
from torchvision.models import get_weight

from multibox.detector import Detector
from multibox.ssd.backbones import make_backbone
from multibox.weights import imagenet, published
from multibox.weights.backbone_names import decimate, decimated_vgg16
from multibox.weights.imagenet import (
    ENTRIES,
    describe_weights,
    imagenet_weights,
    is_non_commercial,
    timm_weights,
)
from tests.weights.server import Server

MEAN, SCALE = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet's pixels, as torchvision's documentation has them: 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225."""


def test_decimation_is_every_so_manieth_value():
    generator = np.random.default_rng(0)
    tensor = generator.normal(size=(8, 5, 7, 7)).astype(np.float32)
    found = decimate(tensor, (4, None, 3, 3))
    assert found.shape == (2, 5, 3, 3)
    for channel, source, row, column in product(range(2), range(5), range(3), range(3)):
        assert found[channel, source, row, column] == tensor[4 * channel, source, 3 * row, 3 * column]
    assert decimate(np.arange(9.0), (4,)).tolist() == [0, 4, 8]


def vgg16_tensors(generator: np.random.Generator, *, width: int = 8, channels: int = 2) -> dict[str, np.ndarray]:
    """A state dict as torchvision's VGG-16 has it, with a narrow classifier."""
    tensors = {
        f"features.{index}.{part}": generator.normal(size=(3,)).astype(np.float32)
        for index, layer in enumerate(models.vgg.make_layers(models.vgg.cfgs["D"]))
        if isinstance(layer, torch.nn.Conv2d)
        for part in ("weight", "bias")
    }
    shapes = {"0": (width, channels * 49), "3": (width, width), "6": (10, width)}
    for index, shape in shapes.items():
        tensors[f"classifier.{index}.weight"] = generator.normal(size=shape).astype(np.float32)
        tensors[f"classifier.{index}.bias"] = generator.normal(size=shape[:1]).astype(np.float32)
    return tensors


def test_the_classifier_of_vgg16_becomes_conv6_and_conv7():
    theirs = vgg16_tensors(np.random.default_rng(0))
    ours = decimated_vgg16(theirs)
    fc6, fc7 = theirs["classifier.0.weight"], theirs["classifier.3.weight"]
    assert ours["conv6.weight"].shape == (2, 2, 3, 3)
    for out, source, row, column in product(range(2), range(2), range(3), range(3)):
        # torchvision flattens (channels, 7, 7) before the classifier
        assert ours["conv6.weight"][out, source, row, column] == fc6[4 * out, source * 49 + 3 * row * 7 + 3 * column]
    assert ours["conv7.weight"].shape == (2, 2, 1, 1)
    for out, source in product(range(2), range(2)):
        assert ours["conv7.weight"][out, source, 0, 0] == fc7[4 * out, 4 * source]
    assert ours["conv6.bias"].tolist() == theirs["classifier.0.bias"][::4].tolist()
    assert ours["conv7.bias"].tolist() == theirs["classifier.3.bias"][::4].tolist()
    order = [f"features.{index}.weight" for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
    assert order == [key for key in theirs if key.startswith("features.") and key.endswith("weight")]
    names = ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3"]
    for key, name in zip(order, names, strict=True):
        assert ours[f"conv{name}.weight"] is theirs[key]


def test_a_detector_on_vgg16_starts_from_imagenet(monkeypatch: pytest.MonkeyPatch):
    """With tensors of the real shapes, the classifier's being one row again and again."""
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in models.vgg16(weights=None).state_dict().items()}
    generator = np.random.default_rng(0)

    def tensor(shape: tuple[int, ...]) -> np.ndarray:
        last = generator.normal(size=shape[-1]).astype(np.float32)
        return np.broadcast_to(last, shape)

    theirs = {key: tensor(shape) for key, shape in shapes.items()}
    monkeypatch.setattr(imagenet, "fetch_entry", lambda entry, on_progress: Path(entry))
    monkeypatch.setattr(imagenet, "read_state_dict", lambda path: theirs)
    detector = Detector.create("ssd300-vgg16", ["cat"], start_from="imagenet", seed=0)
    assert detector.config.mean == pytest.approx(MEAN)
    assert detector.config.scale == pytest.approx(SCALE)
    assert detector.provenance["backbone"] == "torchvision VGG16_Weights.IMAGENET1K_V1, license BSD-3-Clause"
    state = detector.network.backbone.state_dict()
    np.testing.assert_array_equal(state["conv1_1.weight"], theirs["features.0.weight"])
    np.testing.assert_array_equal(state["conv5_3.bias"], theirs["features.28.bias"])
    fc6 = theirs["classifier.0.weight"].reshape(4096, 512, 7, 7)
    np.testing.assert_array_equal(state["conv6.weight"][3, 5], fc6[12, 5, ::3, ::3])
    np.testing.assert_array_equal(state["conv7.weight"][3, :, 0, 0], theirs["classifier.3.weight"][12, ::4])


@pytest.fixture
def served(request: pytest.FixtureRequest, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """A network of torchvision whose random weights are what the server gives for every entry."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(models, request.param)(weights=None)
    state = network.state_dict()
    if "resnet" in request.param:  # whose files are older than these counts
        state = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    written = io.BytesIO()
    torch.save(state, written)
    path = f"/{request.param}-{hashlib.sha256(written.getvalue()).hexdigest()[:8]}.pth"
    server.files[path] = written.getvalue()
    entries = {name: get_weight(name) for name in ENTRIES.values()}

    def entry(name: str) -> SimpleNamespace:
        return SimpleNamespace(url=server.url(path), transforms=entries[name].transforms)

    monkeypatch.setattr(published, "torchvision_entry", entry)
    monkeypatch.setattr(imagenet, "torchvision_entry", entry)
    return network.eval()


@pytest.mark.parametrize(
    ("served", "preset"),
    [("resnet18", "ssd300-resnet18"), ("mobilenet_v2", "ssdlite320-mobilenetv2")],
    indirect=["served"],
)
@torch.no_grad()
def test_features_are_those_of_the_classifier(served: torch.nn.Module, preset: str):
    detector = Detector.create(preset, ["cat"], start_from="imagenet", seed=0)
    assert detector.config.mean == pytest.approx(MEAN) and detector.config.scale == pytest.approx(SCALE)
    images = torch.rand(1, 3, 64, 96)
    last = list(detector.network.backbone(images).values())[-1]
    expected = served.features(images) if hasattr(served, "features") else _before_pooling(served, images)
    torch.testing.assert_close(last, expected)


def _before_pooling(resnet: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.nn.Sequential(*list(resnet.children())[:-2])(images)


@pytest.mark.parametrize("served", ["mobilenet_v3_large"], indirect=True)
@torch.no_grad()
def test_the_reduced_tail_stays_random(served: torch.nn.Module, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="multibox")
    detector = Detector.create("ssdlite320-mobilenetv3", ["cat"], start_from="imagenet", seed=0)
    assert detector.config.mean == pytest.approx(MEAN)  # the preset's own is 127.5
    state, theirs = detector.network.backbone.state_dict(), served.state_dict()
    alike = [key for key in state if state[key].shape == theirs[key].shape and torch.equal(state[key], theirs[key])]
    first = next(key for key in state if key not in alike)
    assert first == "features.13.block.3.0.weight"
    assert [key for key in state if key < "features.13.block.3" and key not in alike] == []
    assert "tensors of the backbone stay random, features.13.block.3.0.weight on" in caplog.text
    start = imagenet_weights("mobilenet-v3-large")
    whole = make_backbone("mobilenet-v3-large").network.state_dict()
    assert start.tensors.keys() == whole.keys()
    assert all(start.tensors[key].shape == tensor.shape for key, tensor in whole.items())


@pytest.mark.parametrize("backbone", sorted(ENTRIES))
def test_each_entry_is_of_that_network(backbone: str):
    """The name in the table of torchvision, without `_` and case, begins as ours."""
    entry = ENTRIES[backbone].lower().replace("_weights.imagenet1k_v1", "").replace("_", "")
    assert backbone.replace("-", "").removesuffix("reduced") == entry
    assert get_weight(ENTRIES[backbone]).transforms().mean == [0.485, 0.456, 0.406]


def test_a_backbone_without_weights_is_said():
    with pytest.raises(ValueError, match="no weights from ImageNet for the backbone 'tiny', only for vgg16, "):
        Detector.create("ssd256-tiny", ["cat"], start_from="imagenet")


def test_licenses_that_forbid_commercial_use_are_known():
    for license in ("cc-by-nc-4.0", "fair-noncommercial-research-license", "apple-amlr", "seer-license"):
        assert is_non_commercial(f"timm/x, license {license}")
    for license in ("apache-2.0", "mit", "bsd-3-clause", "apple-ascl", "not stated"):
        assert not is_non_commercial(f"timm/nc-net, license {license}")
    assert not is_non_commercial("overseer-nc-x.pth (288 tensors)")  # a file, whose license is not known


def test_a_backbone_of_timm_starts_from_its_weights(monkeypatch: pytest.MonkeyPatch):
    """timm's own fetching is replaced: a network that is asked to be pretrained gets random weights of seed 7."""
    timm = pytest.importorskip("timm")
    create = timm.create_model

    def pretrained(name: str, *, pretrained: bool, **values: object) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7 if pretrained else 8)
            return create(name, pretrained=False, **values)

    monkeypatch.setattr(timm, "create_model", pretrained)
    model = "timm/mobilenetv3_small_050"
    detector = Detector.create(model, ["cat"], start_from="imagenet", seed=0)
    expected = pretrained(model.removeprefix("timm/"), pretrained=True, features_only=True).state_dict()
    for key, tensor in detector.network.backbone.network.state_dict().items():
        assert torch.equal(tensor, expected[key])
    assert detector.provenance["backbone"] == describe_weights(model) == f"{model}, license apache-2.0"
    assert detector.config.mean == pytest.approx(MEAN)


def test_what_timm_does_not_have_is_said(monkeypatch: pytest.MonkeyPatch):
    timm = pytest.importorskip("timm")
    with pytest.raises(ValueError, match="timm has no trained weights for a model 'resnet18t'"):
        describe_weights("timm/resnet18t")

    def offline(*arguments: object, **values: object) -> None:
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConnectionError, match=r"timm's 'resnet18' cannot be fetched \(no network\)"):
        timm_weights("resnet18")
