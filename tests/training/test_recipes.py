import subprocess
import sys
from dataclasses import replace

import pytest

from multibox.training.recipes import RECIPES, TrainConfig

PAPER = RECIPES["paper"]


@pytest.mark.parametrize(
    "step, rate",
    [
        (0, 1e-3),
        (1, 1e-3),
        (79_999, 1e-3),
        (80_000, 1e-4),
        (99_999, 1e-4),
        (100_000, 1e-5),
        (119_999, 1e-5),
        (120_000, 1e-5),
    ],
)
def test_rate_of_the_paper_is_that_of_the_released_script(step, rate):
    """1e-3 for 80,000 steps, 1e-4 for 20,000, 1e-5 for the last 20,000 of 120,000."""
    assert PAPER.learning_rate_at(step / 120_000) == pytest.approx(rate)


def test_values_of_the_paper():
    assert (PAPER.optimizer, PAPER.learning_rate, PAPER.weight_decay, PAPER.bias_lr_factor) == ("sgd", 1e-3, 5e-4, 2.0)
    assert (PAPER.batch_size, PAPER.warmup, PAPER.ema_decay) == (32, 0.0, 0.0)
    assert PAPER.epochs * 16_551 / 32 == pytest.approx(120_000, rel=1e-3)


def test_rate_of_modern_rises_to_its_highest_then_falls_along_a_cosine_to_0():
    recipe = RECIPES["modern"]
    highest, warmup = recipe.learning_rate, recipe.warmup
    assert 0 < warmup < 0.2
    assert recipe.learning_rate_at(0.0) == 0
    assert recipe.learning_rate_at(warmup / 4) == pytest.approx(highest / 4)
    assert recipe.learning_rate_at(warmup / 2) == pytest.approx(highest / 2)
    assert recipe.learning_rate_at(warmup) == pytest.approx(highest)
    for part, factor in ((1 / 3, 3 / 4), (1 / 2, 1 / 2), (2 / 3, 1 / 4)):  # (1 + cos(pi x part)) / 2
        assert recipe.learning_rate_at(warmup + part * (1 - warmup)) == pytest.approx(highest * factor)
    assert recipe.learning_rate_at(1.0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", RECIPES)
def test_rate_has_no_jumps_up_and_is_never_negative_or_above_the_highest(name):
    recipe = RECIPES[name]
    rates = [recipe.learning_rate_at(step / 1000) for step in range(1001)]
    assert min(rates) >= 0 and max(rates) == pytest.approx(recipe.learning_rate)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"epochs": 0.0}, "epochs must be above 0, but is 0"),
        ({"steps": -3}, "steps must be above 0, but is -3"),
        ({"minutes": float("nan")}, "minutes must be above 0, but is nan"),
        ({"batch_size": 0}, "batch_size must be above 0, but is 0"),
        ({"learning_rate": -1e-3}, "learning_rate must be above 0, but is -0.001"),
        ({"validate_every": 0.0}, "validate_every must be above 0, but is 0"),
        ({"epochs": float("inf")}, "epochs must be above 0 and finite, but is inf"),
        ({"minutes": float("inf")}, "minutes must be above 0 and finite, but is inf"),
        ({"validate_every": float("inf")}, "validate_every must be above 0 and finite, but is inf"),
        ({"seed": -1}, r"seed must be from 0 to 2\*\*63 - 1, but is -1"),
        ({"seed": 10**20}, r"seed must be from 0 to 2\*\*63 - 1, but is 1000"),
        ({"workers": -1}, "workers must be 0 or more, but is -1"),
        ({"expand_probability": 1.5}, "expand_probability must be from 0 to 1, but is 1.5"),
        ({"expand_probability": float("nan")}, "expand_probability must be from 0 to 1, but is nan"),
        ({"patience": 0}, "patience must be above 0, but is 0"),
        ({"accumulate": 0}, "accumulate must be above 0, but is 0"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0, but is 0"),
        ({"warmup": 1.0}, "warmup must be from 0 to below 1, a part of the run, but is 1"),
        ({"backbone_lr_factor": -0.1}, "backbone_lr_factor must be 0 or more, but is -0.1"),
        ({"negatives_per_positive": 0}, "negatives_per_positive must be above 0, but is 0"),
        ({"negatives_without_matches": -1}, "negatives_without_matches must be 0 or more, but is -1"),
        ({"checkpoint_minutes": float("inf")}, "checkpoint_minutes must be 0 or more and finite, but is inf"),
        ({"max_unreadable": 2.0}, "max_unreadable must be from 0 to 1, but is 2"),
        ({"class_weights": {"cat": -1.0}}, "class_weights must be a mapping of names to numbers above 0, but is {'cat"),
        ({"class_weights": {"cat": float("inf"), "dog": 2.0}}, "but is {'cat': inf}"),
        ({"milestones": (0.9, 0.7)}, r"milestones must rise between 0 and 1, parts of the run, but are \[0.9, 0.7\]"),
        ({"milestones": (0.5, 0.5)}, "milestones must rise between 0 and 1"),
        ({"milestones": (280_000.0, 360_000.0)}, r"but are \[280000.0, 360000.0\]"),
        ({"milestones": (0.0,)}, "milestones must rise between 0 and 1"),
        ({"milestones": (0.5, 1.0)}, "milestones must rise between 0 and 1"),
        ({"milestones": (float("nan"),)}, "milestones must rise between 0 and 1"),
    ],
)
def test_a_run_refuses_what_has_no_meaning(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


OTHER_KINDS = """
import numpy as np
from multibox.training.recipes import TrainConfig
config = TrainConfig(freeze="backbone", trackers="tensorboard", milestones=0.5)
print(config.freeze, config.trackers, config.milestones)
for values in ({"steps": "3"}, {"workers": 1.5}, {"batch_size": 8.0}, {"clip_norm": "3"}, {"steps": True}):
    try:
        TrainConfig(**values)
    except ValueError as error:
        print(error)
config = TrainConfig(steps=np.int64(3), clip_norm=np.float32(0.5))
print(type(config.steps).__name__, type(config.clip_norm).__name__)
"""


def test_values_of_other_kinds():
    """In a process of its own, since the tests check the types of all arguments."""
    ran = subprocess.run([sys.executable, "-c", OTHER_KINDS], check=True, capture_output=True, text=True)
    assert ran.stdout.splitlines() == [
        "('backbone',) ('tensorboard',) (0.5,)",  # a single one is a list of one
        "steps must be a whole number, but is '3'",
        "workers must be a whole number, but is 1.5",
        "batch_size must be a whole number, but is 8.0",
        "clip_norm must be a number, but is '3'",
        "steps must be a whole number, but is True",
        "int float",
    ]


@pytest.mark.parametrize(
    "name, message",
    [
        ("recipe", f"recipe must be one of {', '.join(RECIPES)}, but is 'fast'"),
        ("precision", "precision must be one of auto, fp32, bf16, but is 'fast'"),
        ("trackers", "trackers must be 'tensorboard', but is 'fast'"),
    ],
)
def test_a_run_refuses_what_there_is_not(name, message):
    config = TrainConfig()
    object.__setattr__(config, name, ("fast",) if name == "trackers" else "fast")  # past the tests' own type checks
    with pytest.raises(ValueError, match=message):
        config.__post_init__()


def test_a_run_takes_no_workers_and_parts_of_an_epoch():
    config = TrainConfig(workers=0, epochs=0.5, validate_every=0.25, seed=2**63 - 1)
    assert (config.workers, config.epochs, config.validate_every) == (0, 0.5, 0.25)


@pytest.mark.parametrize("name", RECIPES)
def test_values_of_a_run_are_the_recipes_but_for_its_own(name):
    assert TrainConfig(recipe=name).resolve(backbone="tiny")[1] == RECIPES[name]
    _, changed = TrainConfig(recipe=name, batch_size=3, learning_rate=0.5).resolve(backbone="tiny")
    assert (changed.batch_size, changed.learning_rate) == (3, 0.5)
    assert changed.learning_rate_at(0.1) / 0.5 == pytest.approx(
        RECIPES[name].learning_rate_at(0.1) / RECIPES[name].learning_rate
    )
    assert changed.augmentation == RECIPES[name].augmentation


@pytest.mark.parametrize(
    "backbone, pretrained, name",
    [("vgg16", False, "paper"), ("vgg16", True, "paper"), ("tiny", False, "modern"), ("resnet18", True, "fine-tune")],
)
def test_the_start_and_the_backbone_choose_the_recipe(backbone, pretrained, name):
    config, recipe = TrainConfig().resolve(backbone=backbone, pretrained=pretrained)
    assert (config.recipe, recipe) == (name, RECIPES[name])
    config, recipe = TrainConfig(recipe="modern", freeze_stride=2).resolve(backbone=backbone, pretrained=pretrained)
    assert (config.recipe, recipe) == ("modern", replace(RECIPES["modern"], freeze_stride=2))
    assert (config.freeze_stride, config.freeze_batch_norm, config.backbone_lr_factor) == (2, False, 1.0)


def test_a_run_has_milestones_and_expansion_of_its_own():
    config = TrainConfig(recipe="paper", milestones=(0.7, 0.9), expand_probability=0.0)
    settled, recipe = config.resolve(backbone="vgg16")
    assert (settled.milestones, settled.expand_probability) == ((0.7, 0.9), 0.0)
    assert recipe.augmentation == replace(PAPER.augmentation, expand_probability=0.0)
    assert [recipe.learning_rate_at(part) for part in (0.69, 0.7, 0.89, 0.9)] == pytest.approx([1e-3, 1e-4, 1e-4, 1e-5])
    along_a_cosine = TrainConfig(recipe="paper", milestones=()).resolve(backbone="vgg16")[1]
    assert along_a_cosine.learning_rate_at(0.5) == pytest.approx(1e-3 / 2)


@pytest.mark.parametrize(
    ("name", "batch_size", "rate", "warmup"),
    [
        ("paper", 32, 1e-3, 0.0),
        ("paper", 8, 1e-3 / 4, 0.0),
        ("paper", 128, 4e-3, 0.02),
        ("modern", 8, 2e-3, 0.05),
        ("modern", 32, 8e-3, 0.05),
        ("modern", 2, 5e-4, 0.05),
        ("modern", 64, 8e-3, 0.05),  # not more: docs/benchmarks.md
        ("fine-tune", 32, 8e-3, 0.05),
        ("fine-tune", 4, 4e-3, 0.05),
    ],
)
def test_the_rate_follows_the_batch_size(name, batch_size, rate, warmup):
    config, recipe = TrainConfig(recipe=name, batch_size=batch_size).resolve(backbone="tiny")
    assert (recipe.learning_rate, recipe.warmup) == (pytest.approx(rate), warmup)
    assert (config.learning_rate, config.warmup) == (recipe.learning_rate, recipe.warmup)
    assert config.resolve(backbone="tiny") == (config, recipe)  # as it is written down
    own = TrainConfig(recipe=name, batch_size=batch_size, learning_rate=0.5).resolve(backbone="tiny")[1]
    assert (own.learning_rate, own.warmup) == (0.5, RECIPES[name].warmup)
    assert TrainConfig(recipe=name, batch_size=batch_size, warmup=0.3).resolve(backbone="tiny")[1].warmup == 0.3


@pytest.mark.parametrize("name", ["modern", "fine-tune"])
def test_weights_that_know_classes_keep_them(name):
    """The rate of docs/benchmarks.md, at which they lose little, whatever the recipe's own rate is."""
    _, recipe = TrainConfig(recipe=name).resolve(backbone="tiny", knows_classes=True)
    assert recipe.learning_rate == pytest.approx(6e-4)


def test_what_a_run_leaves_open_is_written_down_as_its_recipes():
    settled, _ = TrainConfig(recipe="paper").resolve(backbone="vgg16")
    assert (settled.milestones, settled.expand_probability) == (PAPER.milestones, 0.5)
    assert settled.resolve(backbone="vgg16") == TrainConfig(recipe="paper").resolve(backbone="vgg16")
