"""Training: the recipes, the loop, and the files of a run.

Each name is loaded when it is first used. The command line can therefore read `TrainConfig` for its flags without
importing torch before a run begins.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multibox.training.fit import train
    from multibox.training.progress import Progress
    from multibox.training.recipes import RECIPES, Recipe, TrainConfig

_HOMES = {
    "RECIPES": "multibox.training.recipes",
    "Progress": "multibox.training.progress",
    "Recipe": "multibox.training.recipes",
    "TrainConfig": "multibox.training.recipes",
    "train": "multibox.training.fit",
}

__all__ = ["RECIPES", "Progress", "Recipe", "TrainConfig", "train"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'multibox.training' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
