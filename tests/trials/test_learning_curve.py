"""The parts of the learning curve are nested, and its forecast is that of a power law."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from multibox.data.synthetic import synthetic_scenes
from multibox.training.recipes import TrainConfig
from multibox.trials.learning_curve import (
    LearningCurve,
    Point,
    draw_curve,
    expected_ap,
    measure_learning_curve,
    statement,
    table,
    take_part,
    write_points,
)


def curve_of(rows: dict[int, list[float]], *, epochs: float = 20) -> LearningCurve:
    """The curve with these APs by number of images, of one seed after the other."""
    most = max(rows)
    points = [
        Point(images / most, images, seed, ap, min(1.0, 1.5 * ap))
        for images, values in rows.items()
        for seed, ap in enumerate(values)
    ]
    return LearningCurve(tuple(points), "500 steps", 87, epochs)


def power_law(images: int, start: float, slope: float) -> float:
    return 1 - start * images**-slope


def test_the_forecast_goes_on_with_a_power_law_exactly():
    laws = [(3.0, 0.3), (2.0, 0.2)]
    images, wanted = np.array([[100.0, 100], [200, 200], [400, 400]]), np.array([800.0, 800.0])
    ap = np.array([[power_law(int(each[0]), *law) for law in laws] for each in images])
    expected = [power_law(800, *law) for law in laws]
    np.testing.assert_allclose(expected_ap(images, ap, wanted), expected, rtol=1e-9)
    curve = curve_of({100: ap[0].tolist(), 200: ap[1].tolist(), 400: ap[2].tolist()})
    np.testing.assert_allclose(curve.expected_gains(), np.array(expected) - ap[-1], rtol=1e-9)
    np.testing.assert_allclose(curve.gains_of_last_part(), ap[2] - ap[1])


def test_a_perfect_detector_has_nothing_to_gain():
    curve = curve_of({10: [1.0], 20: [1.0], 40: [1.0]})
    assert curve.expected_gains() == pytest.approx(0)


def test_the_statement_says_what_was_measured_what_is_a_forecast_and_how_sure():
    curve = curve_of({100: [0.30, 0.32], 200: [0.36, 0.37], 400: [0.40, 0.42]})
    text = statement(curve)
    assert "From 200 to 400 images, AP rose by 4.5 points (4.0 to 5.0 by seed)." in text
    assert "800 images bring" in text
    assert "a forecast by a power law, not a measurement" in text
    assert "would have foretold" in text
    assert "do not agree" not in text
    assert "500 steps" in text
    assert "87 validation images" in text


def test_the_statement_owns_up_to_disagreement_and_to_a_single_seed():
    assert "do not agree that more images help" in statement(curve_of({50: [0.3, 0.3], 100: [0.35, 0.29]}))
    assert "One seed does not show" in statement(curve_of({50: [0.3], 100: [0.35]}))


def test_the_statement_says_that_a_short_training_cannot_use_more_images():
    rows = {50: [0.3], 100: [0.35]}
    assert "All 100 images were seen only 1.6 times each" in statement(curve_of(rows, epochs=1.6))
    assert "seen only" not in statement(curve_of(rows))


def test_parts_are_nested_and_as_large_as_asked():
    scenes = synthetic_scenes(1, seed=0)
    names = [f"{number}.jpg" for number in range(37)] + ["5_jpg.rf.abc.jpg", "5_jpg.rf.def.jpg"]
    dataset = replace(scenes, samples=[replace(scenes[0], name=name) for name in names])
    before: set[str] = set()
    for fraction in (0.1, 0.25, 0.5, 0.75, 1.0):
        part = {sample.name for sample in take_part(dataset, fraction, seed=3)}
        assert before <= part
        assert fraction * len(names) - 1e-9 <= len(part) < fraction * len(names) + 2
        assert len(part & {"5_jpg.rf.abc.jpg", "5_jpg.rf.def.jpg"}) != 1
        before = part
    assert before == set(names)
    others = [{sample.name for sample in take_part(dataset, 0.25, seed=seed)} for seed in range(4)]
    assert others[0] != others[1] or others[1] != others[2]


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.1])
def test_a_part_that_cannot_be_is_refused(fraction):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        take_part(synthetic_scenes(2, seed=0), fraction, seed=0)


def test_the_table_and_the_files_have_all_trainings(tmp_path):
    curve = curve_of({100: [0.30, 0.32], 200: [0.36, 0.37], 400: [0.40, 0.42]})
    assert table(curve)[-1] == ["100 %", "400", "41.0", "40.0 to 42.0", "61.5"]
    write_points(curve, tmp_path / "points.csv")
    with (tmp_path / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["images"]), int(row["seed"]), float(row["ap"])) for row in rows] == [
        (point.images, point.seed, point.ap) for point in curve.points
    ]


@pytest.mark.slow
def test_a_curve_is_measured_drawn_and_taken_up_again(tmp_path):
    scenes, val = synthetic_scenes(8, seed=0), synthetic_scenes(4, seed=1)
    config = TrainConfig(steps=2, batch_size=2, workers=0, device="cpu", precision="fp32")
    values = {"seeds": (0, 1), "model": "multibox/shapes", "config": config}
    curve = measure_learning_curve(scenes, val, tmp_path / "curve", **values)
    assert [point.images for point in curve.points] == [2, 2, 4, 4, 8, 8]
    assert curve.epochs == pytest.approx(2 * 2 / 8)
    assert measure_learning_curve(scenes, val, tmp_path / "curve", **values) == curve
    draw_curve(curve, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as drawn:
        assert drawn.width > 500
