"""The recipes, and what a user may say about a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import cos, pi
from numbers import Real
from typing import Annotated, Any, Literal

from msgspec import Meta

from multibox.checks import Fraction, NotNegative, Positive, check_fields
from multibox.data.augment import Augmentation

RecipeName = Literal["paper", "modern", "drawn"]
Precision = Literal["fp32", "bf16"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]

AboveZero = Annotated[int, Meta(gt=0, description="above 0")]
Warmup = Annotated[float, Meta(ge=0, lt=1, description="from 0 to below 1, a part of the run")]
Decay = Annotated[float, Meta(ge=0, lt=1, description="from 0 to below 1")]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1, description="from 0 to 2**63 - 1")]

LARGE_BATCH_WARMUP = 0.02
"""Part of a run in which the rate rises, where a recipe without warm-up takes larger batches than its own."""


def check_milestones(milestones: Sequence[float]) -> None:
    """Raises a ValueError unless the milestones rise between 0 and 1."""
    edges = (0, *milestones, 1)
    if not all(before < after for before, after in pairwise(edges)):
        raise ValueError(f"milestones must rise between 0 and 1, parts of the run, but are {list(milestones)}")


@dataclass(frozen=True)
class Recipe:
    """How a detector is trained, as values.

    Attributes:
        optimizer: SGD with momentum 0.9, or AdamW.
        learning_rate: Highest learning rate of the run.
        weight_decay: Weight decay of all weights but biases, and, with AdamW, but those of normalization layers.
        bias_lr_factor: Factor on the learning rate of biases.
        milestones: Points of the run, as fractions of it, at which the learning rate falls to a tenth. Without any it
            falls along a cosine to 0.
        warmup: Fraction of the run in which the learning rate rises from 0.
        ema_decay: Decay of the exponential moving average of the weights, which is validated and saved. 0 validates
            and saves the weights themselves.
        batch_size: Number of images in a step, for which the learning rate is meant.
        epochs: Number of times each image is seen if a run does not give its length.
        augmentation: Extent of the random changes.
    """

    optimizer: Literal["sgd", "adamw"]
    learning_rate: Positive
    weight_decay: NotNegative
    bias_lr_factor: NotNegative
    milestones: tuple[float, ...]
    warmup: Warmup
    ema_decay: Decay
    batch_size: AboveZero
    epochs: Positive
    augmentation: Augmentation

    def __post_init__(self) -> None:
        check_fields(self)
        check_milestones(self.milestones)

    def learning_rate_at(self, progress: float) -> float:
        """Returns the learning rate at a point of the run: 0 is its start, 1 its end."""
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
    bias_lr_factor=1.0,
    milestones=(),
    warmup=0.05,
    ema_decay=0.998,
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
    # The Caffe code's script for VOC 07+12: 120,000 steps of 32 images are 232 epochs of 16,551; the rate falls after
    # 80,000 and 100,000. Biases at twice the rate and without decay, as all its layers have it.
    "paper": Recipe(
        optimizer="sgd",
        learning_rate=1e-3,
        weight_decay=5e-4,
        bias_lr_factor=2.0,
        milestones=(2 / 3, 5 / 6),
        warmup=0.0,
        ema_decay=0.0,
        batch_size=32,
        epochs=232,
        augmentation=Augmentation(),
    ),
    # From scratch on a few hundred images; docs/benchmarks.md has what it reached on such a set, and in which time.
    "modern": _MODERN,
    # The demo's: a few minutes are too short to learn synthetic scenes through crops as well.
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
        recipe: The paper's, or a modern one (or the demo's `drawn`); by default the one that suits the detector.
        epochs: Length of the run: how often each image is seen.
        steps: Length of the run in steps.
        minutes: Length of the run in minutes, validation included. Of several lengths the first to be reached ends it.
        patience: End the run after so many validations without a higher AP.
        batch_size: Images in a step, those of all processes together.
        accumulate: Work on a step's images in so many parts, one after the other, to need less memory.
        learning_rate: At its highest; by default the recipe's, in proportion to the batch size.
        milestones: Where the rate falls to a tenth, as fractions of the run, rising; without any (an empty list) it
            falls along a cosine to 0.
        warmup: The part of the run, from 0 to 1, in which the rate rises from 0.
        backbone_lr_factor: Factor on the learning rate of the backbone.
        freeze: Layers that do not learn, by the beginnings of their names: `backbone`, `backbone.conv1`.
        clip_norm: Scale the gradient down to this norm where it is larger.
        expand_probability: Of placing an image on a larger canvas, which the paper's numbers without `*` do not have.
        balance_classes: Show images with rare classes more often: LVIS's repeat factors, without a threshold.
        negatives_without_matches: Of an image in which nothing matches, learn so many of its hardest negatives; the
            paper's code learns none.
        precision: Of the convolutions; by default `bf16` on a GPU of CUDA that computes in it, `fp32` elsewhere.
        compile: Compile the network: a minute or more at the start, and faster steps.
        sync_batch_norm: BatchNorm over the images of all processes; on GPUs only.
        validate_every: Epochs between validations; by default 1.
        checkpoint_minutes: Minutes between savings of the state, which is what a killed run may lose; by default 5.
        max_unreadable: The part of the images that may be unreadable, each then replaced by another; with more the
            run stops. By default 0.05.
        skip_bad_steps: Go on where a loss or gradient is not finite, without that step, instead of stopping.
        trackers: Where else to write the metrics: `tensorboard`, `wandb`, `mlflow`; each needs its package.
        workers: Processes that read and augment images; torch has the cores that they leave; 0 for none.
        device: `cpu`, `cuda`, `mps`; by default `cuda` where there is one.
        seed: Of all that is random, from 0 to 2**63 - 1; by default 0.
    """

    recipe: RecipeName | None = None
    epochs: Positive | None = None
    steps: AboveZero | None = None
    minutes: Positive | None = None
    patience: AboveZero | None = None
    batch_size: AboveZero | None = None
    accumulate: AboveZero = 1
    learning_rate: Positive | None = None
    milestones: Sequence[float] | None = None
    warmup: Warmup | None = None
    backbone_lr_factor: NotNegative = 1.0
    freeze: Sequence[str] = ()
    clip_norm: Positive | None = None
    expand_probability: Fraction | None = None
    balance_classes: bool = False
    negatives_without_matches: Annotated[int, Meta(ge=0, description="0 or more")] = 0
    precision: Precision | None = None
    compile: bool = False
    sync_batch_norm: bool = False
    validate_every: Positive = 1.0
    checkpoint_minutes: NotNegative = 5.0
    max_unreadable: Fraction = 0.05
    skip_bad_steps: bool = False
    trackers: Sequence[Tracker] = ()
    workers: Annotated[int, Meta(ge=0, description="0 or more")] | None = None
    device: str | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        for name in ("milestones", "freeze", "trackers"):
            value = getattr(self, name)
            if isinstance(value, str | Real):  # a single one is a list of one; a text is no list of its letters
                object.__setattr__(self, name, (value,))
        check_fields(self)
        check_milestones(self.milestones or ())

    def values(self) -> dict[str, Any]:
        """All values but those that are left open, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def resolve(self, *, backbone: str) -> tuple["TrainConfig", Recipe]:
        """The same run with its recipe's values where it left them open, and the recipe with the run's own values.

        The learning rate follows the batch size: twice the images, twice the rate (linear scaling, Goyal et al.
        2017). Where it is raised so, and the recipe has no warm-up, the run gets one.

        Args:
            backbone: What is trained; where no recipe is named it is the one that suits it.
        """
        name = self.recipe or ("paper" if backbone == "vgg16" else "modern")
        recipe = RECIPES[name]
        scale = (self.batch_size or recipe.batch_size) / recipe.batch_size
        raised = scale > 1 and self.learning_rate is None
        warmup = max(recipe.warmup, LARGE_BATCH_WARMUP) if raised else recipe.warmup
        augmentation = recipe.augmentation
        if self.expand_probability is not None:
            augmentation = replace(augmentation, expand_probability=self.expand_probability)
        recipe = replace(
            recipe,
            batch_size=self.batch_size or recipe.batch_size,
            learning_rate=self.learning_rate or recipe.learning_rate * scale,
            milestones=recipe.milestones if self.milestones is None else tuple(self.milestones),
            warmup=warmup if self.warmup is None else self.warmup,
            augmentation=augmentation,
        )
        has_length = self.epochs or self.steps or self.minutes
        config = replace(
            self,
            recipe=name,
            epochs=self.epochs if has_length else recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            milestones=recipe.milestones,
            warmup=recipe.warmup,
            expand_probability=augmentation.expand_probability,
        )
        return config, recipe
