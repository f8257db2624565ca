"""MobileNet v1 against the table of its paper, layer by layer in torch's own pieces."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multibox.ssd.backbones.mobilenet_v1 import mobilenet_v1
from multibox.ssd.convolution import SameConv2d
from tests.ssd.backbones.trained import with_random_statistics

# Howard et al. 2017, table 1: inputs, outputs and stride of each pair of a depthwise and a pointwise convolution
TABLE = [
    (32, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 512, 2),
    (512, 512, 1),
    (512, 512, 1),
    (512, 512, 1),
    (512, 512, 1),
    (512, 512, 1),
    (512, 1024, 2),
    (1024, 1024, 1),
]


def layers_of_the_table(width: float) -> nn.ModuleList:
    """The 27 convolutions of the table, each with its BatchNorm, in order."""
    channels = [int(width * outputs) for outputs in (32, *(outputs for _, outputs, _ in TABLE))]
    convolutions = [nn.Conv2d(3, channels[0], 3, 2, padding=1, bias=False)]
    for inputs, outputs, (_, _, stride) in zip(channels, channels[1:], TABLE, strict=False):
        convolutions.append(nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False))
        convolutions.append(nn.Conv2d(inputs, outputs, 1, bias=False))
    return nn.ModuleList(nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels)) for layer in convolutions)


@torch.no_grad()
@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.25])
def test_pytorchs_dialect_is_the_table(width):
    torch.manual_seed(0)
    network, sources = mobilenet_v1(width=width)
    with_random_statistics(network)
    table = layers_of_the_table(width).eval()
    table.load_state_dict(dict(zip(table.state_dict(), network.state_dict().values(), strict=True)))
    features, expected = torch.rand(1, 3, 75, 64), {}
    found = network(features)
    for place, layer in enumerate(table):
        features = F.relu(layer(features))
        if place in (2 * 11, 2 * 13):
            expected[f"conv{place // 2}"] = features
    assert list(found) == list(sources) == ["conv11", "conv13"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
        assert sources[name].channels == value.shape[1]


@torch.no_grad()
def test_tensorflows_dialect_has_its_own_padding_and_relu6():
    """Padded by hand: of a size that a stride of 2 divides, one row below and one column on the right, none before."""
    torch.manual_seed(0)
    network, _ = mobilenet_v1(tensorflow=True)
    with_random_statistics(network)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(convolutions) == len(norms) == 27
    assert all(isinstance(layer, SameConv2d) for layer in convolutions)
    strides = [2, *(stride for _, _, first in TABLE for stride in (first, 1))]
    features, expected = torch.rand(1, 3, 64, 96), {}
    found = network(features)
    for place, (layer, norm, stride) in enumerate(zip(convolutions, norms, strides, strict=True)):
        kernel = layer.weight.shape[2]
        if kernel == 3:
            before = 0 if stride == 2 else 1
            features = F.pad(features, (before, 1, before, 1))
        features = norm(F.conv2d(features, layer.weight, stride=stride, groups=layer.groups))
        features = features.clamp(0, 6)
        if place in (2 * 11, 2 * 13):
            expected[f"conv{place // 2}"] = features
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@torch.no_grad()
def test_dialects_differ_on_the_same_weights():
    torch.manual_seed(0)
    torchs, tensorflows = mobilenet_v1().network, mobilenet_v1(tensorflow=True).network
    state = with_random_statistics(torchs).state_dict()
    tensorflows.load_state_dict(state)
    images = torch.rand(1, 3, 64, 64)
    one, other = torchs(images)["conv13"], tensorflows.eval()(images)["conv13"]
    assert one.shape == other.shape and not torch.allclose(one, other, rtol=0.01, atol=0.01 * one.max())


def test_parameters_of_the_paper():
    """4.2 million (its table 4) with 1,025,000 in the classifier."""
    parameters = sum(parameter.numel() for parameter in mobilenet_v1().network.parameters())
    assert parameters + 1024 * 1000 + 1000 == pytest.approx(4.2e6, rel=0.01)
