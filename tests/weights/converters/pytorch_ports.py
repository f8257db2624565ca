"""What the tests of the ports build by hand: state dicts of random numbers, and their layers applied one by one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import sqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multibox.ssd.build import load_network
from multibox.ssd.network import SSD, Predictions
from multibox.weights.file import Weights

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "C", 512, 512, 512, "M", 512, 512, 512)
"""`base['300']` of ssd.pytorch's ssd.py: channels of convolutions; M pools, C pools and rounds the size up."""


def conv(key: str, outputs: int, inputs: int, kernel: int, *, bias: bool = True) -> Shapes:
    return {f"{key}.weight": (outputs, inputs, kernel, kernel)} | ({f"{key}.bias": (outputs,)} if bias else {})


def norm(key: str, channels: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{part}": (channels,) for part in parts} | {f"{key}.num_batches_tracked": ()}


def vgg16_shapes(layers: Sequence[str]) -> Shapes:
    """The thirteen convolutions, conv6 and conv7."""
    shapes, names, inputs = {}, iter(layers), 3
    for width in VGG16:
        if isinstance(width, int):
            shapes |= conv(next(names), width, inputs, 3)
            inputs = width
    return shapes | conv(next(names), 1024, 512, 3) | conv(next(names), 1024, 1024, 1)


def random_state(shapes: Shapes) -> State:
    """Random numbers of the size that keeps features at about the size of the input."""
    torch.manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        if len(shape) == 4:
            state[key] = torch.randn(shape) * sqrt(2 / np.prod(shape[1:]))
        elif key.endswith((".running_var", ".weight")):
            state[key] = torch.rand(shape) + 0.5
        else:
            state[key] = torch.randn(shape) * 0.1
    return state


def arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {key: tensor.numpy() for key, tensor in state.items()}


def empty_arrays(shapes: Shapes) -> dict[str, np.ndarray]:
    """Of these shapes, without the memory."""
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}


def images(side: int) -> Tensor:
    return torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)


def conv2d(x: Tensor, state: State, key: str, **how: int) -> Tensor:
    return F.conv2d(x, state[f"{key}.weight"], state.get(f"{key}.bias"), **how)


def batch_norm(x: Tensor, state: State, key: str) -> Tensor:
    mean, variance, weight, bias = (
        state[f"{key}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, variance, weight, bias, eps=1e-5)


def vgg16_features(x: Tensor, state: State, layers: Sequence[str]) -> tuple[Tensor, Tensor]:
    """conv4_3 and conv7."""
    names, sources = iter(layers), []
    for width in VGG16:
        if isinstance(width, int):
            x = conv2d(x, state, next(names), padding=1).relu()
        else:
            sources.append(x)
            x = F.max_pool2d(x, 2, 2, ceil_mode=width == "C")
    x = F.max_pool2d(x, 3, 1, 1)
    x = conv2d(x, state, next(names), padding=6, dilation=6).relu()
    return sources[3], conv2d(x, state, next(names)).relu()


def l2_norm(x: Tensor, scale: Tensor) -> Tensor:
    """layers/modules/l2norm.py of ssd.pytorch."""
    return scale.view(1, -1, 1, 1) * (x / (x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10))


def joined(outputs: Sequence[Tensor], width: int) -> Tensor:
    """Rows, columns, channels; all maps in a row; `width` numbers for each box."""
    flat = [output.permute(0, 2, 3, 1).contiguous().view(output.size(0), -1) for output in outputs]
    return torch.cat(flat, 1).view(outputs[0].size(0), -1, width)


@torch.inference_mode()
def our_predictions(weights: Weights, images: Tensor) -> Predictions:
    network = load_network(weights.config, weights.tensors, num_classes=len(weights.class_names))
    return network(images)


@torch.inference_mode()
def check_predictions(weights: Weights, images: Tensor, theirs: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    """Ours of 8-bit RGB pixels are theirs of what they make of these pixels: offsets, logits."""
    ours = our_predictions(weights, images)
    for found, expected in zip(ours, theirs(images.float()), strict=True):
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def check_shapes(weights: Weights) -> None:
    """Each tensor has the shape that the config's layer has, and each layer gives what the next takes."""
    with torch.device("meta"):
        network = SSD(weights.config, num_classes=len(weights.class_names)).eval()
        side = weights.config.height
        offsets, logits = network(torch.empty(1, 3, side, side))
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert {key: tensor.shape for key, tensor in weights.tensors.items()} == expected
    assert offsets.shape == (1, weights.config.num_default_boxes, 4)
    assert logits.shape == (1, weights.config.num_default_boxes, len(weights.class_names) + 1)


def slow_default_boxes(
    side: int,
    grids: Sequence[int],
    steps: Sequence[float],
    sizes: Sequence[float],
    ratios: Sequence[Sequence[int]],
    *,
    clip: bool,
) -> np.ndarray:
    """As all three ports make them; `sizes` are the small ones of each map, and the large one of the last."""
    boxes: list[Iterator[float]] = []
    for grid, step, small, large, oblong in zip(grids, steps, sizes[:-1], sizes[1:], ratios, strict=True):
        for row, column in product(range(grid), repeat=2):
            center_x, center_y = (column + 0.5) / (side / step), (row + 0.5) / (side / step)
            boxes.append([center_x, center_y, small / side, small / side])
            boxes.append([center_x, center_y, sqrt(small * large) / side, sqrt(small * large) / side])
            for ratio in oblong:
                boxes.append([center_x, center_y, small / side * sqrt(ratio), small / side / sqrt(ratio)])
                boxes.append([center_x, center_y, small / side / sqrt(ratio), small / side * sqrt(ratio)])
    table = np.array(boxes, np.float32)
    return table.clip(0, 1) if clip else table
