"""Convolutions: TensorFlow's, which pads differently from PyTorch's, and those with a BatchNorm."""

import copy
from itertools import pairwise
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: its output has `ceil(size / stride)` rows and columns.

    If the number of padded rows is odd, the extra row of zeros goes last. PyTorch pads both sides alike, so with a
    stride of 2 and an even size the two look at different pixels.
    """

    def _conv_forward(  # what nn.Conv2d.forward calls
        self, input: Float[Tensor, "batch channels height width"], weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        rows, columns = (
            max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
            for size, stride, dilation, kernel in zip(
                input.shape[2:], self.stride, self.dilation, self.kernel_size, strict=True
            )
        )
        if rows % 2 == columns % 2 == 0:  # the convolution itself pads both sides alike, without a copy of the features
            padding = (rows // 2, columns // 2)
        else:
            padding = (0, 0)
            input = F.pad(input, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class NormalizedConv(nn.Sequential):
    """A convolution without bias, BatchNorm, and whatever follows.

    With fixed statistics, which is in evaluation mode or where the layer is frozen, BatchNorm is linear: it becomes a
    part of the convolution's weights and bias. That saves a pass over the features forward, and two backward.
    """

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Tensor:
        convolution, norm, *others = cast("tuple[nn.Conv2d, nn.BatchNorm2d, *tuple[nn.Module, ...]]", tuple(self))
        features: Tensor
        if norm.training or isinstance(norm, nn.Identity):  # `folded` has done it
            features = norm(convolution(input))
        else:
            factor = norm.weight * torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
            bias = norm.bias - cast(Tensor, norm.running_mean) * factor
            features = convolution._conv_forward(input, convolution.weight * factor[:, None, None, None], bias)
        for layer in others:
            features = layer(features)
        return features


def folded(network: Network) -> Network:
    """Returns a copy of a network in evaluation mode, with BatchNorm as a part of the convolution before it.

    That is done where the one follows the other in a `Sequential`. The copy shares all other tensors with the network.
    It does not follow later changes of the weights.
    """
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    found = copy.deepcopy(network, tensors)
    for layers in [layer for layer in found.modules() if isinstance(layer, nn.Sequential)]:
        for (name, layer), (next_name, following) in pairwise(list(layers.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(layers, name, fuse_conv_bn_eval(layer, following))
                setattr(layers, next_name, nn.Identity())
    return found
