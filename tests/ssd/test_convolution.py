"""What TensorFlow does otherwise than PyTorch, its SAME padding, against loops; and BatchNorm inside a convolution."""

from math import ceil

import pytest
import torch
from torch import nn

from multibox.detector import Detector
from multibox.ssd.convolution import NormalizedConv, SameConv2d, folded


def same_convolution(
    image: torch.Tensor, weight: torch.Tensor, *, stride: int, dilation: int = 1, groups: int = 1
) -> torch.Tensor:
    """TensorFlow's SAME convolution of one image, by its own definition (tf.nn, "notes on padding").

    As many places as the stride leaves, rounded up; the padding that takes is split, and what is odd of it comes last.
    """
    outputs, inputs, kernel, _ = weight.shape
    height, width = image.shape[1:]
    rows, columns = ceil(height / stride), ceil(width / stride)
    reach = (kernel - 1) * dilation + 1
    top = max((rows - 1) * stride + reach - height, 0) // 2
    left = max((columns - 1) * stride + reach - width, 0) // 2
    result = torch.zeros(outputs, rows, columns)
    for output in range(outputs):
        group = output // (outputs // groups)
        for row in range(rows):
            for column in range(columns):
                for k_row in range(kernel):
                    for k_column in range(kernel):
                        y = row * stride + k_row * dilation - top
                        x = column * stride + k_column * dilation - left
                        if 0 <= y < height and 0 <= x < width:
                            pixels = image[group * inputs : (group + 1) * inputs, y, x]
                            result[output, row, column] += (weight[output, :, k_row, k_column] * pixels).sum()
    return result


@torch.no_grad()
@pytest.mark.parametrize("height, width", [(6, 6), (7, 6), (6, 7), (5, 5), (1, 1), (2, 3)])
@pytest.mark.parametrize(
    "kernel, stride, dilation, groups", [(3, 2, 1, 1), (3, 1, 1, 4), (3, 2, 1, 4), (1, 1, 1, 1), (1, 2, 1, 1),
                                         (5, 3, 1, 2), (2, 1, 1, 1), (3, 1, 2, 1)]
)  # fmt: skip
def test_same_padding_is_tensorflows(height, width, kernel, stride, dilation, groups):
    torch.manual_seed(0)
    layer = SameConv2d(4, 4, kernel, stride, dilation=dilation, groups=groups, bias=False)
    image = torch.randn(4, height, width)
    expected = same_convolution(image, layer.weight, stride=stride, dilation=dilation, groups=groups)
    torch.testing.assert_close(layer(image[None])[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_on_even_sizes_a_stride_of_2_looks_elsewhere_than_pytorchs_padding():
    """A kernel that takes its middle pixel: here pixels 1 and 3, with a padding of 1 on both sides pixels 0 and 2."""
    layer = SameConv2d(1, 1, 3, 2, bias=False)
    layer.weight.zero_()
    layer.weight[0, 0, 1, 1] = 1
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert layer(image).flatten().tolist() == [5, 7, 13, 15]
    plain = nn.Conv2d(1, 1, 3, 2, padding=1, bias=False)
    plain.load_state_dict(layer.state_dict())
    assert plain(image).flatten().tolist() == [0, 2, 8, 10]


@pytest.mark.parametrize("kind", [nn.Conv2d, SameConv2d])
def test_a_batch_norm_with_fixed_statistics_is_a_part_of_the_convolution(kind):
    """The same features, and the same gradients of inputs, weights and biases, as of the layers one after the other."""
    torch.manual_seed(0)
    layers = [kind(4, 6, 3, 2, groups=2, bias=False), nn.BatchNorm2d(6, eps=0.1), nn.ReLU()]
    together = NormalizedConv(*layers).double()
    norm = layers[1]
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.5, 2)
    results = []
    for network in (together.eval(), nn.Sequential(*layers)):
        inputs = torch.randn(2, 4, 8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        features = network(inputs.requires_grad_())
        features.square().sum().backward()
        results.append([features.detach(), inputs.grad, *(values.grad for values in network.parameters())])
        network.zero_grad()
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("preset", ["ssd256-tiny", "ssdlite320-mobilenetv3", "ssd300-lite0", "ssd300-mobilenetv1"])
def test_a_folded_network_gives_the_same_without_batch_norm(preset: str):
    """In double precision. The network itself, and the tensors that need no folding, stay as they are."""
    network = Detector.create(preset, ["a", "b"], seed=0).network.double()
    fill = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                nn.init.uniform_(values, 0.5, 2, generator=fill)
    inputs = torch.randint(0, 256, (1, 3, network.height, network.width), generator=fill, dtype=torch.uint8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    lighter = folded(network)
    with torch.inference_mode():
        for found, expected in zip(lighter(inputs), network(inputs), strict=True):
            scale = expected.abs().max().item()
            torch.testing.assert_close(found, expected, atol=1e-9 * scale, rtol=0)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in lighter.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert lighter.default_boxes is network.default_boxes


def test_a_batch_norm_that_learns_normalizes_by_the_batch():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)]
    features = NormalizedConv(*layers)(torch.randn(8, 3, 5, 5))
    torch.testing.assert_close(features.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    assert layers[1].num_batches_tracked == 1
