"""The backbones that are torchvision's give its own features, on the same weights, at the layers that they say."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from multibox.ssd.backbones import make_backbone
from tests.ssd.backbones.trained import with_random_statistics

models = torchvision.models

RESNET = ("layer1", "layer2", "layer3", "layer4")

CASES: dict[str, tuple[Callable[..., nn.Module], dict[str, str]]] = {
    "resnet18": (models.resnet18, {name: name for name in RESNET}),
    "resnet34": (models.resnet34, {name: name for name in RESNET}),
    "resnet50": (models.resnet50, {name: name for name in RESNET}),
    "mobilenet-v2": (
        models.mobilenet_v2,
        {"features.13": "block13", "features.14.conv.0": "expand14", "features.18": "conv18"},
    ),
    "mobilenet-v3-large": (models.mobilenet_v3_large, {"features.13.block.0": "expand13", "features.16": "conv16"}),
    "mobilenet-v3-large-reduced": (
        lambda **rest: models.mobilenet_v3_large(reduced_tail=True, **rest),
        {"features.13.block.0": "expand13", "features.16": "conv16"},
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_features_are_torchvisions(name):
    torch.manual_seed(0)
    build, layers = CASES[name]
    theirs, (ours, sources) = build(weights=None), make_backbone(name)
    with_random_statistics(ours)
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert unexpected == [] and all(key.startswith(("fc.", "classifier.")) for key in missing)
    images = torch.randn(2, 3, 75, 97)
    expected = create_feature_extractor(theirs.eval(), layers)(images)
    found = ours(images)
    assert list(found) == list(sources) == list(layers.values())
    for layer, features in found.items():
        torch.testing.assert_close(features, expected[layer])
