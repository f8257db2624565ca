import pickle
from pathlib import Path

import numpy as np
import pytest

from multibox.data import Dataset, DatasetError, GroundTruth, Problem, Sample
from multibox.data.sample import (
    PROBLEMS_SHOWN,
    compare_classes,
    group_problems,
    list_problems,
    main_problem,
    summarize_problems,
)

PROBLEM = Problem("a.txt, line 3", "class 7", "box left out")


def sample(objects: int, name: str = "a.jpg") -> Sample:
    pixels = np.zeros((3, 375, 500), np.uint8)
    return Sample(name, pixels, 375, 500, GroundTruth([[0, 0, 5, 5]] * objects, [0] * objects), 0)


def test_representations_say_how_much_there_is_and_not_all_of_it():
    data = Dataset("BCCD, train", ("cat", "dog", "hen"), [sample(count, f"{count}.jpg") for count in range(200)])
    assert repr(data) == "Dataset(BCCD, train: 200 images, 19900 objects, 3 classes)"
    with_problems = Dataset("BCCD, train", ("cat",), [sample(1)], (PROBLEM,))
    assert repr(with_problems) == "Dataset(BCCD, train: 1 image, 1 object, 1 class, 1 problem)"
    assert repr(Dataset("empty", (), [])) == "Dataset(empty: 0 images, 0 objects, 0 classes)"
    assert repr(data[7]) == "Sample(7.jpg: height 375, width 500, 7 objects)"
    assert repr(data[1].truth) == "GroundTruth(1 object)"


def test_problems_are_summed_up_by_what_was_done():
    other = Problem("b.jpg", "torn", "image left out")
    assert summarize_problems([PROBLEM]) == "1 problem (1 x box left out)"
    assert summarize_problems([other, PROBLEM, PROBLEM]) == "3 problems (2 x box left out, 1 x image left out)"


@pytest.mark.parametrize("more", [0, 1, 5])
def test_an_error_lists_a_hundred_problems(more: int):
    problems = [Problem("a.txt", f"kind {'x' * number}y", "box left out") for number in range(PROBLEMS_SHOWN + more)]
    error = DatasetError("bad", problems)
    lines = str(error).splitlines()
    assert lines[0] == "bad" and lines[1] == "  a.txt: kind y (box left out)"
    assert len(lines) == 1 + PROBLEMS_SHOWN + (more > 0)
    assert (lines[-1] == f"  ... and {more} more") == (more > 0)
    assert list_problems("bad", problems) == str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems) == (str(error), tuple(problems))
    assert str(DatasetError("bad")) == "bad"


@pytest.mark.parametrize(
    "what",
    [
        "class {n}, but data.yaml names only 0 to 4",
        "box [{n}.5, {n}, -1e-05, nan] has no width",
        "there is no image 'it {n}' in JPEGImages",
        'class "it\'s {n}" is none of 4 known',
        "no image has an object of {names}",
        "folder/img_{n}.jpg: the image is truncated ({n} bytes not processed)",
    ],
)
def test_like_problems_are_one_line_with_their_number_and_the_first(what: str):
    problems = [
        Problem(f"labels/{n}.txt, line {n}", what.format(n=n, names=", ".join(["'a'"] * n)), "box left out")
        for n in range(1, 2001)
    ]
    other = Problem("data.yaml", "nc is 3, but there are 4 names", "names taken")
    first, *_ = problems
    assert list_problems("bad", [*problems[:7], other, *problems[7:]]).splitlines() == [
        "bad",
        f"  2000 x {first.what} (box left out), first in labels/1.txt, line 1",
        f"  {other}",
    ]
    assert list_problems("bad", problems[:3]).splitlines() == ["bad", *(f"  {each}" for each in problems[:3])]


def test_problems_are_of_another_kind_if_the_words_differ_or_what_was_done():
    one = [Problem("a.txt", f"class {n}, but there are 4", "box left out") for n in range(5)]
    two = [Problem("a.txt", f"class {n}, but there are none", "box left out") for n in range(6)]
    three = [Problem("a.txt", f"class {n}, but there are 4", "kept") for n in range(4)]
    assert [len(kind) for kind in group_problems([*one, *two, *three])] == [5, 6, 4]
    assert main_problem([*one, *two, *three]) == "6 x class 0, but there are none (box left out), first in a.txt"
    assert main_problem([]) == ""


def test_a_label_without_a_class_is_refused():
    with pytest.raises(ValueError, match=r"set: a\.jpg has the label 0, but there are only 0 class names"):
        Dataset("set", (), [sample(1)])


@pytest.mark.parametrize(
    ("names", "others", "words"),
    [
        (("a", "b"), ("a", "b"), ""),
        (("a", "b"), ("b", "a"), "the classes of one and of two are in another order"),
        (("a", "b"), ("b",), "only one has 'a'"),
        (("a",), ("b", "c"), "only one has 'a'; only two has 'b', 'c'"),
    ],
)
def test_classes_are_compared_in_words(names: tuple[str, ...], others: tuple[str, ...], words: str):
    assert compare_classes("one", names, "two", others) == words


def test_a_box_without_width_is_refused():
    with pytest.raises(ValueError, match=r"box 1 \[5\.0, 0\.0, 5\.0, 5\.0\] has no width or no height"):
        GroundTruth([[0, 0, 5, 5], [5, 0, 5, 5]], [0, 0])
    with pytest.raises(ValueError, match="2 boxes, but 1 labels"):
        GroundTruth([[0, 0, 5, 5], [0, 0, 5, 5]], [0])


def test_a_sample_opens_its_file(tmp_path: Path):
    assert sample(0).open().size == (500, 375)
    assert sample(0).read().shape == (3, 375, 500)


def dataset_of(*names: str) -> Dataset:
    return Dataset("set, all", ("cat",), [sample(1, name) for name in names], (PROBLEM,), (7,))


def names_of(*datasets: Dataset) -> list[set[str]]:
    return [{each.name for each in dataset} for dataset in datasets]


def test_a_split_takes_about_the_fractions_and_each_image_once():
    whole = dataset_of(*(f"{number}.jpg" for number in range(2000)))
    train, val, test = whole.split(val=0.2, test=0.1)
    assert sum(map(len, (train, val, test))) == 2000 and set.union(*names_of(train, val, test)) == names_of(whole)[0]
    assert (len(val), len(test)) == (pytest.approx(400, abs=60), pytest.approx(200, abs=45))
    assert [each.name for each in val] == [each.name for each in whole if each.name in names_of(val)[0]]
    assert (train.name, val.category_ids, test.problems) == ("set, all, train part", (7,), (PROBLEM,))
    assert names_of(*whole.split()) == names_of(*whole.split(val=0.2))
    assert names_of(whole.split(val=0.2)[1]) == names_of(val)  # the test part is taken from the training images


def test_more_images_move_none():
    few, many = (dataset_of(*(f"{number}.jpg" for number in range(count))) for count in (200, 300))
    for before, after in zip(
        names_of(*few.split(val=0.3, test=0.2)), names_of(*many.split(val=0.3, test=0.2)), strict=True
    ):
        assert before <= after


def test_copies_of_an_image_stay_together():
    names = [f"{number}_jpg.rf.{copy}a{number}f.jpg" for number in range(40) for copy in range(3)]
    for part in names_of(*dataset_of(*names, *(f"other/{number}_jpg.png" for number in range(40))).split(val=0.5)):
        stems = {name.rpartition("/")[2].partition("_")[0] for name in part}
        assert len(part) == 4 * len(stems)


@pytest.mark.parametrize("count", range(3, 12))
def test_no_part_is_empty(count: int):
    whole = dataset_of(*(f"{number}.jpg" for number in range(count)))
    for val, test in ((0.01, 0.01), (0.98, 0.01), (0.01, 0.98), (0.3, 0.3)):
        parts = whole.split(val=val, test=test)
        assert all(parts) and sum(map(len, parts)) == count


@pytest.mark.parametrize(("val", "test"), [(0, 0), (1, 0), (0.5, 0.5), (-0.1, 0), (0.2, -0.1)])
def test_fractions_that_leave_nothing(val: float, test: float):
    with pytest.raises(ValueError, match="val and test must be fractions"):
        dataset_of("a.jpg", "b.jpg", "c.jpg").split(val=val, test=test)
    with pytest.raises(ValueError, match="set, all: 3 images of 1 name cannot be divided into 2 parts"):
        dataset_of("a.jpg", "b/a.jpg", "a.png").split()
