"""The fingerprint of a data set is the same for the same annotations, and differs for any others."""

from dataclasses import replace

import numpy as np
import pytest

from multibox.data.fingerprint import fingerprint
from multibox.data.sample import Dataset, GroundTruth, Sample


def sample(name="a.jpg", boxes=((1, 2, 3, 4), (5, 6, 8, 9)), labels=(0, 1), **marks):
    marks = {mark: list(values) for mark, values in marks.items()}
    truth = GroundTruth([list(box) for box in boxes], list(labels), **marks)
    return Sample(name, np.zeros((3, 10, 12), np.uint8), 10, 12, truth, 0)


BASE = Dataset("base", ("cat", "dog"), [sample(), sample("b.jpg")])


def test_it_is_the_same_everywhere():
    # computed with hashlib and struct alone, from the docstring
    assert fingerprint(BASE) == "1f177acb8b5fa3a498f28f00366ac732631b315796079e87959054a723b29cd8"


def test_where_a_set_lies_does_not_matter():
    moved = replace(BASE, name="elsewhere", samples=[replace(each, image_id=7) for each in BASE])
    assert fingerprint(moved) == fingerprint(BASE)


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, class_names=("dog", "cat")),
        replace(BASE, class_names=("cat", "dog", "bird")),
        replace(BASE, class_names=("catd", "og")),
        replace(BASE, samples=BASE.samples[::-1]),
        replace(BASE, samples=BASE.samples[:1]),
        replace(BASE, samples=[sample(), sample("\udcff.jpg")]),
        replace(BASE, samples=[sample(), replace(sample("b.jpg"), height=11)]),
        replace(BASE, samples=[sample(), sample("b.jpg", boxes=((1, 2, 3, 4), (5, 6, 8, 9.5)))]),
        replace(BASE, samples=[sample(), sample("b.jpg", labels=(1, 0))]),
        replace(BASE, samples=[sample(), sample("b.jpg", difficult=(True, False))]),
        replace(BASE, samples=[sample(), sample("b.jpg", crowd=(True, False))]),
        replace(BASE, samples=[sample(), sample("b.jpg", areas=(3, 3))]),
        replace(BASE, samples=[sample(), sample("b.jpg", boxes=(), labels=())]),
    ],
)
def test_another_set_has_another(other):
    assert fingerprint(other) != fingerprint(BASE)


def test_an_empty_set_has_one():
    assert len(fingerprint(Dataset("", (), []))) == 64
