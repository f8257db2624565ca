"""The base networks by name."""

from collections.abc import Callable

from multibox.ssd.backbones.backbone import Backbone
from multibox.ssd.backbones.tiny import tiny
from multibox.ssd.backbones.vgg16 import vgg16

BACKBONES: dict[str, Callable[[], Backbone]] = {"tiny": tiny, "vgg16": vgg16}

__all__ = ["BACKBONES", "Backbone"]
