"""What a run is about to learn: counts, the first batch and the labels' overview."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.cells import cell_len

from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.report.overview import data_table, draw_batch, draw_labels, objects_by_class
from multibox.report.tables import MOST_ROWS, class_table, text_table


def dataset(*truths: GroundTruth, names: tuple[str, ...] = ("cat", "dog")) -> Dataset:
    pixels = np.zeros((3, 50, 100), np.uint8)
    return Dataset("set", names, [Sample(str(n), pixels, 50, 100, truth, n) for n, truth in enumerate(truths)])


BOX = [10, 10, 30, 20]
PETS = dataset(GroundTruth([BOX, BOX, BOX], [1, 1, 0], crowd=[False, False, True]), GroundTruth([], []))


def test_objects_are_counted_without_crowds():
    assert objects_by_class(PETS).tolist() == [0, 2]
    assert objects_by_class(dataset()).tolist() == [0, 0]


def test_the_table_of_the_data():
    assert data_table(PETS, None) == [
        "                 training",
        "images                  2",
        "without objects         1",
        "",
        "objects by class  training",
        "cat                      0",
        "dog                      2",
    ]
    both = data_table(PETS, dataset(GroundTruth([BOX], [0])))
    assert both[1].split() == ["images", "2", "1"]
    assert both[-2].split() == ["cat", "0", "1"]


@pytest.mark.parametrize("name", ["a" * 200, "고양이" * 30, "\u2588|*_[red]"])
def test_long_names_are_cut_and_columns_are_aligned(name):
    lines = text_table(["class", "AP"], [[name, "1.0"], ["x", "100.0"]])
    assert {cell_len(line) for line in lines} == {cell_len(lines[0])}
    assert cell_len(lines[0]) <= 27


def test_many_classes_end_with_their_number():
    lines = class_table(["class", "AP"], [[f"c{n}", "1"] for n in range(80)])
    assert (len(lines), lines[-1]) == (MOST_ROWS + 2, f"... and {80 - MOST_ROWS} more classes")


def test_the_batch_is_drawn_with_its_boxes():
    inputs = np.full((2, 3, 64, 64), 128, np.uint8)
    boxes = np.array([[[0.25, 0.25, 0.75, 0.75], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]], np.float32)
    sheet = np.asarray(draw_batch(inputs, boxes, np.array([[1, -1], [-1, -1]]), ["cat", "dog"]))
    assert sheet.shape[1] > 2 * sheet.shape[0] * 0.9
    left, right = sheet[:, : sheet.shape[1] // 2], sheet[:, sheet.shape[1] // 2 :]
    colored = (left.max(axis=2).astype(int) - left.min(axis=2)) > 60
    columns = np.flatnonzero(colored.any(axis=0))
    assert 400 * 0.5 - 4 <= columns.max() - columns.min() <= 400 * 0.5 + 4  # half of the image
    assert ((right.max(axis=2).astype(int) - right.min(axis=2)) <= 60).all()  # an image without objects


@pytest.mark.parametrize("val_set", [None, synthetic_scenes(2, seed=2, height=64, width=96)])
def test_the_labels_are_drawn(tmp_path, monkeypatch, val_set):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **values: figures.append(self) or save(self, *args, **values)
    )
    train_set = synthetic_scenes(5, seed=1, height=64, width=96)
    draw_labels(train_set, val_set, tmp_path / "labels.jpg")
    with Image.open(tmp_path / "labels.jpg") as image:
        assert image.size == (1200, 700)
    bars, *_, per_image = figures[0].axes
    counts = sorted(objects_by_class(train_set).tolist(), reverse=True)
    assert [bar.get_width() for bar in bars.patches][: len(CLASS_NAMES)] == counts
    assert sum(bar.get_height() for bar in per_image.patches) == len(train_set)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "made",
    [
        dataset(GroundTruth([], [])),
        dataset(GroundTruth([BOX], [0], crowd=[True])),
        replace(PETS, class_names=tuple("$" * n + "_^{" for n in range(1, 60))),
    ],
)
def test_any_labels_can_be_drawn(tmp_path, made):
    draw_labels(made, made, tmp_path / "labels.jpg")
    assert (tmp_path / "labels.jpg").stat().st_size > 0
