"""The paper's ablations on data of one's own: equal runs of a detector, each without one of the paper's ideas.

Tables 2 and 3 of the paper ask what augmentation, aspect ratios and feature maps are worth on VOC 2007. Section 2.2
says that hard negative mining makes training faster and more stable, without a number.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any

from multibox.config import DetectorConfig, FeatureMap
from multibox.data.augment import Augmentation
from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate
from multibox.report.ablation import FULL, AblationScore
from multibox.training.fit import train
from multibox.training.progress import Progress
from multibox.training.recipes import RECIPES, Recipe, TrainConfig

USUAL = (FULL, "no-augmentation", "no-ratio-3", "squares", "one-map", "no-mining")
"""Variants that an ablation has unless others are named."""


@dataclass(frozen=True)
class Variant:
    """A detector and a way to train it that lack one of the paper's ideas.

    Attributes:
        name: Name of the variant.
        what: What it leaves out or keeps, in a few words.
        config: Config of the detector.
        recipe: Recipe of the training.
        values: Values of the run that differ from those of the other variants, by their names in `TrainConfig`.
        paper: The difference in mAP that the paper reports for VOC 2007, as a fraction; `None` if it has none.
    """

    name: str
    what: str
    config: DetectorConfig
    recipe: Recipe
    values: Mapping[str, Any]
    paper: float | None = None


def make_variants(config: DetectorConfig, train_config: TrainConfig, *, pretrained: bool = False) -> dict[str, Variant]:
    """Returns the variants of a detector by name, the full one first. Those that would change nothing are left out.

    The paper's other questions need another network: the à trous convolution of VGG-16 (table 2) and default boxes
    that end at the edges of the image (table 3) are not values of a detector's config.

    Args:
        config: Config of the full detector.
        train_config: Values of the runs. They name the recipe, or the backbone chooses it.
        pretrained: Whether the backbone starts from trained weights.
    """
    resolved, _ = train_config.resolve(backbone=config.backbone, pretrained=pretrained)
    recipe = RECIPES[resolved.recipe or "modern"]
    full = Variant(FULL, "the full detector", config, recipe, {})
    usual = recipe.augmentation
    flips = Augmentation(
        color_probability=0.0,
        expand_probability=0.0,
        crop_probability=0.0,
        flip_probability=usual.flip_probability,
        interpolations=("bilinear",),
    )
    maps = len(config.feature_maps)
    every_negative = {"negatives_per_positive": float(config.num_default_boxes)}
    found = [
        full,
        replace(
            full,
            name="no-augmentation",
            what="flips as the only augmentation",
            recipe=replace(recipe, augmentation=flips),
            paper=-0.088,
        ),
        replace(full, name="no-ratio-3", what="no boxes of 1:3 and 3:1", config=keep_ratios(config, 2.5), paper=-0.006),
        replace(full, name="squares", what="square boxes only", config=keep_ratios(config, 1.2), paper=-0.027),
        replace(
            full,
            name="one-map",
            what="the second map alone",
            config=keep_maps(config, [1]),
            paper=-0.119 if maps == 6 else None,
        ),
        replace(full, name="no-mining", what="no hard negative mining", values=every_negative),
        replace(
            full,
            name="no-expansion",
            what="no expansion of images",
            recipe=replace(recipe, augmentation=replace(usual, expand_probability=0.0)),
            paper=-0.029,
        ),
    ]
    for kept in range(maps - 1, 1, -1):
        left_out = "without the last map" if kept == maps - 1 else f"without the last {maps - kept} maps"
        paper = {5: 0.003, 4: -0.005, 3: -0.036, 2: -0.101}.get(kept) if maps == 6 else None
        fewer = keep_maps(config, range(kept))
        found.append(replace(full, name=f"{kept}-maps", what=left_out, config=fewer, paper=paper))
    same = (full.config, full.recipe, full.values)
    return {
        variant.name: variant
        for variant in found
        if variant is full or (variant.config, variant.recipe, variant.values) != same
    }


def keep_maps(config: DetectorConfig, kept: Sequence[int]) -> DetectorConfig:
    """Returns the detector with some of its feature maps. The last of them gets the default boxes of the others too.

    As in table 3 of the paper, the shapes of the default boxes stay, and their number stays similar. Extra layers that
    nothing needs any more are left out.

    Args:
        config: Config of the full detector.
        kept: Places of the maps to keep, rising. Without such maps, the config stays as it is.
    """
    if not kept or max(kept) >= len(config.feature_maps):
        return config
    others = [row for place, row in enumerate(config.feature_maps) if place not in kept]
    *rows, last = (config.feature_maps[place] for place in kept)
    shapes = last.box_sizes + tuple(size for row in others for size in row.box_sizes)
    rows.append(replace(last, box_sizes=tuple(dict.fromkeys(shapes))))
    names = [layer.name for layer in config.extras]
    needed = max((names.index(row.layer) + 1 for row in rows if row.layer in names), default=0)
    return replace(config, feature_maps=tuple(rows), extras=config.extras[:needed])


def keep_ratios(config: DetectorConfig, largest: float) -> DetectorConfig:
    """Returns the detector without default boxes that are more than this many times as long as wide, or the reverse.

    A feature map that has no other boxes keeps all of its own.
    """

    def kept(row: FeatureMap) -> FeatureMap:
        sizes = tuple((width, height) for width, height in row.box_sizes if abs(log(width / height)) <= log(largest))
        return replace(row, box_sizes=sizes or row.box_sizes)

    return replace(config, feature_maps=tuple(map(kept, config.feature_maps)))


def ablate(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    train_set: Dataset,
    test_set: Dataset,
    config: TrainConfig,
    *,
    out: Path,
    start_from: str | None = None,
    done: Sequence[AblationScore] = (),
    on_run: Callable[[Variant, int], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_scoring: Callable[[int, int], None] | None = None,
) -> Iterator[AblationScore]:
    """Trains and scores each variant with each seed, and yields the score of each run when it is there.

    All variants have their turn with a seed before the next seed begins, so that a job that is stopped leaves
    comparable runs. A run that was stopped goes on from its last checkpoint. The last weights are scored, not the best
    ones, so that no run is chosen by the images that it is scored on.

    Args:
        variants: The variants.
        seeds: Seeds of the runs.
        train_set: The images to learn from.
        test_set: The images to score on.
        config: Values of all runs, their length among them.
        out: Folder of the ablation; each run has a folder of its own below it.
        start_from: Weights that the backbone starts from, as `Detector.create` takes them.
        done: Scores of the runs that are finished.
        on_run: Called with the variant and the seed before each run.
        on_progress: Called after each training step.
        on_scoring: Called with the number of images that are scored, and of all.

    Raises:
        KeyboardInterrupt: The user interrupted a run. Its state is saved.
        ValueError: A run failed; see `train`.
    """
    finished = {(score.variant, score.seed) for score in done}
    for seed in seeds:
        for variant in variants:
            if (variant.name, seed) in finished:
                continue
            if on_run:
                on_run(variant, seed)
            folder = out / f"{variant.name}-{seed}"
            detector = train(
                Detector.create(variant.config, train_set.class_names, start_from=start_from, seed=seed),
                train_set,
                None,
                replace(config, seed=seed, **variant.values),
                out=folder,
                recipe=variant.recipe,
                resume=True,
                on_progress=on_progress,
            )
            yield _score(variant, seed, detector, test_set, folder, on_scoring)
            for name in ("last.pt", "previous.pt"):  # the score is recorded, so the run never goes on
                (folder / name).unlink(missing_ok=True)


def _score(
    variant: Variant,
    seed: int,
    detector: Detector,
    test_set: Dataset,
    folder: Path,
    on_scoring: Callable[[int, int], None] | None,
) -> AblationScore:
    """Returns the score of a run that is finished."""
    metrics = evaluate(detector, test_set, on_progress=on_scoring)
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    return AblationScore(
        variant=variant.name,
        seed=seed,
        default_boxes=variant.config.num_default_boxes,
        steps=int(last["step"]),
        minutes=float(last["minutes"]),
        ap=metrics.ap or 0.0,
        ap50=metrics.ap50 or 0.0,
        ap75=metrics.ap75 or 0.0,
        ap_small=metrics.ap_small,
        ap_medium=metrics.ap_medium,
        ap_large=metrics.ap_large,
        per_class={name: values["ap50"] for name, values in metrics.per_class.items()},
    )
