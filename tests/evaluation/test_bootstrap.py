"""The paired bootstrap against its definition: the drawn sets written out, each scored by hotcoco."""

from dataclasses import replace

import numpy as np
import pytest

from multibox.evaluation.bootstrap import Difference, compare
from multibox.evaluation.coco_matches import match_by_class
from multibox.evaluation.evaluate import score
from tests.evaluation.test_coco import CLASSES, random_set

RESAMPLES = 20


def compare_detections(truths, before, after, **values):
    matches = (match_by_class(truths, found, CLASSES) for found in (before, after))
    return compare(*matches, images=len(truths), class_names=CLASSES, resamples=RESAMPLES, **values)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_interval_is_that_of_the_drawn_sets(seed):
    """With crowd regions, images without objects, and classes without objects in some drawn sets.

    The scores differ: among equal ones in an image, written-out copies of it would be ranked in another order.
    """
    truths, found = random_set(seed)
    random = np.random.default_rng(seed)
    before = [replace(each, scores=random.uniform(0, 1, len(each)).astype(np.float32)) for each in found]
    after = [found[found.scores > 0.3] for found in before]
    compared = compare_detections(truths, before, after, seed=5)
    draws = np.random.default_rng(5).multinomial(len(truths), [1 / len(truths)] * len(truths), size=RESAMPLES)

    def metrics(counts, detections):
        drawn = np.repeat(np.arange(len(truths)), counts)
        chosen = [truths[image] for image in drawn], [detections[image] for image in drawn]
        return score(*chosen, class_names=CLASSES, rule="coco")

    whole = [metrics(np.ones(len(truths), dtype=int), found) for found in (before, after)]
    drawn = [[metrics(counts, found) for counts in draws] for found in (before, after)]

    def expected(number):
        differences = [
            number(second) - number(first)
            for first, second in zip(*drawn, strict=True)
            if number(first) is not None and number(second) is not None
        ]
        low, high = np.quantile(differences, [0.025, 0.975])
        return Difference(number(whole[0]), number(whole[1]), low, high)

    for name in ("ap", "ap50", "ap75"):
        assert getattr(compared, name) == pytest.approx(expected(lambda each, name=name: getattr(each, name)), abs=1e-9)
    assert compared.per_class.keys() == {"car", "bus"}
    for name, difference in compared.per_class.items():
        assert difference == pytest.approx(expected(lambda each, name=name: each.per_class[name]["ap"]), abs=1e-9)


def test_equal_detections_do_not_differ():
    truths, found = random_set(3)
    compared = compare_detections(truths, found, found)
    assert compared.ap.before == compared.ap.after > 0
    assert (compared.ap.low, compared.ap.high) == (0, 0)
    assert str(compared.ap) == "+0.00 (+0.00 to +0.00)"


def test_nothing_to_compare_is_said():
    truths, found = random_set(4)
    with pytest.raises(ValueError, match="objects of 8 images, but detections in 7"):
        compare_detections(truths, found, found[1:])
    nothing = [truth[truth.crowd] for truth in truths]
    with pytest.raises(ValueError, match="there is no object, so no AP to compare"):
        compare_detections(nothing, found, found)
