"""Networks as after training: with its first values BatchNorm does next to nothing, and nobody would miss it."""

from torch import nn


def with_random_statistics(network: nn.Module) -> nn.Module:
    """Gives BatchNorm random values, in place, and sets the network to evaluation."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (layer.bias, layer.running_mean):
                nn.init.normal_(values, std=0.1)
    return network.eval()
