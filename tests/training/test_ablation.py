"""The variants of an ablation are those of the paper's tables, and a job that was stopped goes on."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from multibox.config import DetectorConfig
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.detector import Detector
from multibox.evaluation.metrics import Metrics
from multibox.presets import preset
from multibox.report.ablation import AblationScore
from multibox.ssd import cpu, loss
from multibox.ssd.build import create_network
from multibox.training import ablation
from multibox.training.ablation import USUAL, Variant, keep_maps, keep_ratios, make_variants
from multibox.training.recipes import TrainConfig

SSD300 = preset("ssd300-vgg16")
CELLS = 38**2 + 19**2 + 10**2 + 5**2 + 3**2 + 1


def ratios(config: DetectorConfig) -> set[float]:
    return {round(width / height, 3) for row in config.feature_maps for width, height in row.box_sizes}


def test_without_ratios_ssd300_has_the_boxes_of_table_2():
    assert keep_ratios(SSD300, 2.5).num_default_boxes == 4 * CELLS
    assert ratios(keep_ratios(SSD300, 2.5)) == {1.0, 2.0, 0.5}
    assert keep_ratios(SSD300, 1.2).num_default_boxes == 2 * CELLS
    assert ratios(keep_ratios(SSD300, 1.2)) == {1.0}


def test_a_map_without_squares_keeps_its_boxes():
    long = replace(SSD300.feature_maps[0], box_sizes=((60.0, 10.0),))
    config = replace(SSD300, feature_maps=(long, *SSD300.feature_maps[1:]))
    assert keep_ratios(config, 1.2).feature_maps[0] == long


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4], [0, 1, 2], [1]])
def test_fewer_maps_keep_every_shape_and_no_layer_that_is_not_needed(kept: list[int]):
    config = keep_maps(SSD300, kept)
    shapes = {size for row in SSD300.feature_maps for size in row.box_sizes}
    assert {size for row in config.feature_maps for size in row.box_sizes} == shapes
    assert [row.layer for row in config.feature_maps] == [SSD300.feature_maps[place].layer for place in kept]
    last = config.feature_maps[-1].layer
    assert [layer.name for layer in config.extras][-1:] == ([] if last == "conv7" else [last])


def test_a_detector_with_too_few_maps_stays_as_it_is():
    assert keep_maps(keep_maps(SSD300, [0]), [1]) == keep_maps(SSD300, [0])


def test_the_paper_has_a_variant_for_each_row_of_its_tables():
    variants = make_variants(SSD300, TrainConfig(steps=1))
    assert list(variants) == [*USUAL, "no-expansion", "5-maps", "4-maps", "3-maps", "2-maps"]
    # tables 2 and 3: the mAP of each row, less the 74.3 of the whole
    rows = {"no-augmentation": 65.5, "squares": 71.6, "no-ratio-3": 73.7, "one-map": 62.4}
    rows |= {"5-maps": 74.6, "4-maps": 73.8, "3-maps": 70.7, "2-maps": 64.2}
    assert {name: variants[name].paper for name in rows} == pytest.approx(
        {n: (v - 74.3) / 100 for n, v in rows.items()}
    )


def test_the_papers_numbers_of_maps_stand_beside_detectors_of_six_maps_alone():
    for model in ("ssd512-vgg16", "ssd256-tiny"):
        config = preset(model)
        found = make_variants(config, TrainConfig(steps=1))
        shown = {name for name in found if name.endswith(("-map", "-maps")) and found[name].paper is not None}
        assert bool(shown) == (len(config.feature_maps) == 6), model


def test_variants_that_would_change_nothing_are_left_out():
    only_squares = keep_maps(keep_ratios(preset("ssd256-tiny"), 1.2), [0])
    found = make_variants(only_squares, TrainConfig(steps=1))
    assert list(found) == ["full", "no-augmentation", "no-mining"]  # `modern` does not expand


def test_each_variant_differs_from_the_full_one_in_one_way():
    full, *others = make_variants(preset("ssd256-tiny"), TrainConfig(steps=1)).values()
    for variant in others:
        changed = [variant.config != full.config, variant.recipe != full.recipe, variant.values != full.values]
        assert Counter(changed)[True] == 1, variant.name


def test_every_variant_is_a_network_with_its_default_boxes():
    for variant in make_variants(preset("ssd256-tiny"), TrainConfig(steps=1)).values():
        network = create_network(variant.config, num_classes=3, seed=0).eval()
        with torch.inference_mode():
            offsets, logits = network(torch.zeros(1, 3, 256, 256))
        assert offsets.shape[1] == logits.shape[1] == variant.config.num_default_boxes, variant.name


@pytest.mark.parametrize("module", [loss, cpu])
def test_without_mining_every_negative_of_an_image_with_a_match_is_learned(module):
    variants = make_variants(preset("ssd256-tiny"), TrainConfig(steps=1))
    losses = torch.rand(2, 6132, generator=torch.Generator().manual_seed(0))
    positive = torch.zeros(2, 6132, dtype=torch.bool)
    positive[0, [5, 70]] = True
    (number,) = variants["no-mining"].values.values()
    chosen = module.hard_negatives(losses, positive, negatives_per_positive=number)
    assert torch.equal(chosen[0], ~positive[0])
    assert not chosen[1].any()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, new_detector) -> list[tuple[str, int, TrainConfig]]:
    """The folder, seed and values of each run that is trained. Nothing is: a run leaves its metrics alone."""
    begun: list[tuple[str, int, TrainConfig]] = []
    detector = new_detector()

    def train(detector, train_set, val_set, config, *, out, recipe, resume, on_progress):
        assert resume and val_set is None
        begun.append((out.name, config.seed, config))
        out.mkdir(parents=True)
        (out / "last.pt").touch()
        (out / "metrics.csv").write_text("step,minutes\n1,0.1\n7,0.5\n")
        return detector

    found = Metrics("coco", "continuous", 2, 5, 0.25, 0.5, {}, ap75=0.2)
    monkeypatch.setattr(ablation, "train", train)
    monkeypatch.setattr(ablation, "evaluate", lambda detector, dataset, on_progress: found)
    monkeypatch.setattr(Detector, "create", lambda config, names, start_from, seed: detector)
    return begun


def variants(*names: str) -> list[Variant]:
    found = make_variants(preset("ssd256-tiny"), TrainConfig(steps=7))
    return [found[name] for name in names]


def test_all_variants_have_their_turn_with_a_seed_before_the_next_one(runs, tmp_path: Path):
    data = synthetic_scenes(2, seed=0, height=64, width=64)
    chosen = variants("full", "no-mining")
    scores: list[AblationScore] = []
    for score in ablation.ablate(chosen, range(2), data, data, TrainConfig(steps=7), out=tmp_path):
        assert (tmp_path / f"{score.variant}-{score.seed}" / "last.pt").exists()  # until the score is recorded
        scores.append(score)
    assert [run[:2] for run in runs] == [("full-0", 0), ("no-mining-0", 0), ("full-1", 1), ("no-mining-1", 1)]
    assert [run[2].negatives_per_positive for run in runs[:2]] == [3.0, 6132.0]
    assert [(score.steps, score.minutes, score.ap50) for score in scores] == [(7, 0.5, 0.5)] * 4
    assert not list(tmp_path.rglob("last.pt"))


def test_runs_with_a_score_are_not_made_again(runs, tmp_path: Path):
    data = synthetic_scenes(2, seed=0, height=64, width=64)
    chosen = variants("full", "squares")
    first = next(ablation.ablate(chosen, range(1), data, data, TrainConfig(steps=7), out=tmp_path))
    later = list(ablation.ablate(chosen, range(1), data, data, TrainConfig(steps=7), out=tmp_path, done=[first]))
    assert [run[0] for run in runs] == ["full-0", "squares-0"]
    assert [score.variant for score in later] == ["squares"]


@pytest.mark.slow
def test_each_variant_trains_and_is_scored(tmp_path: Path):
    data = synthetic_scenes(4, seed=0, height=64, width=64)
    config = TrainConfig(steps=2, batch_size=2, workers=0, device="cpu", precision="fp32")
    every = list(make_variants(preset("ssd256-tiny", height=96), config).values())
    for score in ablation.ablate(every, [0], data, data, config, out=tmp_path):
        assert score.steps == 2
        assert score.per_class.keys() == set(CLASS_NAMES)
        assert np.isfinite([score.ap, score.ap50]).all()
