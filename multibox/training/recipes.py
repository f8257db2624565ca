"""The recipes, and the values of a training run that users can set."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import cos, inf, pi
from numbers import Real
from typing import Annotated, Any, Literal

from msgspec import Meta

from multibox.checks import LARGEST_INT, Fraction, NotNegative, Positive, check_fields
from multibox.config import LARGEST_SIDE, PrecisionChoice
from multibox.data.augment import Augmentation
from multibox.words import explains_arguments

RecipeName = Literal["paper", "modern", "fine-tune"]
Tracker = Literal["tensorboard"]

AboveZero = Annotated[int, Meta(gt=0, le=LARGEST_INT, description="above 0")]
Warmup = Annotated[float, Meta(ge=0, lt=1, description="from 0 to below 1, a part of the run")]
Decay = Annotated[float, Meta(ge=0, lt=1, description="from 0 to below 1")]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1, description="from 0 to 2**63 - 1")]

Stride = Annotated[int, Meta(ge=0, le=LARGEST_SIDE, description=f"from 0 to {LARGEST_SIDE}")]

_OF_BACKBONES = ("backbone_lr_factor", "freeze_stride", "freeze_batch_norm")
"""Values for the backbone, which a recipe has and a run may change."""

LARGE_BATCH_WARMUP = 0.02
"""Fraction of the run in which the rate rises if larger batches raise it and the recipe has no warm-up."""


def check_milestones(milestones: Sequence[float]) -> None:
    """Raises a ValueError unless the milestones rise between 0 and 1."""
    edges = (0, *milestones, 1)
    if not all(before < after for before, after in pairwise(edges)):
        raise ValueError(f"milestones must rise between 0 and 1, parts of the run, but are {list(milestones)}")


@dataclass(frozen=True)
class Recipe:
    """The values that say how a detector is trained.

    Attributes:
        optimizer: `sgd` (with momentum 0.9) or `adamw`.
        learning_rate: Highest learning rate of the run, for batches of `batch_size` images.
        weight_decay: Weight decay of all weights except biases and, with AdamW, the weights of normalization layers.
        bias_lr_factor: Factor on the learning rate of biases.
        milestones: Fractions of the run at which the learning rate falls to a tenth. If empty, it falls along a cosine
            to 0.
        warmup: Fraction of the run in which the learning rate rises from 0.
        known_classes_lr_factor: Factor on the learning rate of a run that starts from weights which know classes of the
            data.
        max_learning_rate: Limit on the learning rate for larger batches; None for no limit.
        backbone_lr_factor: Factor on the learning rate of the backbone.
        freeze_stride: The backbone's layers with a stride of up to this do not learn; 0 for none.
        freeze_batch_norm: Whether the backbone's BatchNorm keeps its statistics.
        ema_decay: Decay of the exponential moving average of the weights, which is validated and saved. With 0 the
            weights themselves are.
        batch_size: Number of images in a step.
        epochs: How often each image is seen if the run does not set its length.
        augmentation: Ranges of the random changes of the images.
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
    known_classes_lr_factor: Positive = 1.0
    max_learning_rate: Positive | None = None
    backbone_lr_factor: NotNegative = 1.0
    freeze_stride: Stride = 0
    freeze_batch_norm: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_milestones(self.milestones)

    def learning_rate_at(self, fraction_done: float) -> float:
        """Returns the learning rate at a point of the run: 0 is its start, 1 its end."""
        if fraction_done < self.warmup:
            return self.learning_rate * fraction_done / self.warmup
        if self.milestones:
            passed = sum(fraction_done >= milestone for milestone in self.milestones)
            return self.learning_rate * 0.1**passed
        return self.learning_rate * (1 + cos(pi * (fraction_done - self.warmup) / (1 - self.warmup))) / 2

    def for_batch_size(self, batch_size: int) -> "Recipe":
        """Returns the recipe for another number of images in a step, with the learning rate that suits it.

        The rate is proportional to the batch size (Goyal et al. 2017), up to `max_learning_rate`. If that raises it, a
        recipe without warm-up gets one. For AdamW the square root is often recommended (Malladi et al. 2022), but
        measured on BCCD the proportional rate was better (docs/benchmarks.md).
        """
        scale = batch_size / self.batch_size
        warmup = max(self.warmup, LARGE_BATCH_WARMUP) if scale > 1 else self.warmup
        learning_rate = min(self.learning_rate * scale, self.max_learning_rate or inf)
        return replace(self, batch_size=batch_size, learning_rate=learning_rate, warmup=warmup)


# For training from scratch on a few hundred images; docs/benchmarks.md has its accuracy and time on such a set, and the
# measurement of its rate for fine-tuning.
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
    known_classes_lr_factor=0.3,
    max_learning_rate=8e-3,
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
    # 80,000 and 100,000. Biases learn at twice the rate and without decay, as in all layers of the Caffe code.
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
    "modern": _MODERN,
    # For backbones that start trained, as on ImageNet. The new layers have more to learn. docs/benchmarks.md has
    # the runs that both rates were chosen by.
    "fine-tune": replace(
        _MODERN,
        epochs=30,
        learning_rate=8e-3,
        known_classes_lr_factor=0.075,  # the rate that `modern` then has
        backbone_lr_factor=0.1,
        freeze_stride=8,
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The values of one training run. Values that are `None` are taken from the recipe or chosen for the machine.

    Attributes:
        recipe: `paper`, `modern` or `fine-tune`. By default `paper` for the backbone `vgg16`; for all others
            `fine-tune` if the backbone starts from trained weights, else `modern`.
        epochs: Length of the run: how often each image is seen. By default 232 for `paper`, 100 for `modern` and 30 for
            `fine-tune`.
        steps: Length of the run in steps.
        minutes: Length of the run in minutes, validation included. If several lengths are given, the first to be
            reached ends the run.
        patience: End the run after this many validations without a higher AP.
        batch_size: Number of images in a step, those of all processes together. By default 32 for `paper` and 8 for
            `modern` and `fine-tune`.
        accumulate: Compute each step in this many parts, one after the other, to need less memory.
        learning_rate: Highest learning rate. By default the recipe's, adjusted to the batch size, and lower if the run
            starts from weights that know classes of the data.
        milestones: Rising fractions of the run at which the learning rate falls to a tenth. With an empty list it
            falls along a cosine to 0.
        warmup: Fraction of the run, from 0 to 1, in which the learning rate rises from 0.
        backbone_lr_factor: Factor on the learning rate of the backbone. By default 1 for `paper` and `modern`, and 0.1
            for `fine-tune`.
        freeze: Layers that do not learn, by their names, or the beginnings of several: `backbone`, `backbone.conv1`.
        freeze_stride: The backbone's layers with a stride of up to this do not learn either; 0 for none. By default 0
            for `paper` and `modern`, and 8 for `fine-tune`.
        freeze_batch_norm: Keep the statistics of the backbone's BatchNorm as they are at the start, so that they do not
            depend on how many images a step has.
        clip_norm: Scale the gradient down to this norm if it is larger.
        expand_probability: Probability of placing an image on a larger canvas. The paper's results without `*` were
            trained without it.
        balance_classes: Show images with rare classes more often, by LVIS's repeat factors without a threshold.
        class_weights: Factor on the confidence loss of the objects of each class, by its name (NAME=2,NAME2=0.5 as a
            flag); 1 for a class that is left out. `balanced`: inversely proportional to the number of objects of the
            class, and 1 on average over the objects.
        distillation_weight: Factor on the distillation loss, if the run has a teacher.
        negatives_per_positive: Number of hardest negatives to learn for each default box that matches an object. With
            more of them than there are default boxes, all negatives are learned: nothing is mined.
        negatives_without_matches: Number of hardest negatives to learn from an image in which nothing matches. The
            paper's code learns none.
        precision: Precision of the convolutions: `fp32`, `bf16`, or `auto` for `bf16` where it is faster. A GPU uses
            bf16 if it supports it; a CPU that supports it times a few batches of each.
        compile: Compile the network: a minute or more at the start, then faster steps.
        sync_batch_norm: Compute BatchNorm over the images of all processes. On GPUs only.
        validate_every: Number of epochs between two validations.
        keep_weights: Keep the weights of every validation too, as `weights-STEP.safetensors` in the folder of the run.
            `multibox explain` compares them.
        report: Write the report on the validation set at the end of the run.
        checkpoint_minutes: Minutes between two checkpoints: the most that a killed run can lose.
        max_unreadable: Fraction of the images that may be unreadable. Each is replaced by another image; if there are
            more, the run stops.
        skip_bad_steps: If a loss or gradient is not finite, go on without that step instead of stopping.
        trackers: Where else to write the metrics: `tensorboard`, which needs the package of that name.
        workers: Number of processes that read and augment images; torch uses the remaining cores. 0 for none.
        device: `cpu`, `cuda` or `mps`. By default `cuda` if there is a GPU.
        seed: Seed of everything random, from 0 to 2**63 - 1.
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
    backbone_lr_factor: NotNegative | None = None
    freeze: Sequence[str] = ()
    freeze_stride: Stride | None = None
    freeze_batch_norm: bool | None = None
    clip_norm: Positive | None = None
    expand_probability: Fraction | None = None
    balance_classes: bool = False
    class_weights: Literal["balanced"] | Mapping[str, Positive] | None = None
    distillation_weight: NotNegative = 1.0
    negatives_per_positive: Positive = 3.0
    negatives_without_matches: Annotated[int, Meta(ge=0, le=LARGEST_INT, description="0 or more")] = 0
    precision: PrecisionChoice = "auto"
    compile: bool = False
    sync_batch_norm: bool = False
    validate_every: Positive = 1.0
    keep_weights: bool = False
    report: bool = True
    checkpoint_minutes: NotNegative = 5.0
    max_unreadable: Fraction = 0.05
    skip_bad_steps: bool = False
    trackers: Sequence[Tracker] = ()
    workers: Annotated[int, Meta(ge=0, le=LARGEST_INT, description="0 or more")] | None = None
    device: str | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        for name in ("milestones", "freeze", "trackers"):
            value = getattr(self, name)
            if isinstance(value, str | Real):  # a single value is a list of one; a text is not a list of its letters
                object.__setattr__(self, name, (value,))
        check_fields(self)
        check_milestones(self.milestones or ())

    def values(self) -> dict[str, Any]:
        """Returns all values that are set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def resolve(
        self, *, backbone: str, recipe: Recipe | None = None, pretrained: bool = False, knows_classes: bool = False
    ) -> tuple["TrainConfig", Recipe]:
        """Combines this run with its recipe, whose values stand in for those that the run does not set.

        Args:
            backbone: Name of the detector's backbone, which selects the recipe if none is named.
            recipe: A recipe of your own instead of a named one.
            pretrained: Whether the backbone starts from trained weights, which selects the recipe too.
            knows_classes: Whether the run starts from weights that know classes of the data.

        Returns:
            The run with its recipe's values, and the recipe with the run's own values.
        """
        usual: RecipeName = "paper" if backbone == "vgg16" else "fine-tune" if pretrained else "modern"
        name = None if recipe else self.recipe or usual
        own = recipe or RECIPES[name or "modern"]
        scaled = own.for_batch_size(self.batch_size or own.batch_size)
        warmup = own.warmup if self.learning_rate else scaled.warmup
        augmentation = own.augmentation
        if self.expand_probability is not None:
            augmentation = replace(augmentation, expand_probability=self.expand_probability)
        resolved = replace(
            scaled,
            learning_rate=self.learning_rate
            or scaled.learning_rate * (own.known_classes_lr_factor if knows_classes else 1),
            milestones=own.milestones if self.milestones is None else tuple(self.milestones),
            warmup=warmup if self.warmup is None else self.warmup,
            augmentation=augmentation,
            **{name: value for name in _OF_BACKBONES if (value := getattr(self, name)) is not None},
        )
        has_length = self.epochs or self.steps or self.minutes
        config = replace(
            self,
            recipe=name,
            epochs=self.epochs if has_length else own.epochs,
            batch_size=resolved.batch_size,
            learning_rate=resolved.learning_rate,
            milestones=resolved.milestones,
            warmup=resolved.warmup,
            **{name: getattr(resolved, name) for name in _OF_BACKBONES},
            expand_probability=augmentation.expand_probability,
        )
        return config, resolved


TrainConfig.__init__ = explains_arguments()(TrainConfig.__init__)  # type: ignore[method-assign]
