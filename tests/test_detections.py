import copy
import gc
import io
import json
import pickle
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from multibox.detections import Detection, Detections
from multibox.drawing import draw_boxes
from tests.strategies import boxes

NAMES = ("cat", "개", "dog")


def make(boxes=((10, 20, 30, 60), (0, 0, 5.5, 4.25), (1, 2, 3, 4)), scores=(0.875, 0.5, 0.25), labels=(1, 0, 2)):
    count = len(boxes)
    return Detections(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores[:count], dtype=np.float32),
        np.array(labels[:count], dtype=np.int64),
        np.array([7, -1, 8731][:count], dtype=np.int64),
        NAMES,
    )


FOUND = make()
NOTHING = make(boxes=())


def test_iteration_gives_plain_values():
    first, second, _ = FOUND
    assert first == Detection("개", 0.875, (10.0, 20.0, 30.0, 60.0), 1, 7)
    assert second.default_box_index == -1
    assert {type(value) for value in (*first.box, first.score)} == {float}
    assert {type(value) for value in (first.label, first.default_box_index)} == {int}
    assert list(NOTHING) == [] and len(NOTHING) == 0 and not NOTHING


def test_what_print_shows():
    assert str(FOUND[0]) == "개 0.88 (10, 20, 30, 60)"
    assert repr(FOUND) == "Detections(3: 개 0.88, cat 0.50, dog 0.25)"
    assert repr(NOTHING) == "Detections(0)"
    assert repr(FOUND[np.array([1] * 9)]) == f"Detections(9: {'cat 0.50, ' * 5}...)"


def test_one_of_them():
    assert FOUND[0] == next(iter(FOUND))
    assert FOUND[-1].name == "dog"
    assert FOUND[FOUND.scores.argmin()].name == "dog"
    with pytest.raises(IndexError):
        FOUND[3]
    with pytest.raises(IndexError):
        NOTHING[0]


@pytest.mark.parametrize("chosen", [True, False, np.True_])
def test_a_truth_value_is_no_index(chosen):
    with pytest.raises(TypeError, match=rf"{chosen} chooses nothing: give an index|Type-check"):
        FOUND[chosen]


@pytest.mark.parametrize(
    "chosen, names",
    [
        (np.array([True, False, True]), ["개", "dog"]),
        (np.array([False, False, False]), []),
        (np.array([2, 0]), ["개", "dog"]),  # in the order of the scores
        (np.array([], dtype=np.int64), []),
        (slice(2), ["개", "cat"]),
        (slice(None, None, -1), ["개", "cat", "dog"]),
        ("dog", ["dog"]),
        (slice(5, 9), []),
    ],
)
def test_masks_indices_and_slices(chosen, names):
    some = FOUND[chosen]
    assert some.names == names
    assert list(some) == [found for name in names for found in FOUND if found.name == name]
    assert some.class_names == NAMES


def test_a_mask_on_nothing():
    assert len(NOTHING[NOTHING.scores > 0.5]) == 0


def test_json():
    assert json.loads(FOUND.to_json()) == FOUND.records()
    assert FOUND.records()[0] == {
        "name": "개",
        "label": 1,
        "score": 0.875,
        "box": [10.0, 20.0, 30.0, 60.0],
        "default_box_index": 7,
    }
    assert "개" in FOUND.to_json()
    assert NOTHING.to_json() == "[]"


def test_json_is_rounded():
    third = make(boxes=[[1 / 3, 2 / 3, 100 / 3, 200 / 3]], scores=[1 / 3])
    assert '"score": 0.3333, "box": [0.33, 0.67, 33.33, 66.67]' in third.to_json()


def test_coco():
    first, second, _ = FOUND.to_coco(42)
    assert first == {"image_id": 42, "category_id": 2, "bbox": [10.0, 20.0, 20.0, 40.0], "score": 0.875}
    assert second["bbox"] == [0.0, 0.0, 5.5, 4.25]
    assert [result["category_id"] for result in FOUND.to_coco(1, category_ids=[5, 90, 17])] == [90, 5, 17]
    json.dumps(FOUND.to_coco(1, category_ids=np.array([5, 90, 17]).tolist()))
    assert NOTHING.to_coco(1) == []


@given(boxes(min_count=3, max_count=3))
def test_coco_and_back(some):
    some = some.astype(np.float32)
    back = [[x, y, x + width, y + height] for x, y, width, height in (r["bbox"] for r in make(boxes=some).to_coco(1))]
    np.testing.assert_array_equal(np.array(back, np.float32), some)


def test_coco_needs_an_id_for_each_class():
    with pytest.raises(ValueError, match="2 category ids for 3 classes"):
        FOUND.to_coco(1, category_ids=[1, 2])


def test_supervision():
    pytest.importorskip("supervision")
    theirs = FOUND.to_supervision()
    np.testing.assert_array_equal(theirs.xyxy, FOUND.boxes)
    np.testing.assert_array_equal(theirs.confidence, FOUND.scores)
    np.testing.assert_array_equal(theirs.class_id, FOUND.labels)
    assert theirs["class_name"].tolist() == FOUND.names
    assert theirs[theirs.confidence > 0.4]["class_name"].tolist() == ["개", "cat"]
    assert len(NOTHING.to_supervision()) == 0


def test_pandas():
    pytest.importorskip("pandas")
    table = FOUND.to_pandas()
    assert list(table.columns) == ["name", "label", "score", "x_min", "y_min", "x_max", "y_max", "default_box_index"]
    assert [Detection(row[0], row[2], row[3:7], row[1], row[7]) for row in table.itertuples(index=False)] == list(FOUND)
    empty = NOTHING.to_pandas()
    assert len(empty) == 0
    assert (empty.dtypes == table.dtypes).all()


@pytest.mark.parametrize("package", ["supervision", "pandas"])
def test_a_package_that_is_missing(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        getattr(FOUND, f"to_{package}")()


def test_draw():
    image = Image.new("RGB", (120, 90), "gray")
    some = FOUND[FOUND.labels != 1]  # Hangul needs a font, which is tested with the drawing
    expected = draw_boxes(image, some.boxes, labels=some.labels, texts=["cat 0.50", "dog 0.25"])
    assert some.draw(image).tobytes() == expected.tobytes()
    assert some.draw(np.asarray(image)).tobytes() == expected.tobytes()
    assert NOTHING.draw(image).tobytes() == image.tobytes()
    assert some.draw(image, line_width=3, font_size=20).tobytes() != expected.tobytes()


def in_image(image, found=FOUND):
    """Detections that remember the image: `found` without the Hangul class, which needs a font."""
    source = image if isinstance(image, Path) else weakref.ref(image)
    return replace(found[found.labels != 1], source=source)


def test_counts():
    assert FOUND.counts() == {"cat": 1, "개": 1, "dog": 1} and NOTHING.counts() == {}
    assert list(make(labels=(0, 2, 2)).counts().items()) == [("dog", 2), ("cat", 1)]


@pytest.mark.parametrize("form", ["file", "PIL image", "array"])
def test_an_image_that_is_remembered_need_not_be_given(tmp_path, form):
    image = Image.new("RGB", (120, 90), "gray")
    image.save(tmp_path / "it.png")
    given = {"file": tmp_path / "it.png", "PIL image": image, "array": np.asarray(image)}[form]
    found = in_image(given)
    assert found.path == (given if form == "file" else None)
    drawn = found.draw(image).tobytes()
    assert found.draw().tobytes() == found[found.scores > 0].draw().tobytes() == drawn
    shown = found._repr_png_()
    assert shown is not None and Image.open(io.BytesIO(shown)).tobytes() == drawn


def test_pixels_are_remembered_only_as_long_as_someone_holds_them():
    image = Image.new("RGB", (120, 90), "gray")
    found, elsewhere = in_image(image), pickle.loads(pickle.dumps(in_image(image)))
    assert list(elsewhere) == list(found) == list(copy.deepcopy(found))
    assert found.source() is image and elsewhere.source is None
    del image
    gc.collect()
    for each in (found, elsewhere, FOUND):
        assert each._repr_png_() is None
        with pytest.raises(ValueError, match=r"do not know their image.*found\.draw\(image\)"):
            each.show()


def test_a_path_is_pickled_and_may_lead_nowhere(tmp_path):
    found = pickle.loads(pickle.dumps(in_image(tmp_path / "none.jpg")))
    assert found.path == tmp_path / "none.jpg"
    assert found._repr_png_() is None
    with pytest.raises(FileNotFoundError, match=r"none\.jpg: there is no such image"):
        found.draw()


def test_drawing_on_an_array_of_opencv():
    image = Image.effect_noise((120, 90), 90).convert("RGB")
    image.paste("red", (40, 0, 60, 50))
    rgb = np.asarray(image)
    for bgr in (rgb[..., ::-1], rgb[..., ::-1].transpose(2, 0, 1)):
        assert in_image(image).draw(bgr, channels="bgr").tobytes() == in_image(image).draw(rgb).tobytes()
    with pytest.raises(ValueError, match=r"channels='bgr' is for arrays and tensors of pixels alone"):
        in_image(image).draw(image, channels="bgr")


def test_numbers_that_differ():
    with pytest.raises((ValueError, TypeError), match=r"3 boxes, 2 scores, 3 labels|Type-check"):
        Detections(FOUND.boxes, FOUND.scores[:2], FOUND.labels, FOUND.default_box_indices, NAMES)


@given(st.lists(st.sampled_from([0.25, 0.5, 0.75]), max_size=6), st.randoms(use_true_random=False))
def test_the_highest_score_is_always_first_and_of_equal_ones_the_earlier(scores, random):
    def of(scores):
        boxes = np.arange(4 * len(scores), dtype=np.float32).reshape(-1, 4)
        labels = np.zeros(len(scores), np.int64)
        return Detections(boxes, np.array(scores, np.float32), labels, np.arange(len(scores)), NAMES)

    found = of(scores)
    expected = sorted(range(len(scores)), key=lambda row: -scores[row])  # stable
    assert found.default_box_indices.tolist() == expected
    assert found.scores.tolist() == [scores[row] for row in expected]
    assert found.boxes[:, 0].tolist() == [4 * row for row in expected]
    chosen = random.sample(range(len(scores)), len(scores))
    assert (np.diff(found[np.array(chosen, dtype=np.int64)].scores) <= 0).all()


def test_a_class_by_its_name():
    assert [one.name for one in FOUND["dog"]] == ["dog"] and len(FOUND[FOUND.labels != 2]["dog"]) == 0
    with pytest.raises(KeyError, match=r"no class 'dig'; did you mean 'dog'\? It knows cat, 개, dog"):
        FOUND["dig"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value):
    """JSON has no NaN, and it cannot be ordered."""
    for columns in ({"boxes": [[0, 0, value, 1]]}, {"boxes": [[0, 0, 1, 1]], "scores": [value]}):
        with pytest.raises(ValueError, match="must be finite numbers"):
            make(**columns)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_without_a_name(label):
    with pytest.raises(ValueError, match=f"label {label} has no name: there are 3"):
        make(labels=(0, label, 1))


@given(st.integers(0, 3))
def test_length(count):
    assert len(FOUND[:count]) == len(FOUND[:count].names) == len(list(FOUND[:count])) == count
