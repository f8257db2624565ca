"""The face detectors' base networks: layer table, and the block of dilated branches in torch's own pieces."""

from math import ceil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multibox.ssd.backbones.ultra_light import ReceptiveFieldBlock, ultra_light
from tests.ssd.backbones.trained import with_random_statistics

# Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, vision/nn/mb_tiny_RFB.py: outputs and stride of each block
TABLE = [
    (16, 2), (32, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2),
    (256, 1),
]  # fmt: skip


def normalized(convolved: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    return F.batch_norm(convolved, norm.running_mean, norm.running_var, norm.weight, norm.bias)


@torch.no_grad()
def test_receptive_field_block_is_its_composition():
    """Each 3x3 convolution keeps the size; only those before the dilated ones, and the sum, go through ReLU.

    Channels of the branches, for 64: 8 -> 16 -> 16, 8 -> 16 -> 16, and 8 -> 12 -> 16 -> 16.
    """
    torch.manual_seed(0)
    block = with_random_statistics(ReceptiveFieldBlock(64))
    features = torch.rand(1, 64, 15, 20)

    def step(layer: nn.Sequential, values: torch.Tensor, *, kernel: int, dilation: int = 1, active: bool = False):
        convolution, norm = layer[0], layer[1]
        assert convolution.bias is None and convolution.weight.shape[2:] == (kernel, kernel)
        padding = dilation if kernel == 3 else 0
        values = normalized(F.conv2d(values, convolution.weight, padding=padding, dilation=dilation), norm)
        return values.relu() if active else values

    branches = []
    for branch, dilation, widths in (
        (block.branch0, 2, [8, 16, 16]),
        (block.branch1, 3, [8, 16, 16]),
        (block.branch2, 5, [8, 12, 16, 16]),
    ):
        assert [layer[0].out_channels for layer in branch] == widths
        values = step(branch[0], features, kernel=1)
        for layer in branch[1:-1]:
            values = step(layer, values, kernel=3, active=True)
        branches.append(step(branch[-1], values, kernel=3, dilation=dilation))
    joined = step(block.join, torch.cat(branches, dim=1), kernel=1)
    expected = (joined + step(block.shortcut, features, kernel=1)).relu()
    torch.testing.assert_close(block(features), expected)
    assert expected.shape == features.shape


@torch.no_grad()
@pytest.mark.parametrize("rfb", [False, True])
def test_blocks_are_the_table(rfb):
    torch.manual_seed(0)
    network, sources = ultra_light(rfb=rfb)
    with_random_statistics(network)
    features = torch.rand(1, 3, 240, 320)
    found = network(features)
    inputs, total = 3, 1
    for (name, block), (outputs, stride) in zip(network.named_children(), TABLE, strict=True):
        rows, columns = features.shape[2:]
        if isinstance(block, ReceptiveFieldBlock):
            assert rfb and name == "block7"
            features = block(features)
        elif name == "block0":
            features = normalized(F.conv2d(features, block[0].weight, stride=2, padding=1), block[1]).relu()
        else:
            (depthwise, first), (pointwise, second) = (part[:2] for part in (block.depthwise, block.pointwise))
            features = F.conv2d(features, depthwise.weight, stride=stride, padding=1, groups=inputs)
            features = normalized(features, first).relu()
            features = normalized(F.conv2d(features, pointwise.weight), second).relu()
        assert features.shape[1:] == (outputs, ceil(rows / stride), ceil(columns / stride))
        inputs, total = outputs, total * stride
        if name in sources:
            assert sources[name] == (outputs, total)
            torch.testing.assert_close(found[name], features)
    assert list(found) == ["block7", "block10", "block12"]
