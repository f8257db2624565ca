"""Decisions mend exactly what they are about, and a file that is not one of decisions is refused by name."""

import json
from dataclasses import replace

import numpy as np
import pytest

from multibox.data.read import read_dataset
from multibox.data.sample import GroundTruth
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.data.write import WRITERS
from multibox.review.decisions import Decision, Decisions, Label, apply_decisions, read_decisions
from multibox.review.gather import gather
from multibox.review.suspects import find_suspects
from tests.review.damaged import damaged_scenes

CIRCLE, SQUARE = CLASS_NAMES[:2]
FIRST = synthetic_scenes(1, seed=1)[0].name


def decision(kind: str, what: str, label: Label | None, found: Label | None = None, image: str = FIRST):
    return Decision("train", image, kind, what, label, found)


@pytest.fixture
def scenes():
    return synthetic_scenes(3, seed=1)


def rows(truth: GroundTruth) -> set[tuple[int, ...]]:
    return {
        (int(label), *np.round(box).astype(int).tolist()) for label, box in zip(truth.labels, truth.boxes, strict=True)
    }


def label_of(sample, index: int) -> Label:
    box = [round(float(side), 2) for side in sample.truth.boxes[index]]
    return Label(CLASS_NAMES[sample.truth.labels[index]], tuple(box))


def test_each_decision_changes_its_label_alone(scenes):
    sample = scenes[0]
    first, second = label_of(sample, 0), label_of(sample, 1)
    new = Label(SQUARE, (1, 2, 30, 40))
    other_class = Label(next(name for name in CLASS_NAMES if name != first.name), first.box)
    decided = [
        decision("missing", "change", None, new),
        decision("swapped", "change", first, other_class),
        decision("phantom", "drop", second),
        decision("phantom", "keep", label_of(scenes[1], 0), image=scenes[1].name),
    ]
    reviewed = apply_decisions({"train": scenes}, decided)
    before, after = rows(sample.truth), rows(reviewed.splits["train"][0].truth)
    assert before - after == rows(sample.truth[np.array([0, 1])])
    swapped = sample.truth[np.array([0])].with_labels(np.array([CLASS_NAMES.index(other_class.name)]))
    assert after - before == {(CLASS_NAMES.index(SQUARE), 1, 2, 30, 40), *rows(swapped)}
    assert [change.done for change in reviewed.changes] == [
        "label added",
        f"changed to {other_class}",
        "label removed",
    ]
    for index in (1, 2):
        assert rows(reviewed.splits["train"][index].truth) == rows(scenes[index].truth)
    assert rows(sample.truth) == before  # the data set itself is as it was


def test_a_neighbor_is_added_and_the_label_stays(scenes):
    beside = Label(SQUARE, (1, 2, 30, 40))
    decided = [decision("badly located", "add", label_of(scenes[0], 0), beside)]
    after = rows(apply_decisions({"train": scenes}, decided).splits["train"][0].truth)
    assert after == rows(scenes[0].truth) | {(CLASS_NAMES.index(SQUARE), 1, 2, 30, 40)}


def test_the_detector_of_damages_mends_them_all():
    dataset, found, damages = damaged_scenes()
    suspects = find_suspects([sample.truth for sample in dataset], found)[: len(damages)]
    decided = []
    for each in suspects:
        sample = dataset[each.image]
        label = None if each.object is None else label_of(sample, each.object)
        seen = each.found and Label(each.found.name, each.found.box)
        decided.append(Decision("all", sample.name, each.kind, "change" if seen else "drop", label, seen))
    reviewed = apply_decisions({"all": dataset}, decided).splits["all"]
    assert find_suspects([sample.truth for sample in reviewed], found) == []


def test_marks_and_areas_of_other_objects_stay():
    truth = GroundTruth(
        [[0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 70]],
        [0, 1, 2],
        difficult=[False, True, False],
        crowd=[False, False, True],
        areas=[50, 60, 70],
    )
    scenes = synthetic_scenes(1, seed=0)
    scenes = replace(scenes, samples=[replace(scenes[0], truth=truth)])
    decided = [decision("phantom", "drop", Label(CLASS_NAMES[0], (0, 0, 10, 10)), image=scenes[0].name)]
    kept = apply_decisions({"train": scenes}, decided).splits["train"][0].truth
    assert kept.difficult.tolist() == [True, False]
    assert kept.crowd.tolist() == [False, True]
    assert kept.areas.tolist() == [60, 70]


def test_what_is_no_longer_there_is_listed_and_changes_nothing(scenes):
    gone = Label(CIRCLE, (1, 1, 2, 2))
    decided = [
        decision("phantom", "drop", gone),
        decision("phantom", "drop", gone, image="nowhere.png"),
        decision("missing", "change", None, Label("unicorn", (1, 1, 9, 9))),
    ]
    reviewed = apply_decisions({"train": scenes}, decided)
    assert [change.done for change in reviewed.changes] == ["decision left out"] * 3
    listed = "\n".join(f"{change.decision.image}: {change.what}" for change in reviewed.changes)
    assert "nowhere.png: the split 'train' has no such image" in listed
    assert f"no label {CIRCLE} (1, 1, 2, 2) is there" in listed
    assert "no class 'unicorn'" in listed
    assert rows(reviewed.splits["train"][0].truth) == rows(scenes[0].truth)


@pytest.mark.parametrize("layout", WRITERS)
def test_an_image_in_two_splits_is_changed_in_both_and_comes_back_from_each_format(tmp_path, layout, scenes):
    WRITERS[layout]({"train": scenes}, tmp_path / "data")
    read = read_dataset(tmp_path / "data", split="train")
    splits = {"train": read, "val": read}
    gathered = gather(splits)
    assert len(gathered.dataset) == 3
    assert gathered.splits == ("train",) * 3
    decided = [decision("missing", "change", None, Label(SQUARE, (1, 2, 30, 40)), image=read[0].name)]
    reviewed = apply_decisions(splits, decided)
    assert len(reviewed.changes) == 1
    assert all(len(each[0].truth) == len(read[0].truth) + 1 for each in reviewed.splits.values())
    WRITERS[layout]({"train": reviewed.splits["train"]}, tmp_path / "mended")
    again = read_dataset(tmp_path / "mended", split="train")
    assert [rows(sample.truth) for sample in again] == [rows(sample.truth) for sample in reviewed.splits["train"]]


def test_a_decision_about_an_image_that_is_left_in_another_split_alone_reaches_it(scenes):
    decided = [decision("missing", "change", None, Label(SQUARE, (1, 2, 30, 40)))]
    as_read = {"train": scenes, "val": replace(scenes, samples=scenes.samples[:1])}
    mended = {"train": replace(scenes, samples=scenes.samples[1:]), "val": as_read["val"]}
    reviewed = apply_decisions(mended, decided, as_read)
    assert [change.done for change in reviewed.changes] == ["label added"]
    assert len(reviewed.splits["val"][0].truth) == len(scenes[0].truth) + 1
    gone = apply_decisions({"train": mended["train"]}, decided, as_read)
    assert [(change.what, change.done) for change in gone.changes] == [("the image is left out", "decision left out")]


def test_an_object_of_a_class_that_only_another_split_has_is_added(scenes):
    splits = {"train": scenes, "val": synthetic_scenes(1, seed=9).with_classes([*CLASS_NAMES, "more"])}
    reviewed = apply_decisions(splits, [decision("missing", "change", None, Label("more", (1, 2, 30, 40)))])
    assert [change.done for change in reviewed.changes] == ["label added"]
    truth, names = reviewed.splits["train"][0].truth, reviewed.splits["train"].class_names
    assert names[truth.labels[-1]] == "more"


def test_splits_with_other_classes_are_gathered_by_name(scenes):
    other = synthetic_scenes(2, seed=9).with_classes([*CLASS_NAMES[::-1], "more"])
    gathered = gather({"train": scenes, "val": other})
    assert gathered.dataset.class_names == (*CLASS_NAMES, "more")
    assert gathered.splits == ("train",) * 3 + ("val",) * 2
    assert rows(gathered.dataset[3].truth) == rows(synthetic_scenes(2, seed=9)[0].truth)


def test_a_file_of_decisions_is_read(tmp_path):
    file = tmp_path / "decisions.json"
    label = {"name": CIRCLE, "box": [1, 2, 3.5, 4]}
    row = {"split": "train", "image": "a.png", "kind": "phantom", "decision": "drop", "object": label, "found": None}
    file.write_text(json.dumps({"version": 1, "data": "scenes", "decisions": [row]}))
    assert read_decisions(file) == Decisions(
        1, "scenes", (Decision("train", "a.png", "phantom", "drop", Label(CIRCLE, (1, 2, 3.5, 4))),)
    )


ROW = {"split": "train", "image": "a.png", "kind": "phantom", "decision": "keep", "object": None, "found": None}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "truncated"),
        ("[]", "Expected `object`, got `array`"),
        ({"version": 2, "data": "", "decisions": []}, "Invalid enum value 2"),
        ({"version": 1, "data": "", "decisions": [ROW | {"decision": "burn"}]}, "Invalid enum value 'burn'"),
        ({"version": 1, "data": "", "decisions": [ROW | {"decision": "drop"}]}, "a.png: 'drop' needs the label"),
        ({"version": 1, "data": "", "decisions": [ROW | {"decision": "change"}]}, "'change' needs what was found"),
        (
            {"version": 1, "data": "", "decisions": [ROW | {"object": {"name": "a", "box": [4, 4, 1, 9]}}]},
            "has no width",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, content, why):
    file = tmp_path / "other.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=f"(?s)other.json: not the decisions .*{why}"):
        read_decisions(file)
