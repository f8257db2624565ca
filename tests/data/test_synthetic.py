"""Synthetic scenes never change, have exact boxes, and vary as they promise."""

import numpy as np
import pytest

from multibox.boxes import area, box_iou, clip
from multibox.data import synthetic
from multibox.data.synthetic import CLASS_NAMES, synthetic_scene, synthetic_scenes


@pytest.fixture(scope="module")
def scenes():
    return synthetic_scenes(120, seed=3, height=144, width=144)


@pytest.fixture(scope="module")
def layouts():
    """Returns the objects of many scenes, not painted."""
    return [synthetic._place_objects(np.random.default_rng(seed), 256, 256) for seed in range(300)]


def longer_sides(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1)


def test_a_scene_depends_on_seed_and_index_only():
    whole = synthetic_scenes(5, seed=1, height=80, width=96)
    alone = synthetic_scene(3, seed=1, height=80, width=96)
    assert alone.name == whole[3].name
    np.testing.assert_array_equal(alone.read(), whole[3].read())
    np.testing.assert_array_equal(alone.truth.boxes, whole[3].truth.boxes)
    np.testing.assert_array_equal(alone.truth.labels, whole[3].truth.labels)


def test_scenes_of_other_seeds_and_indices_differ():
    samples = [*synthetic_scenes(3, seed=1, height=64, width=64), *synthetic_scenes(3, seed=2, height=64, width=64)]
    assert len({sample.read().tobytes() for sample in samples}) == 6
    assert len({sample.name for sample in samples}) == 6


def test_samples_are_as_every_reader_makes_them(scenes):
    assert scenes.class_names == CLASS_NAMES
    assert len(scenes) == 120
    for index, sample in enumerate(scenes):
        assert sample.image_id == index
        assert sample.image.shape == (3, sample.height, sample.width) == (3, 144, 144)
        assert sample.image.dtype == np.uint8
        assert not sample.truth.difficult.any() and not sample.truth.crowd.any()


def test_height_and_width_are_not_exchanged():
    for sample in synthetic_scenes(8, seed=0, height=70, width=200):
        assert sample.image.shape == (3, 70, 200)
        np.testing.assert_array_equal(sample.truth.boxes, clip(sample.truth.boxes, 70, 200))
    widest = max(
        sample.truth.boxes[:, 2].max(initial=0) for sample in synthetic_scenes(8, seed=0, height=70, width=200)
    )
    assert widest > 100


def points_inside(outlines, x, y):
    """Applies the even-odd rule: a point is inside if a ray from it crosses an odd number of edges."""
    inside = np.zeros(np.broadcast(x, y).shape, bool)
    for points in outlines:
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y1 != y2:
                inside ^= ((y1 <= y) != (y2 <= y)) & (x < x1 + (y - y1) / (y2 - y1) * (x2 - x1))
    return inside


def test_boxes_are_the_extent_of_the_part_inside_the_image(layouts):
    step = 1 / 8
    x, y = np.arange(-16, 272, step) + step / 2, (np.arange(-16, 272, step) + step / 2)[:, None]
    kinds = set()
    for thing in [thing for objects in layouts[:12] for thing in objects]:
        x_min, y_min, x_max, y_max = thing.box
        columns = x[(x > max(x_min - 3, 0)) & (x < min(x_max + 3, 256))]
        rows = y[(y[:, 0] > max(y_min - 3, 0)) & (y[:, 0] < min(y_max + 3, 256))]
        inside = points_inside(thing.outlines, columns, rows)
        across, down = columns[inside.any(axis=0)], rows[inside.any(axis=1), 0]
        low, high = np.array([across[0], down[0]]) - step / 2, np.array([across[-1], down[-1]]) + step / 2
        # the mask is drawn at four times the size, and takes every fine pixel that the outline enters
        np.testing.assert_allclose(thing.box, [*low, *high], atol=0.25 + step)
        kinds.add((thing.label, min(x_min, y_min, 256 - x_max, 256 - y_max) == 0))
    assert {label for label, _ in kinds} == set(range(6))
    assert any(cut for _, cut in kinds)


def test_coverage_and_box_of_an_object_agree(layouts):
    for thing in [thing for objects in layouts for thing in objects]:
        rows, columns = np.nonzero(np.asarray(thing.coverage))
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        outer = np.array(thing.box) - [*thing.corner, *thing.corner]
        np.testing.assert_array_equal([*np.floor(outer[:2]), *np.ceil(outer[2:])], extent)


def test_the_image_shows_the_object_where_its_box_is(monkeypatch):
    """A scene painted with and without its last object differs inside the box of that object, and up to its edges."""
    monkeypatch.setattr(synthetic, "_paint_shadow", lambda *args, **kwargs: None)
    paint = synthetic._paint_object
    compared = 0
    for index in range(25):
        whole = synthetic_scene(index, seed=11, height=128, width=160)
        if len(whole.truth) == 0:
            continue
        last = tuple(whole.truth.boxes[-1].tolist())
        with monkeypatch.context() as patch:
            patch.setattr(
                synthetic,
                "_paint_object",
                lambda canvas, thing, rng, last=last: None if thing.box == last else paint(canvas, thing, rng),
            )
            without = synthetic_scene(index, seed=11, height=128, width=160)
        rows, columns = np.nonzero((whole.read() != without.read()).any(axis=0))
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        # a faintly covered pixel at the edge may round to what was there
        np.testing.assert_allclose(extent, last, atol=1.5)
        compared += 1
    assert compared > 15


def test_sizes_span_from_under_a_tenth_to_most_of_the_image(layouts):
    sides = np.concatenate([longer_sides(np.array([thing.box for thing in objects])) for objects in layouts if objects])
    whole = sides / 256
    assert 0.08 < whole.min() < 0.1
    assert whole.max() > 0.7
    shares = np.histogram(whole, [0, 0.125, 0.25, 0.5, 1])[0] / len(whole)
    assert (shares > 0.1).all()


def test_every_class_is_about_as_frequent(layouts):
    counts = np.bincount([thing.label for objects in layouts for thing in objects], minlength=6)
    assert counts.min() > 0.75 * counts.mean()


def test_scenes_have_none_to_eight_objects(layouts):
    assert {len(objects) for objects in layouts} == set(range(9))
    assert 0.02 < np.mean([not objects for objects in layouts]) < 0.09


def test_boxes_lie_in_the_image(scenes):
    for sample in scenes:
        np.testing.assert_array_equal(sample.truth.boxes, clip(sample.truth.boxes, 144, 144))
        assert (area(sample.truth.boxes) > 0).all()


def test_objects_stay_visible_and_apart(layouts):
    """Painted in the order of the ground truth, with whole pixels."""
    hidden_somewhere = False
    for objects in layouts:
        shown = np.full((256, 256), -1)
        for index, thing in enumerate(objects):
            rows, columns = np.nonzero(thing.solid)
            shown[rows + thing.corner[1], columns + thing.corner[0]] = index
        for index, thing in enumerate(objects):
            share = (shown == index).sum() / thing.solid.sum()
            assert share >= 0.6
            hidden_somewhere |= share < 0.8
        if len(objects) > 1:
            boxes = np.array([thing.box for thing in objects])
            assert (box_iou(boxes, boxes) - np.eye(len(boxes))).max() < 0.45 / 1.5
    assert hidden_somewhere


def test_each_class_keeps_to_a_hue_of_its_own(scenes):
    """Circles are red, triangles green, rings blue, and so is the average color in their boxes."""
    colors = [[] for _ in CLASS_NAMES]
    for sample in scenes:
        boxes = sample.truth.boxes.round().astype(int)
        for (x_min, y_min, x_max, y_max), label in zip(boxes, sample.truth.labels, strict=True):
            colors[label].append(sample.image[:, y_min:y_max, x_min:x_max].mean(axis=(1, 2)))
    strongest = [int(np.mean(color, axis=0).argmax()) for color in colors]
    assert [strongest[CLASS_NAMES.index(name)] for name in ("circle", "triangle", "ring")] == [0, 1, 2]


def test_no_scenes():
    assert len(synthetic_scenes(0, seed=0)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1, "seed": 0}, "must be 0 or more, not -1"),
        ({"count": 1, "seed": -5}, "0 or more, not 0 and -5"),
        ({"count": 1, "seed": 0, "height": 32}, "at least 64 pixels, not height 32 and width 256"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        synthetic_scenes(**arguments)
