"""Random weights of new networks, all in one place.

| layers                          | weights                                   | biases |
| ------------------------------- | ----------------------------------------- | ------ |
| VGG-16                          | He's normal, a little smaller each        | 0      |
| other backbones                 | what PyTorch, torchvision or timm gives   | theirs |
| extra layers and heads          | Caffe's "xavier"                          | 0      |
| BatchNorm, L2 normalization     | 1 and 20, made by their own layers        | 0      |
"""

from torch import nn

_PIXEL_DEVIATION = 64.0
"""Approximate standard deviation of the pixels of photographs. VGG-16 takes pixels unscaled, less their mean."""


def initialize_vgg16(network: nn.Module) -> None:
    """Gives VGG-16 random weights that bring pixels of ±128 down to features of about 1.

    These are He's, divided by the same factor in each layer. One layer alone cannot do it: its small weights would get
    gradients as large as the pixels.
    """
    convolutions = [layer for layer in network.children() if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layer.weight.data.mul_(_PIXEL_DEVIATION ** (-1 / len(convolutions)))
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def initialize_new_layers(*parts: nn.Module) -> None:
    """Gives the convolutions of extra layers and heads Caffe's "xavier": uniform in ±sqrt(3 / fan-in), bias 0.

    PyTorch's Xavier takes fan-in and fan-out.
    """
    for part in parts:
        part.apply(_xavier)


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_in = module.weight[0].numel()
        nn.init.uniform_(module.weight, -((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
