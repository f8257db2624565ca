"""Training: the recipes, the loop, and what a run leaves."""

from multibox.training.loop import Progress, train
from multibox.training.recipes import RECIPES, Recipe, TrainConfig

__all__ = ["RECIPES", "Progress", "Recipe", "TrainConfig", "train"]
