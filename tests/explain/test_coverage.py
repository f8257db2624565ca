"""The coverage of a data set by default boxes: the figures are those of slow loops over default boxes and objects."""

from dataclasses import replace

import numpy as np
import pytest

from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.default_boxes import make_default_boxes
from multibox.explain.coverage import (
    by_class,
    by_map,
    by_shape,
    by_size,
    describe,
    mean_of_classes,
    measure_coverage,
    summarize,
)
from multibox.presets import preset

CONFIG = preset("ssd256-tiny", height=64, width=96)
CLASS_NAMES = ("circle", "square")


def make_dataset(seed):
    """Images with objects of many sizes and shapes, some of them equal, one tiny, one a crowd; one image has none."""
    random = np.random.default_rng(seed)
    samples = []
    for number, count in enumerate((0, 1, 3, 9)):
        height, width = 40 + 30 * number, 120 - 20 * number
        sides = (0.15 + 0.35 * random.random((count, 1))) * np.exp(0.3 * random.standard_normal((count, 2)))
        low = random.random((count, 2)) * (1 - sides)
        corners = np.concatenate([low, low + sides], axis=1)
        if count == 9:
            corners[4] = corners[3]
            corners[5, 2:] = corners[5, :2] + 0.003
        boxes = corners * [width, height, width, height]
        truth = GroundTruth(boxes, random.integers(0, 2, count), crowd=np.arange(count) == 8)
        samples.append(Sample(f"{number}.png", np.zeros((3, height, width), np.uint8), height, width, truth, number))
    return Dataset("scenes", CLASS_NAMES, samples)


def slow_default_boxes(config):
    """Corners in pixels of the input and the place of the feature map, in the order of the network's output."""
    for place, feature_map in enumerate(config.feature_maps):
        for row in range(feature_map.rows):
            for column in range(feature_map.columns):
                x, y = ((cell + 0.5) * step for cell, step in zip((column, row), feature_map.step[::-1], strict=True))
                for width, height in feature_map.box_sizes:
                    yield (x - width / 2, y - height / 2, x + width / 2, y + height / 2), place


def slow_iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x_max - x_min) * (y_max - y_min) for x_min, y_min, x_max, y_max in (one, other)]
    return width * height / (sum(areas) - width * height)


def slow_coverage(dataset, config):
    """Size, label, best overlap and its map, matches by map, whether matched by the bipartite rule only, by object."""
    default_boxes = list(slow_default_boxes(config))
    found = []
    for sample in dataset:
        scale = [config.width / sample.width, config.height / sample.height] * 2
        kept = [index for index in range(len(sample.truth)) if not sample.truth.crowd[index]]
        objects = [[float(x) * s for x, s in zip(sample.truth.boxes[index], scale, strict=True)] for index in kept]
        table = [[slow_iou(box, default) for default, _ in default_boxes] for box in objects]
        owners = {}
        free_objects, free_boxes = set(range(len(objects))), set(range(len(default_boxes)))
        while free_objects:
            best, place, index = max(
                (table[index][place], -place, -index) for index in free_objects for place in free_boxes
            )
            if best <= 1e-6:
                break
            owners[-place] = -index
            free_objects.remove(-index)
            free_boxes.remove(-place)
        for place in free_boxes:
            best, index = max(((table[index][place], -index) for index in range(len(objects))), default=(0, 0))
            if best >= 0.5:
                owners[place] = -index
        for index, (x_min, y_min, x_max, y_max) in enumerate(objects):
            best = max(table[index])
            mine = [place for place, owner in owners.items() if owner == index]
            matches = [
                sum(default_boxes[place][1] == level for place in mine) for level in range(len(config.feature_maps))
            ]
            found.append(
                {
                    "size": (x_max - x_min, y_max - y_min),
                    "label": int(sample.truth.labels[kept[index]]),
                    "overlap": best,
                    "map": default_boxes[table[index].index(best)][1],
                    "matches": matches,
                    "bipartite": bool(mine) and all(table[index][place] < 0.5 for place in mine),
                }
            )
    return found


@pytest.fixture(scope="module", params=[0, 1])
def both(request):
    dataset = make_dataset(request.param)
    return dataset, measure_coverage(dataset, CONFIG), slow_coverage(dataset, CONFIG)


def test_each_object_is_covered_and_matched_as_slow_loops_say(both):
    _, found, expected = both
    assert found.images == 4 and len(found) == len(expected) == 12
    np.testing.assert_allclose(found.overlaps, [each["overlap"] for each in expected], rtol=1e-4)
    np.testing.assert_allclose(found.sizes, [each["size"] for each in expected], rtol=1e-4)
    assert found.labels.tolist() == [each["label"] for each in expected]
    assert found.best_maps.tolist() == [each["map"] for each in expected]
    assert found.matches.tolist() == [each["matches"] for each in expected]
    assert found.only_bipartite.tolist() == [each["bipartite"] for each in expected]
    assert found.only_bipartite.any() and not found.only_bipartite.all()


def test_groups_are_sums_over_their_objects(both):
    dataset, found, expected = both

    def group(chosen):
        overlaps = [each["overlap"] for each in chosen]
        recall = sum(overlap >= 0.5 for overlap in overlaps) / len(overlaps) if overlaps else None
        return (
            len(chosen),
            pytest.approx(sum(overlaps) / len(overlaps), rel=1e-4) if overlaps else None,
            recall,
            sum(each["bipartite"] for each in chosen),
            sum(sum(each["matches"]) for each in chosen),
        )

    assert summarize(found, "all")[1:] == group(expected)
    for label, row in zip((0, 1), by_class(found, CLASS_NAMES), strict=True):
        assert row[1:] == group([each for each in expected if each["label"] == label])
    for place, row in enumerate(by_map(found, CONFIG)):
        assert row[1:5] == group([each for each in expected if each["map"] == place])[:4]
        assert row.positives == sum(each["matches"][place] for each in expected)
    sides = [(each["size"][0] * each["size"][1]) ** 0.5 for each in expected]
    ratios = [each["size"][0] / each["size"][1] for each in expected]
    named = {"under 8 pixels": (0, 8), "16 to 32 pixels": (16, 32), "64 to 128 pixels": (64, 128)}
    for row in by_size(found):
        if row.name in named:
            low, high = named[row.name]
            assert row[1:] == group([each for each, side in zip(expected, sides, strict=True) if low <= side < high])
    for row in by_shape(found):
        if row.name == "2:3 to 3:2":
            inside = [each for each, ratio in zip(expected, ratios, strict=True) if 2 / 3 <= ratio < 3 / 2]
            assert row[1:] == group(inside)
    for rows in (by_size(found), by_shape(found), by_class(found, dataset.class_names)):
        assert sum(row.objects for row in rows) == len(found)
        assert sum(row.positives for row in rows) == found.matches.sum()


def test_the_means_of_classes_weigh_each_class_alike(both):
    _, found, expected = both
    overlaps = [[each["overlap"] for each in expected if each["label"] == label] for label in (0, 1)]
    means = [sum(row) / len(row) for row in overlaps]
    recalls = [sum(overlap >= 0.5 for overlap in row) / len(row) for row in overlaps]
    assert mean_of_classes(found) == (
        pytest.approx(sum(means) / 2, rel=1e-4),
        pytest.approx(sum(recalls) / 2),
    )


def test_a_stored_table_is_taken_in_place_of_the_configs():
    dataset = make_dataset(0)
    usual = measure_coverage(dataset, CONFIG)
    stored = make_default_boxes(CONFIG)
    assert measure_coverage(dataset, CONFIG, stored).overlaps.tolist() == usual.overlaps.tolist()
    assert (measure_coverage(dataset, CONFIG, stored * [1, 1, 0.5, 0.5]).overlaps != usual.overlaps).any()


def test_an_object_without_any_default_box_is_unmatched():
    (row,) = CONFIG.feature_maps[-1:]
    config = replace(CONFIG, feature_maps=(row,))  # four default boxes for six objects
    boxes = np.array([[10 + n, 10, 60 + n, 50] for n in range(6)])
    image = np.zeros((3, 64, 96), np.uint8)
    dataset = Dataset("one", ("a",), [Sample("a.png", image, 64, 96, GroundTruth(boxes, [0] * 6), 0)])
    found = measure_coverage(dataset, config)
    assert found.unmatched.sum() == 6 - config.num_default_boxes == 2
    assert not (found.unmatched & found.only_bipartite).any()


def test_without_objects_there_are_no_means():
    empty = Dataset("none", CLASS_NAMES, make_dataset(0).samples[:1])
    figures = describe(measure_coverage(empty, CONFIG), CONFIG, CLASS_NAMES)
    assert (figures["images"], figures["objects"], figures["overlap"], figures["recall"]) == (1, 0, None, None)
    assert figures["classes"] == figures["sizes"] == figures["shapes"] == []
    assert figures["mean_of_classes"] == {"overlap": None, "recall": None}
