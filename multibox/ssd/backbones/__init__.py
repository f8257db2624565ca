"""Backbones (the paper's base networks) by name."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial

from multibox.messages import quoted
from multibox.ssd.backbones.backbone import Backbone, Source
from multibox.ssd.backbones.efficientnet import efficientnet_b3, efficientnet_lite
from multibox.ssd.backbones.mobilenet_v1 import mobilenet_v1
from multibox.ssd.backbones.mobilenet_v2 import mobilenet_v2_tensorflow
from multibox.ssd.backbones.mobilenet_v3 import port_mobilenet_v3
from multibox.ssd.backbones.timm import measure_timm, timm_backbone
from multibox.ssd.backbones.tiny import tiny
from multibox.ssd.backbones.torchvision import mobilenet_v2, mobilenet_v3_large, resnet, squeezenet
from multibox.ssd.backbones.ultra_light import ultra_light
from multibox.ssd.backbones.vgg16 import vgg16

MOBILENET_V2_WIDTHS = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)
"""Width multipliers of MobileNetV2: eighths, which give whole numbers of channels in all layers."""

BACKBONES: Mapping[str, Callable[..., Backbone]] = {
    "tiny": tiny,
    "vgg16": vgg16,
    "mobilenet-v1": mobilenet_v1,
    "mobilenet-v1-0.75": partial(mobilenet_v1, width=0.75),
    "mobilenet-v1-0.5": partial(mobilenet_v1, width=0.5),
    "mobilenet-v1-0.25": partial(mobilenet_v1, width=0.25),
    "mobilenet-v1-tensorflow": partial(mobilenet_v1, tensorflow=True),
    "mobilenet-v1-0.75-tensorflow": partial(mobilenet_v1, width=0.75, tensorflow=True),
    "mobilenet-v2": mobilenet_v2,
    **{f"mobilenet-v2-{width:g}": partial(mobilenet_v2, width=width) for width in MOBILENET_V2_WIDTHS},
    "mobilenet-v2-tensorflow": mobilenet_v2_tensorflow,
    "mobilenet-v3-large": partial(mobilenet_v3_large, reduced_tail=False),
    "mobilenet-v3-large-reduced": partial(mobilenet_v3_large, reduced_tail=True),
    "mobilenet-v3-large-lufficc": partial(port_mobilenet_v3, port="lufficc"),
    "mobilenet-v3-large-qfgaohao": partial(port_mobilenet_v3, port="qfgaohao"),
    "mobilenet-v3-small-qfgaohao": partial(port_mobilenet_v3, port="qfgaohao", size="small"),
    "efficientnet-b3": efficientnet_b3,
    "efficientnet-lite0": efficientnet_lite,
    "efficientnet-lite1": partial(efficientnet_lite, depth=1.1),
    "efficientnet-lite2": partial(efficientnet_lite, width=1.1, depth=1.2),
    "squeezenet1.1": squeezenet,
    "resnet18": partial(resnet, 18),
    "resnet34": partial(resnet, 34),
    "resnet50": partial(resnet, 50),
    "ultra-light-rfb": partial(ultra_light, rfb=True),
    "ultra-light-slim": partial(ultra_light, rfb=False),
}
"""Functions that make a backbone, by its name. Each can be called with a number of `image_channels`."""

__all__ = ["BACKBONES", "Backbone", "Source", "make_backbone", "measure_timm"]


def make_backbone(name: str, image_channels: int = 3) -> Backbone:
    """Returns a backbone with random weights.

    Args:
        name: Name of the backbone, or `timm/NAME`.
        image_channels: Number of channels of the network input.

    Raises:
        ValueError: There is no backbone of this name.
        ImportError: The backbone needs torchvision or timm, which is not installed.
    """
    if name.startswith("timm/"):
        return timm_backbone(name.removeprefix("timm/"), image_channels)
    if name not in BACKBONES:
        near = get_close_matches(name, BACKBONES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(BACKBONES)}, and timm/NAME"
        raise ValueError(f"this multibox has no backbone {quoted(name)}; {hint}")
    return BACKBONES[name](image_channels=image_channels)
