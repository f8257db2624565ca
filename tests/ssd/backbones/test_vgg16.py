"""VGG-16 reduced, against its table in torch's pieces; tests/ssd/test_network.py has the parity with torchvision."""

import pytest
import torch
import torch.nn.functional as F

from multibox.ssd.backbones.vgg16 import vgg16


@torch.no_grad()
@pytest.mark.parametrize("side", [75, 76])
def test_layers_are_the_table(side):
    """Configuration D of Simonyan and Zisserman; pools that round up, pool5 without a stride, conv6 dilated by 6."""
    torch.manual_seed(0)
    network, _ = vgg16()
    weights = dict(network.named_parameters())

    def convolve(name: str, features: torch.Tensor, **how: int) -> torch.Tensor:
        return F.conv2d(features, weights.pop(f"{name}.weight"), weights.pop(f"{name}.bias"), **how).relu()

    features = torch.randn(1, 3, side, side) * 64
    found = network(features)
    for stage, (convolutions, channels) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        for place in range(1, convolutions + 1):
            features = convolve(f"conv{stage}_{place}", features, padding=1)
            assert features.shape[1] == channels
        if stage == 4:
            torch.testing.assert_close(found["conv4_3"], features)
        if stage < 5:
            features = F.max_pool2d(features, 2, 2, ceil_mode=True)
        else:
            features = F.max_pool2d(features, 3, 1, padding=1)
    features = convolve("conv6", features, padding=6, dilation=6)
    features = convolve("conv7", features)
    torch.testing.assert_close(found["conv7"], features)
    assert list(found) == ["conv4_3", "conv7"] and not weights


@torch.no_grad()
def test_features_of_photographs_pixels_are_about_one():
    torch.manual_seed(0)
    found = vgg16().network(torch.randn(1, 3, 64, 64) * 64)
    assert all(0.1 < features.std() < 10 for features in found.values())
