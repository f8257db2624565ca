"""Make the optimizer: choose which weights learn, at which rate, and how they decay."""

import copy
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from math import log2
from typing import assert_never

import torch
from torch import Tensor, nn

from multibox.ssd.network import SSD
from multibox.training.recipes import Recipe


def freeze(network: nn.Module, names: Sequence[str], *, batch_norm: bool = False) -> None:
    """Puts the network into training mode, except for frozen layers, whose BatchNorm also keeps its statistics.

    Args:
        network: The network to be trained.
        names: Names of the layers to freeze, or beginnings of the names of several.
        batch_norm: Whether all of the backbone's BatchNorm keeps its statistics. Its weights and biases still learn.

    Raises:
        ValueError: No layer's name begins so.
    """
    network.train().requires_grad_(True)  # an earlier run may have frozen other layers
    layers = dict(network.named_modules())
    for start in names:
        frozen = [layers[start]] if start in layers else [layers[name] for name in layers if name.startswith(start)]
        if not frozen:
            known = sorted({".".join(name.split(".")[:2]) for name in layers if name})
            near = get_close_matches(start, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"freeze: no layer's name begins with '{start}'; {hint}")
        for layer in frozen:  # with all layers inside it
            layer.eval().requires_grad_(False)
    for name, layer in layers.items():
        if batch_norm and name.startswith("backbone.") and isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"freeze: {', '.join(names)} leaves nothing that learns")


def freeze_as(recipe: Recipe, network: SSD, names: Sequence[str]) -> None:
    """Freezes what the recipe does not train, and the layers of the given names; see `freeze`."""
    stages = layers_up_to(recipe.freeze_stride, network.backbone, height=network.height, width=network.width)
    freeze(network, [*names, *stages], batch_norm=recipe.freeze_batch_norm)


def layers_up_to(stride: int, backbone: nn.Module, *, height: int, width: int) -> list[str]:
    """Returns the names of the backbone's first layers, up to those of this stride, as `freeze` takes them.

    Convolutions tell the stride, a power of two, by the rows of their features. Their BatchNorm, and what else comes
    before the next convolution, belongs to the same stage.

    Args:
        stride: Distance between the centers of neighboring cells in pixels of the input; 0 for no layers.
        backbone: Backbone of a detector.
        height: Height of the network input in pixels.
        width: Width of the network input in pixels.
    """
    if not stride:
        return []
    called: list[tuple[str, nn.Module, int]] = []

    def note(name: str, layer: nn.Module, _: object, output: Tensor) -> None:
        called.append((f"backbone.{name}", layer, output.shape[2] if isinstance(layer, nn.Conv2d) else 0))

    with torch.device("meta"):  # computes shapes without values
        trial = copy.deepcopy(backbone).to("meta").train()
        for name, layer in trial.named_modules():
            if next(layer.parameters(recurse=False), None) is not None:  # a block may have some of its own
                layer.register_forward_hook(partial(note, name))
        trial(torch.empty(2, 3, height, width))
    strides = [rows and 2 ** round(log2(height / rows)) for *_, rows in called]
    end = max((place + 1 for place, own in enumerate(strides) if 0 < own <= stride), default=0)
    while 0 < end < len(called) and not isinstance(called[end][1], nn.Conv2d):
        end += 1
    return [name for name, *_ in called[:end]]


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Returns the recipe's optimizer, with groups for biases, normalization layers and the backbone.

    The Caffe code trains biases at twice the rate and without decay, and decays the scale of L2 normalization. In each
    group, `lr_factor` is the factor on the run's learning rate.
    """
    groups: dict[tuple[bool, bool], list[tuple[str, Tensor]]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            match recipe.optimizer:
                case "sgd":
                    no_decay = name.endswith(".bias")
                case "adamw":
                    no_decay = parameter.ndim == 1
                case unknown:
                    assert_never(unknown)
            groups.setdefault((no_decay, name.startswith("backbone.")), []).append((name, parameter))
    fused = next(network.parameters()).device.type in ("cpu", "cuda")  # others have no `found_inf`
    rows = [
        {
            "params": named,
            "lr_factor": (recipe.bias_lr_factor if no_decay else 1.0)
            * (recipe.backbone_lr_factor if in_backbone else 1.0),
            "weight_decay": 0.0 if no_decay else recipe.weight_decay,
        }
        for (no_decay, in_backbone), named in groups.items()
    ]
    match recipe.optimizer:
        case "sgd":
            optimizer = torch.optim.SGD(rows, lr=recipe.learning_rate, momentum=0.9, fused=fused)
            for group in optimizer.param_groups:
                for parameter in group["params"]:  # otherwise a first step that is not finite would leave them unset
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return optimizer
        case "adamw":
            return torch.optim.AdamW(rows, lr=recipe.learning_rate, fused=fused)
        case unknown:
            assert_never(unknown)
