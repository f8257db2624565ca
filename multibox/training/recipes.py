"""The recipes, and what a user may say about a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import cos, inf, pi
from typing import Literal, get_args

from multibox.data.augment import Augmentation

RecipeName = Literal["paper", "modern", "drawn"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """How a detector is trained, as values.

    Attributes:
        optimizer: SGD with momentum 0.9, or AdamW.
        learning_rate: At its highest.
        weight_decay: Of all weights but biases, and, with AdamW, but those of normalization.
        bias_rate: Factor on the learning rate of biases.
        milestones: Where the rate falls to a tenth, as fractions of the run; without any it falls along a cosine to 0.
        warmup: The part of the run in which the rate rises from 0.
        average: Decay of the moving average of the weights, which is validated and saved; 0 for the weights themselves.
        batch_size: Pictures in a step.
        epochs: How often each picture is seen where a run does not say how long it is.
        augmentation: How far the random changes go.
    """

    optimizer: Literal["sgd", "adamw"]
    learning_rate: float
    weight_decay: float
    bias_rate: float
    milestones: tuple[float, ...]
    warmup: float
    average: float
    batch_size: int
    epochs: float
    augmentation: Augmentation

    def rate(self, progress: float) -> float:
        """The learning rate at a point of the run: 0 is its start, 1 its end."""
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        if self.milestones:
            passed = sum(progress >= milestone for milestone in self.milestones)
            return self.learning_rate * 0.1**passed
        return self.learning_rate * (1 + cos(pi * (progress - self.warmup) / (1 - self.warmup))) / 2


_MODERN = Recipe(
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.05,
    bias_rate=1.0,
    milestones=(),
    warmup=0.05,
    average=0.998,
    batch_size=8,
    epochs=100,
    augmentation=Augmentation(
        crop_probability=0.5,
        brightness=24.0,
        contrast=0.2,
        saturation=0.3,
        hue=6.0,
        expand_probability=0.0,
        interpolations=("bilinear",),
    ),
)

RECIPES: Mapping[RecipeName, Recipe] = {
    # The Caffe code's script for VOC 07+12: 120,000 steps of 32 pictures are 232 epochs of 16,551; the rate falls after
    # 80,000 and 100,000. Biases at twice the rate and without decay, as all its layers have it.
    "paper": Recipe(
        optimizer="sgd",
        learning_rate=1e-3,
        weight_decay=5e-4,
        bias_rate=2.0,
        milestones=(2 / 3, 5 / 6),
        warmup=0.0,
        average=0.0,
        batch_size=32,
        epochs=232,
        augmentation=Augmentation(),
    ),
    # From scratch on a few hundred pictures; docs/benchmarks.md has what it reached on such a set, and in which time.
    "modern": _MODERN,
    # The demo's: a few minutes are too short to learn drawn scenes through crops as well.
    "drawn": replace(
        _MODERN,
        learning_rate=3e-3,
        epochs=12,
        augmentation=replace(_MODERN.augmentation, brightness=16.0, contrast=0.1, saturation=0.2, crop_probability=0.0),
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run, as values. What is `None` is the recipe's, or the machine's, own.

    Attributes:
        recipe: `paper`, `modern`, or the demo's `drawn`; `None` is the one that suits the detector's backbone.
        epochs: Length of the run: how often each picture is seen.
        steps: Length of the run in steps.
        minutes: Length of the run in minutes, validation included. Of several lengths the first to be reached ends it.
        batch_size: Pictures in a step.
        learning_rate: At its highest.
        milestones: Where the rate falls to a tenth, as fractions of the run, rising; without any (an empty list) it
            falls along a cosine to 0.
        expand_probability: Of placing a picture on a larger canvas, which the paper's numbers without `*` do not have.
        precision: Of the convolutions; `bf16` where it pays, which is on GPUs.
        validate_every: Epochs between validations.
        workers: Processes that read and augment pictures; 0 for none beside this one.
        device: `cpu`, `cuda`, `mps`; a GPU where there is one.
        seed: Of all that is random; from 0 to 2**63 - 1.
    """

    recipe: RecipeName | None = None
    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    milestones: Sequence[float] | None = None
    expand_probability: float | None = None
    precision: Precision | None = None
    validate_every: float = 1.0
    workers: int | None = None
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.milestones is not None:
            object.__setattr__(self, "milestones", tuple(self.milestones))
        for name in ("epochs", "steps", "minutes", "batch_size", "learning_rate", "validate_every"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise ValueError(f"{name} must be above 0{' and finite' if value == inf else ''}, but is {value}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2**63 - 1, but is {self.seed}")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must be 0 or more, but is {self.workers}")
        if self.expand_probability is not None and not 0 <= self.expand_probability <= 1:
            raise ValueError(f"expand_probability must be from 0 to 1, but is {self.expand_probability}")
        edges = (0, *(self.milestones or ()), 1)
        if not all(before < after for before, after in pairwise(edges)):
            raise ValueError(f"milestones must rise between 0 and 1, parts of the run, but are {list(edges[1:-1])}")
        for name, choices in (("recipe", get_args(RecipeName)), ("precision", get_args(Precision))):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, but is '{value}'")

    def settled(self, *, backbone: str) -> tuple["TrainConfig", Recipe]:
        """The same run with its recipe's values where it left them open, and the recipe with the run's own values.

        Args:
            backbone: What is trained; where no recipe is named it is the one that suits it.
        """
        name = self.recipe or ("paper" if backbone == "vgg16" else "modern")
        recipe = RECIPES[name]
        recipe = replace(
            recipe,
            batch_size=self.batch_size or recipe.batch_size,
            learning_rate=self.learning_rate or recipe.learning_rate,
            milestones=recipe.milestones if self.milestones is None else tuple(self.milestones),
        )
        if self.expand_probability is not None:
            augmentation = replace(recipe.augmentation, expand_probability=self.expand_probability)
            recipe = replace(recipe, augmentation=augmentation)
        has_length = self.epochs or self.steps or self.minutes
        config = replace(
            self,
            recipe=name,
            epochs=self.epochs if has_length else recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            milestones=recipe.milestones,
            expand_probability=recipe.augmentation.expand_probability,
        )
        return config, recipe
