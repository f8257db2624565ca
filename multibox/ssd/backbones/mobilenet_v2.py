"""MobileNetV2 (Sandler et al. 2018) as TensorFlow has it: torchvision's layers, padded by TensorFlow's SAME rule."""

from torch import nn

from multibox.ssd.backbones.backbone import Backbone
from multibox.ssd.backbones.torchvision import mobilenet_v2
from multibox.ssd.convolution import SameConv2d


def mobilenet_v2_tensorflow(image_channels: int = 3) -> Backbone:
    """Returns TensorFlow's MobileNetV2 with the layers and state-dict keys of `mobilenet_v2`.

    Without a stride, SAME pads both sides alike, as torchvision does.
    """
    backbone = mobilenet_v2(image_channels)
    for layer in list(backbone.network.modules()):
        for name, child in layer.named_children():
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                layer.add_module(name, _same(child))
    return backbone


def _same(layer: nn.Conv2d) -> SameConv2d:
    """Returns a convolution like this one, without a bias, that pads by the SAME rule."""
    kernel = (layer.kernel_size[0], layer.kernel_size[1])
    same = SameConv2d(layer.in_channels, layer.out_channels, kernel, stride=2, groups=layer.groups, bias=False)
    same.weight = layer.weight
    return same
