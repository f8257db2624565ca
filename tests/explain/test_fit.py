"""Fitted default boxes: no more than before, better on what they are fitted to, and a network can be made of them."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from multibox.boxes import box_iou, center_to_corner
from multibox.config import DetectorConfig
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.default_boxes import make_default_boxes
from multibox.detector import Detector
from multibox.explain import fit
from multibox.explain.coverage import mean_of_classes, measure_coverage
from multibox.explain.fit import Objects, candidates, fit_boxes, fit_default_boxes, other_inputs, with_earlier_map
from multibox.explain.shapes import best_overlaps, overlaps_by_shape
from multibox.presets import preset
from tests.slow import slow


def make_dataset(shapes, *, count=40, height=300, width=400, seed=0):
    """Images with objects of these widths and heights in pixels, one class for each shape, anywhere."""
    random = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        sizes = np.array(shapes) * np.exp(0.05 * random.standard_normal((len(shapes), 2)))
        low = random.random((len(shapes), 2)) * ([width, height] - sizes)
        truth = GroundTruth(np.concatenate([low, low + sizes], axis=1), np.arange(len(shapes)))
        samples.append(Sample(f"{number}.png", np.zeros((3, height, width), np.uint8), height, width, truth, number))
    return Dataset("scenes", tuple(f"class {label}" for label in range(len(shapes))), samples)


@pytest.mark.parametrize(
    "config",
    [
        preset("ssd256-tiny"),
        preset("ssd256-tiny", height=96, width=160),
        preset("ssd300-vgg16"),
        preset("ssdlite320-mobilenetv3"),
    ],
    ids=lambda config: config.name,
)
def test_the_nearest_cell_of_each_shape_has_the_largest_overlap_of_all_default_boxes(config):
    random = np.random.default_rng(0)
    low = random.random((60, 2))
    boxes = np.concatenate([low, low + 0.01 + random.random((60, 2)) * (1 - low)], axis=1).astype(np.float32)
    default_boxes = center_to_corner(make_default_boxes(config))
    np.testing.assert_allclose(best_overlaps(boxes, config), box_iou(boxes, default_boxes).max(axis=1), rtol=1e-5)
    row = config.feature_maps[1]
    of_row = center_to_corner(make_default_boxes(replace(config, feature_maps=(row,))))
    of_shapes = box_iou(boxes, of_row).reshape(len(boxes), -1, len(row.box_sizes)).max(axis=1)
    np.testing.assert_allclose(overlaps_by_shape(boxes, config, row), of_shapes, rtol=1e-5, atol=1e-7)


def test_a_fit_covers_more_with_no_more_default_boxes_and_also_other_images_of_the_kind():
    shapes = [(20, 16), (150, 40), (90, 200)]
    train_set, other = make_dataset(shapes), make_dataset(shapes, seed=1)
    before = preset("ssd256-tiny")
    fitted = fit_default_boxes(train_set, [before])
    assert fitted.num_default_boxes <= before.num_default_boxes
    assert replace(fitted, feature_maps=before.feature_maps) == before
    for dataset in (train_set, other):
        (old, old_recall), (new, recall) = (
            mean_of_classes(measure_coverage(dataset, each)) for each in (before, fitted)
        )
        assert new > old + 0.05
        assert recall >= old_recall
    unused = fitted.feature_maps[-1]
    assert unused.box_sizes == before.feature_maps[-1].box_sizes[:1]


def test_small_objects_get_an_earlier_map_and_large_ones_do_not():
    config = preset("ssd256-tiny")
    small, large = make_dataset([(13, 11)], width=300), make_dataset([(150, 150)], width=300)
    assert [row.layer for row in fit_default_boxes(small, candidates(small, config)).feature_maps][:2] == [
        "stem",
        "stage3",
    ]
    assert fit_default_boxes(large, candidates(large, config)).feature_maps[0].layer == "stage3"


def test_a_network_is_made_of_a_fitted_config_and_its_file(tmp_path):
    dataset = make_dataset([(13, 11), (60, 90)])
    config = preset("ssd256-tiny", height=96, width=128)
    fitted = fit_default_boxes(dataset, [with_earlier_map(config)])
    (tmp_path / "fitted.json").write_text(fitted.to_json())
    detector = Detector.create(str(tmp_path / "fitted.json"), ("a",), seed=0)
    assert detector.config == fitted == DetectorConfig.load(tmp_path / "fitted.json")
    assert len(detector.detect(np.zeros((3, 96, 128), np.uint8), score_threshold=1.0)) == 0
    with pytest.raises(ValueError, match=r"fitted.json has its own"):
        Detector.create(str(tmp_path / "fitted.json"), ("a",), height=64)


def test_classes_count_alike_whatever_the_number_of_their_objects():
    rare, frequent = make_dataset([(30, 90)], count=4), make_dataset([(120, 30)], count=40, seed=1)
    both = Dataset(
        "both",
        ("rare", "frequent"),
        [
            *rare,
            *(
                replace(each, name=f"b{each.name}", truth=each.truth.with_labels(np.ones(1, np.int64)))
                for each in frequent
            ),
        ],
    )
    objects = fit.objects_of(both)
    assert len(objects.boxes) == 44
    np.testing.assert_allclose([objects.weights[:4].sum(), objects.weights[4:].sum()], 0.5, rtol=1e-5)
    few = fit.objects_of(both, most=6)
    np.testing.assert_allclose(few.weights, 1 / 6, rtol=1e-5)
    some = [0, 1, 2, 4, 17, 30]  # evenly spaced among those of each class
    assert np.array_equal(few.boxes, objects.boxes[some])


def test_the_choice_is_near_the_best_there_is(monkeypatch):
    monkeypatch.setattr(fit, "LEAST_GAIN", 1e-9)
    random = np.random.default_rng(0)
    cells, map_of = np.array([16, 4, 1]), np.repeat([0, 1, 2], 3)
    objects = Objects(np.zeros((30, 4), np.float32), np.full(30, 1 / 30, np.float32))
    for _ in range(20):
        table = (random.random((30, 9)) ** 2).astype(np.float32)
        most = int(random.integers(21, 60))
        chosen = [
            fit._exchange(objects, table, map_of, fit._add_greedily(objects, table, map_of, cells, most, by_price))
            for by_price in (True, False)
        ]
        prices = [cells[map_of[each]].sum() + cells[np.setdiff1d([0, 1, 2], map_of[each])].sum() for _, each in chosen]
        best = max(
            float(objects.score(table[:, each].max(axis=1)))
            for count in range(3, 10)
            for each in map(list, combinations(range(9), count))
            if set(map_of[each].tolist()) == {0, 1, 2} and cells[map_of[each]].sum() <= most
        )
        assert max(prices) <= most
        assert 0.9 * best <= max(worth for worth, _ in chosen) <= best + 1e-6


def test_too_many_cells_are_no_candidate_and_no_objects_are_refused():
    dataset = make_dataset([(30, 30)], count=2)
    config = preset("ssd256-tiny")
    assert fit_boxes(fit.objects_of(dataset), config, most=100) == []
    empty = Dataset("none", ("a",), [replace(dataset[0], truth=GroundTruth([], []))])
    with pytest.raises(ValueError, match="none has no objects to fit default boxes to"):
        fit_default_boxes(empty, [config])
    with pytest.raises(ValueError, match="cut at the edges or stored"):
        fit_default_boxes(dataset, [replace(config, clip_default_boxes="corners")])


@pytest.mark.parametrize(("name", "layer"), [("ssd256-tiny", "stem"), slow("ssd300-resnet18", "layer1")])
def test_an_earlier_map_is_of_stride_4_where_the_backbone_has_one(name, layer):
    before = preset(name)
    config = with_earlier_map(before)
    first = config.feature_maps[0]
    assert (first.layer, first.step, first.rows) == (layer, (4.0, 4.0), before.height // 4)
    assert config.feature_maps[1:] == before.feature_maps
    assert with_earlier_map(config) is with_earlier_map(preset("ssd300-vgg16")) is None


def test_inputs_lie_between_the_given_shape_and_the_images_with_no_more_pixels():
    wide = make_dataset([(30, 30)], count=3, height=300, width=600)
    assert other_inputs(256, 256, make_dataset([(9, 9)], count=3, height=300, width=300)) == []
    shapes = other_inputs(256, 256, wide)
    assert (192, 320) in shapes and (256, 256) not in shapes
    for height, width in shapes:
        assert 0.85 * 256**2 <= height * width <= 256**2
        assert height % 32 == width % 32 == 0
        assert 0.9 <= width / height <= 2.2
