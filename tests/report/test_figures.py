"""The figures of a run: its curves and the sheet of its images."""

import numpy as np
import pytest
from PIL import Image

from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.detections import Detections
from multibox.report import figures
from multibox.report.figures import best_row, draw_curves, draw_sheet
from multibox.training.progress import COLUMNS


def row(step, **values):
    return dict.fromkeys(COLUMNS, 0.5) | {"step": step, "epoch": step / 4} | values


@pytest.mark.parametrize(
    ("rows", "best_step", "size"),
    [
        ([], 0, (1000, 400)),
        ([row(4)], 4, (1000, 700)),
        ([row(4, ap=None, ap50=None, ap75=None, gradient_norm=None)], 4, (1000, 400)),
        ([row(4), row(8, localization=None, confidence=None), row(12, ap=None, ap50=None)], 12, (1000, 700)),
        ([row(4, gradient_norm=None), row(8, gradient_norm=None)], 4, (1500, 400)),
    ],
    ids=["none", "one", "neither validation nor norm", "with gaps", "three panels"],
)
def test_curves_can_be_drawn_of_any_rows(tmp_path, rows, best_step, size):
    draw_curves(rows, tmp_path / "curves.png", best_step=best_step)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == size


@pytest.fixture
def panels(monkeypatch):
    """The axes of the curves that a test draws, by title."""
    drawn = {}

    def savefig(figure, *_, **__):
        drawn.update({axes.get_title(): axes for axes in figure.axes})

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    return drawn


def test_the_first_losses_are_on_the_curves(tmp_path, panels):
    losses = [11.3, 6.0, *np.linspace(5, 3, 50)]
    draw_curves([row(4 * n, confidence=value) for n, value in enumerate(losses)], tmp_path / "a.png", best_step=4)
    assert panels["loss"].get_ylim()[1] > 11.3
    assert not panels["loss"].texts


def test_values_far_above_the_others_are_cut_off_with_a_remark(tmp_path, panels):
    norms = [3.0] * 50 + [4000.0]
    draw_curves([row(4 * n, gradient_norm=value) for n, value in enumerate(norms)], tmp_path / "a.png", best_step=4)
    assert panels["gradient norm"].get_ylim()[1] < 10
    assert [text.get_text() for text in panels["gradient norm"].texts] == ["cut off: values up to 4e+03"]


def test_ap_is_in_percent(tmp_path, panels):
    draw_curves([row(4, ap=0.297, epoch=3.551)], tmp_path / "a.png", best_step=4)
    axes = panels["average precision on the validation set, in percent"]
    assert axes.get_ylim() == (0, 100)
    assert "best: AP 29.7, epoch 3.6" in [line.get_label() for line in axes.lines]
    assert any(list(line.get_ydata()) == [pytest.approx(29.7)] for line in axes.lines)


def test_the_best_row_is_that_of_the_weights_that_are_kept():
    assert best_row([], 8) is None
    rows = [row(4, ap=0.2), row(8, ap=0.4), row(12, ap=0.4)]  # which of the two is higher was lost in the file
    assert best_row(rows, 12) is rows[2]


def image_of(number, objects):
    boxes = [[20.0 * place, 10, 20.0 * place + 15, 40] for place in range(objects)]
    truth = GroundTruth(boxes, [0] * objects)
    return Sample(f"folder/{number}.png", np.zeros((3, 60, 100), np.uint8), 60, 100, truth, number)


def found_in(sample, right, wrong=0):
    """That many of the objects with a score of 0.9, 0.2 for the others; false ones where no object is."""
    boxes = [*sample.truth.boxes.tolist(), *([0.0, 45, 10, 55] for _ in range(wrong))]
    scores = [0.9] * right + [0.2] * (len(sample.truth) - right) + [0.8] * wrong
    order = np.argsort(-np.array(scores, np.float32), kind="stable")
    boxes = np.array(boxes, np.float32).reshape(-1, 4)[order]
    none = np.zeros(len(boxes), np.int64)
    return Detections(boxes, np.array(scores, np.float32)[order], none, none - 1, ("cat",))


@pytest.fixture
def drawn(monkeypatch):
    """What would stand on the sheet."""
    sheets = []

    def contact_sheet(images, captions, **_):
        sheets.append(captions)
        return images[0]

    monkeypatch.setattr(figures, "contact_sheet", contact_sheet)
    return sheets


def test_the_sheet_goes_from_best_to_worst(drawn):
    samples = [image_of(number, 4) for number in range(40)]
    shuffled = np.random.default_rng(0).permutation(40).tolist()  # place in quality
    found = []
    for sample, place in zip(samples, shuffled, strict=True):
        found.append(found_in(sample, 4, wrong=40 - place) if place >= 8 else found_in(sample, 0, wrong=9 - place))
    draw_sheet(Dataset("set", ("cat",), samples), found, score_thresholds={"cat": 0.5})
    (captions,) = drawn
    by_place = {place: number for number, place in enumerate(shuffled)}
    assert [caption.split(":")[0] for caption in captions] == [
        *(f"best {place}" for place in (1, 2, 3, 4)),
        *(f"middle {place}" for place in (1, 2, 3, 4)),
        *(f"worst {place}" for place in range(1, 9)),
    ]
    names = [caption.split("\n")[0].split(": ")[1] for caption in captions]
    assert names[:4] == [f"{by_place[place]}.png" for place in (39, 38, 37, 36)]
    assert names[8:] == [f"{by_place[place]}.png" for place in range(8)]  # none found, the most false first
    assert len(set(names)) == 16
    assert captions[0].endswith("quality 0.89: 4 found, 0 missed, 1 false")
    assert captions[8].endswith("quality 0.00: 0 found, 4 missed, 9 false")


@pytest.mark.parametrize("count", [1, 3, 5, 12, 13, 17])
def test_no_image_is_on_the_sheet_twice(drawn, count):
    samples = [image_of(number, 2) for number in range(count)]
    draw_sheet(
        Dataset("set", ("cat",), samples), [found_in(sample, 1) for sample in samples], score_thresholds={"cat": 0.5}
    )
    names = [caption.split("\n")[0].split(": ")[1] for caption in drawn[0]]
    assert len(names) == len(set(names)) == min(count, 16)


def test_empty_images_are_shown_where_something_was_found_or_there_are_no_others(drawn):
    samples = [image_of(0, 0), image_of(1, 2), image_of(2, 0)]
    found = [found_in(samples[0], 0), found_in(samples[1], 2), found_in(samples[2], 0, wrong=1)]
    draw_sheet(Dataset("set", ("cat",), samples), found, score_thresholds={"cat": 0.5})
    assert [caption.split("\n")[0] for caption in drawn[0]] == ["best 1: 1.png", "best 2: 2.png"]
    draw_sheet(Dataset("set", ("cat",), samples[:1]), found[:1], score_thresholds={"cat": 0.5})
    assert drawn[1] == ["best 1: 0.png\nquality 1.00: 0 found, 0 missed, 0 false"]


def test_the_sheet_is_drawn():
    samples = [image_of(number, 4) for number in range(5)]
    sheet = draw_sheet(
        Dataset("set", ("cat",), samples), [found_in(each, 2, 1) for each in samples], score_thresholds={"cat": 0.5}
    )
    colors = {tuple(color) for color in np.asarray(sheet).reshape(-1, 3)[::7]}
    assert sheet.width == 4 * (426 + 12) + 12
    legend = np.asarray(sheet)[:110]  # text in dark gray, and a box in the color of the class
    assert (legend.min(axis=2) < 60).any() and (legend == (235, 64, 70)).all(axis=2).any()
    assert (235, 64, 70) in colors  # that of the first class
