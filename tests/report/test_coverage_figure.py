"""The picture of a coverage: every object and every default box is in it."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from PIL import Image

from multibox.data.sample import Dataset
from multibox.data.synthetic import synthetic_scenes
from multibox.explain.coverage import measure_coverage
from multibox.presets import preset
from multibox.report import coverage_figure
from multibox.report.coverage_figure import draw_coverage

CONFIG = preset("ssd256-tiny", height=64, width=96)


@pytest.fixture
def figures(monkeypatch):
    """The figures that a test draws."""
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig

    def savefig(figure, *args, **rest):
        drawn.append(figure)
        save(figure, *args, **rest)

    monkeypatch.setattr(Figure, "savefig", savefig)
    monkeypatch.setattr(coverage_figure, "SHAPES", 6)
    return drawn


def test_all_objects_and_default_boxes_are_points(tmp_path, figures):
    coverage = measure_coverage(synthetic_scenes(6, seed=0, height=64, width=96), CONFIG)
    draw_coverage(tmp_path / "coverage.png", [("before", CONFIG, coverage), ("after", CONFIG, coverage)])
    with Image.open(tmp_path / "coverage.png") as image:
        assert image.size == (1320, 1496)
    (figure,) = figures
    shapes = figure.axes[0]
    points = [each for each in shapes.collections if isinstance(each, PathCollection)]
    covered, poor, *maps = [np.asarray(each.get_offsets()) for each in points]
    objects = np.concatenate([covered, poor])
    assert sorted(map(tuple, objects.tolist())) == sorted(map(tuple, coverage.sizes.astype(float).tolist()))
    assert len(covered) == coverage.covered.sum()
    assert [each.tolist() for each in maps] == [[[*size] for size in row.box_sizes] for row in CONFIG.feature_maps]
    (low, high), (bottom, top) = shapes.get_xlim(), shapes.get_ylim()
    assert all(((each >= [low, bottom]) & (each <= [high, top])).all() for each in (objects, *maps))
    assert "before: mean best overlap" in shapes.get_title(loc="left")


def test_no_objects_are_a_picture_too(tmp_path, figures):
    scenes = synthetic_scenes(1, seed=0, height=64, width=96)
    empty = measure_coverage(Dataset("none", scenes.class_names, []), CONFIG)
    draw_coverage(tmp_path / "coverage.png", [("none", CONFIG, empty)])
    assert (tmp_path / "coverage.png").stat().st_size > 10_000
