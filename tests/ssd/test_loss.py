from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multibox.boxes import box_iou
from multibox.ssd import cpu, loss, matching
from multibox.ssd.coder import BoxCoder
from multibox.ssd.loss import count_matches
from multibox.ssd.matching import Targets
from multibox.ssd.network import Predictions
from tests.tolerances import assert_close

WAYS = {
    "batched": (matching.make_targets, loss.multibox_loss, loss.hard_negatives),
    "image by image": (cpu.make_targets, cpu.multibox_loss, cpu.hard_negatives),
}


@pytest.fixture(params=WAYS, scope="module")
def way(request):
    return WAYS[request.param]


@pytest.fixture(scope="module")
def make_targets(way):
    return way[0]


@pytest.fixture(scope="module")
def multibox_loss(way):
    return way[1]


@pytest.fixture(scope="module")
def hard_negatives(way):
    return way[2]


@pytest.fixture(scope="module")
def whole(make_targets, multibox_loss):
    """Computes targets and losses from the same arguments as `loops`."""

    def losses(boxes, labels, default_boxes, offsets, logits):
        targets = make_targets(*padded(boxes, labels), double(default_boxes), CODER)
        return multibox_loss(Predictions(double(offsets), double(logits)), targets)

    return losses


CODER = BoxCoder(center_variance=0.1, size_variance=0.2)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def single(*values):
    return [value.float() if value.is_floating_point() else value for value in values]


def cross_entropy(logits, label):
    largest = max(logits)
    return largest + log(sum(exp(value - largest) for value in logits)) - logits[label]


def smooth_l1(difference):
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def loops(boxes, labels, default_boxes, offsets, logits, weights=None):
    """Returns both losses and the number of matches by the rules of the Caffe code, in loops over plain numbers.

    `boxes` (corner form) and `labels` hold a list for each image; default boxes are in center form. `weights` are
    factors on the confidence losses of the objects' default boxes, by class.
    """
    corners = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in default_boxes]
    matches, localization, confidence = 0, 0.0, 0.0
    for image, objects in enumerate(boxes):
        if not objects:
            continue
        overlaps = box_iou(np.array(objects), np.array(corners))
        matched = {}
        free = {(index, place) for index in range(len(objects)) for place in range(len(corners))}
        while free:
            index, place = max(sorted(free, key=lambda pair: (pair[1], pair[0])), key=lambda pair: overlaps[pair])
            if overlaps[index, place] <= 1e-6:
                break
            matched[place] = index
            free = {pair for pair in free if pair[0] != index and pair[1] != place}
        for place in range(len(corners)):
            if place not in matched and overlaps[:, place].max() >= 0.5:
                matched[place] = int(overlaps[:, place].argmax())
        matches += len(matched)

        for place, index in matched.items():
            x_min, y_min, x_max, y_max = objects[index]
            x, y, width, height = default_boxes[place]
            wanted = [
                ((x_min + x_max) / 2 - x) / width / 0.1,
                ((y_min + y_max) / 2 - y) / height / 0.1,
                log((x_max - x_min) / width) / 0.2,
                log((y_max - y_min) / height) / 0.2,
            ]
            localization += sum(smooth_l1(a - b) for a, b in zip(offsets[image][place], wanted, strict=True))
            factor = weights[labels[image][index]] if weights else 1.0
            confidence += factor * cross_entropy(logits[image][place], labels[image][index] + 1)
        eligible = [place for place in range(len(corners)) if place not in matched and overlaps[:, place].max() < 0.5]
        background = sorted((cross_entropy(logits[image][place], 0) for place in eligible), reverse=True)
        confidence += sum(background[: min(3 * len(matched), len(eligible))])
    divisor = matches or 1
    return localization / divisor, confidence / divisor, matches


def padded(boxes, labels):
    most = max((len(some) for some in boxes), default=0)
    all_boxes = torch.zeros(len(boxes), most, 4, dtype=torch.float64)
    all_labels = torch.full((len(boxes), most), -1)
    for image, (some, names) in enumerate(zip(boxes, labels, strict=True)):
        all_boxes[image, : len(some)] = double(some).reshape(-1, 4)
        all_labels[image, : len(names)] = torch.tensor(names, dtype=torch.long)
    return all_boxes, all_labels


def random_case(random, *, batch, most_objects, default_boxes, classes):
    """Returns images with 0 to `most_objects` objects. Single precision holds all numbers exactly."""

    def rounded(values):
        return np.float32(values).astype(np.float64).tolist()

    boxes, labels = [], []
    for _ in range(batch):
        count = int(random.integers(0, most_objects + 1))
        low = random.uniform(0, 0.7, (count, 2))
        boxes.append(rounded(np.concatenate([low, low + random.uniform(0.05, 0.5, (count, 2))], axis=1)))
        labels.append(random.integers(0, classes, count).tolist())
    table = np.concatenate([random.uniform(0, 1, (default_boxes, 2)), random.uniform(0.05, 0.6, (default_boxes, 2))], 1)
    offsets = random.normal(0, 3, (batch, default_boxes, 4))
    logits = random.normal(0, 2, (batch, default_boxes, classes + 1))
    return boxes, labels, rounded(table), rounded(offsets), rounded(logits)


@pytest.mark.parametrize("batch, most_objects", [(1, 1), (1, 5), (4, 0), (4, 1), (4, 3), (8, 6)])
def test_loss_is_the_loops(whole, batch, most_objects):
    random = np.random.default_rng([batch, most_objects])
    for _ in range(4):
        case = random_case(random, batch=batch, most_objects=most_objects, default_boxes=40, classes=3)
        localization, confidence, matches = loops(*case)
        losses = whole(*case)
        assert losses.matches == matches
        found = [losses.localization.item(), losses.confidence.item(), losses.total.item()]
        assert_close(found, [localization, confidence, localization + confidence])


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 0.25, 7.0), (0.001, 1.0, 100.0)])
def test_loss_with_class_weights_is_the_loops(make_targets, multibox_loss, weights):
    """Mining and the negatives' losses do not change, and neither does N."""
    random = np.random.default_rng(31)
    for batch, most_objects in [(1, 1), (4, 0), (4, 3), (8, 6)]:
        case = random_case(random, batch=batch, most_objects=most_objects, default_boxes=40, classes=3)
        boxes, labels, default_boxes, *predicted = case
        targets = make_targets(*padded(boxes, labels), double(default_boxes), CODER)
        class_weights = torch.tensor([1.0, *weights])
        losses = multibox_loss(Predictions(*map(double, predicted)), targets, class_weights=class_weights)
        localization, confidence, matches = loops(*case, weights=class_weights[1:].double().tolist())
        assert losses.matches == matches
        assert_close([losses.localization.item(), losses.confidence.item()], [localization, confidence])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_class_weights_of_1_change_nothing_to_the_bit(make_targets, multibox_loss, dtype):
    boxes, labels, default_boxes, *predicted = random_case(
        np.random.default_rng(32), batch=8, most_objects=6, default_boxes=60, classes=3
    )
    targets = make_targets(*single(*padded(boxes, labels)), torch.tensor(default_boxes), CODER)
    results = []
    for weights in (None, torch.ones(4)):
        predictions = Predictions(*(torch.tensor(values).to(dtype).requires_grad_() for values in predicted))
        losses = multibox_loss(predictions, targets, class_weights=weights)
        losses.total.backward()
        results.append([*losses, *(values.grad for values in predictions)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_the_gradient_of_an_object_is_multiplied_by_the_weight_of_its_class(multibox_loss):
    labels = torch.tensor([[1, 2, 0, 0, 0, 0, 0, 0]])
    gradients = []
    for weights in (None, torch.tensor([1.0, 3.0, 0.5])):
        logits = torch.zeros(1, 8, 3, requires_grad=True)
        multibox_loss(
            Predictions(torch.zeros(1, 8, 4), logits), Targets(torch.zeros(1, 8, 4), labels), class_weights=weights
        ).confidence.backward()
        gradients.append(logits.grad[0])
    plain, weighted = gradients
    assert_close(weighted, plain * torch.tensor([3.0, 0.5, 1, 1, 1, 1, 1, 1])[:, None])


def test_a_loss_that_a_reader_can_compute(multibox_loss):
    """Image 0 has one match and learns the hardest three of its four negatives. Image 1 has equal logits everywhere."""
    offsets = torch.zeros(2, 5, 4)
    offsets[0, 0] = torch.tensor([0.5, -2.0, 0.0, 0.0])  # off by a half and by two: 0.125 + 1.5
    offsets[0, 1] = 100.0  # no match: does not count
    labels = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 2, 0, 0]])
    # logits of 0, 0 and log(n): probabilities 1/(n+2), 1/(n+2), n/(n+2)
    logits = torch.zeros(2, 5, 3)
    logits[0, :, 2] = torch.tensor([2.0, 4.0, 1.0, 6.0, 8.0]).log()
    expected = [
        log(4),  # its match, class 0: 1/4
        *(log(10), log(8), log(6)),  # three negatives; log(3) is left out
        log(3),  # the other match
        *(log(3), log(3), log(3)),
    ]
    losses = multibox_loss(Predictions(offsets, logits), Targets(torch.zeros(2, 5, 4), labels))
    assert losses.matches == 2
    assert losses.localization.item() == pytest.approx((0.125 + 1.5) / 2)
    assert losses.confidence.item() == pytest.approx(sum(expected) / 2)


def one_with_objects_beside_one_without():
    """Image 0 has one match and easy negatives. Image 1 has no objects, but looks nothing like background."""
    logits = torch.zeros(2, 6, 2)
    logits[0, 1:, 0] = torch.tensor([5.0, 4, 3, 2, 1])
    logits[1, :, 1] = 10.0
    labels = torch.zeros(2, 6, dtype=torch.long)
    labels[0, 0] = 1
    return logits.requires_grad_(), Targets(torch.zeros(2, 6, 4), labels)


def test_an_image_without_objects_adds_nothing(multibox_loss):
    logits, targets = one_with_objects_beside_one_without()
    losses = multibox_loss(Predictions(torch.ones(2, 6, 4, requires_grad=True), logits), targets)
    mined = sum(cross_entropy([easy, 0.0], 0) for easy in (1.0, 2.0, 3.0))
    assert losses.confidence.item() == pytest.approx(log(2) + mined)
    losses.total.backward()
    assert (logits.grad[1] == 0).all()
    assert (logits.grad[0, [1, 2]] == 0).all() and (logits.grad[0, [0, 3, 4, 5]] != 0).all()


def test_negatives_are_mined_in_each_image_not_across_the_batch(multibox_loss):
    """Across the batch, all three negatives would come from the image without objects."""
    logits, targets = one_with_objects_beside_one_without()
    across = log(2) + 3 * cross_entropy([0.0, 10.0], 0)
    losses = multibox_loss(Predictions(torch.zeros(2, 6, 4), logits), targets)
    assert losses.confidence.item() < across / 5


def test_both_losses_are_divided_by_the_matches_of_the_whole_batch(multibox_loss):
    """They are not divided by the matches of each image and then averaged. Image 0 has one match, image 1 has three."""
    offsets = torch.zeros(2, 4, 4)
    offsets[0, 0, 0] = 4.5  # smooth L1 4
    labels = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0]])
    logits = torch.zeros(2, 4, 2)
    losses = multibox_loss(Predictions(offsets, logits), Targets(torch.zeros(2, 4, 4), labels))
    assert losses.localization.item() == pytest.approx(4 / 4)
    assert losses.confidence.item() == pytest.approx((1 + 3 + 3 + 1) * log(2) / 4)


@pytest.mark.parametrize("objects", [0, 3])
def test_no_match_in_the_batch_is_a_loss_of_exactly_zero_with_gradients_of_zero(make_targets, multibox_loss, objects):
    offsets = torch.randn(3, 9, 4, requires_grad=True)
    logits = torch.randn(3, 9, 5, requires_grad=True)
    labels = torch.full((3, objects), -1)
    targets = make_targets(torch.zeros(3, objects, 4), labels, torch.rand(9, 4) + 0.1, CODER)
    losses = multibox_loss(Predictions(offsets, logits), targets)
    assert losses.localization == losses.confidence == losses.total == losses.matches == 0
    losses.total.backward()
    assert (offsets.grad == 0).all() and (logits.grad == 0).all()


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_extreme_logits_and_offsets_give_finite_losses_and_gradients(make_targets, multibox_loss, scale):
    random = np.random.default_rng(5)
    boxes, labels, default_boxes, offsets, logits = random_case(
        random, batch=4, most_objects=4, default_boxes=30, classes=4
    )
    offsets, logits = (torch.tensor(values).sign() * scale for values in (offsets, logits))
    offsets, logits = offsets.requires_grad_(), logits.requires_grad_()
    targets = make_targets(*padded(boxes, labels), torch.tensor(default_boxes), CODER)
    losses = multibox_loss(Predictions(offsets, logits), targets)
    losses.total.backward()
    assert losses.matches > 0 and torch.isfinite(losses.total)
    assert torch.isfinite(offsets.grad).all() and torch.isfinite(logits.grad).all()
    assert losses.localization > scale and losses.confidence > scale / 10


def test_gradient_is_that_of_finite_differences(make_targets, multibox_loss):
    case = random_case(np.random.default_rng(11), batch=2, most_objects=3, default_boxes=8, classes=2)
    boxes, labels, default_boxes, *predicted = case
    targets = make_targets(*padded(boxes, labels), double(default_boxes), CODER)
    predictions = Predictions(*(double(values).requires_grad_() for values in predicted))
    multibox_loss(predictions, targets).total.backward()
    step = 1e-6
    for part in (0, 1):
        for index in [(0, 0, 0), (0, 3, 1), (1, 5, 2), (1, 7, 0)]:
            sides = []
            for sign in (step, -step):
                shifted = [values.detach().clone() for values in predictions]
                shifted[part][index] += sign
                sides.append(sum(loops(boxes, labels, default_boxes, *(values.tolist() for values in shifted))[:2]))
            assert predictions[part].grad[index].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-7)


def test_half_precision_predictions_are_computed_in_single(make_targets, multibox_loss):
    case = random_case(np.random.default_rng(2), batch=2, most_objects=3, default_boxes=20, classes=3)
    targets = make_targets(*single(*padded(case[0], case[1])), torch.tensor(case[2]), CODER)
    predictions = Predictions(torch.tensor(case[3]).bfloat16(), torch.tensor(case[4]).bfloat16())
    losses = multibox_loss(predictions, targets)
    assert losses.total.dtype == torch.float32
    same = multibox_loss(Predictions(*(values.float() for values in predictions)), targets)
    assert losses.total == same.total
    in_double = multibox_loss(Predictions(*(values.double() for values in predictions)), targets)
    assert in_double.total.dtype == torch.float64
    assert_close(losses.total, in_double.total)


def test_targets_of_one_image(make_targets):
    default_boxes = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 0.4, 0.4], [0.8, 0.8, 0.2, 0.2]])
    boxes = torch.tensor([[[0.7, 0.7, 0.9, 0.9], [0.1, 0.1, 0.3, 0.3], [0.0, 0.0, 0.0, 0.0]]])
    targets = make_targets(boxes, torch.tensor([[4, 0, -1]]), default_boxes, CODER)
    assert targets.labels.tolist() == [[1, 0, 5]]
    torch.testing.assert_close(
        targets.offsets, torch.zeros(1, 3, 4), atol=1e-5, rtol=0
    )  # a coordinate's error, times 50


def test_targets_decode_to_the_objects(make_targets):
    case = random_case(np.random.default_rng(8), batch=5, most_objects=6, default_boxes=60, classes=9)
    boxes, labels = padded(case[0], case[1])
    default_boxes = double(case[2])
    targets = make_targets(boxes, labels, default_boxes, CODER)
    decoded = CODER.decode(targets.offsets, default_boxes.expand(5, -1, -1))
    assert (targets.labels > 0).any(dim=1).tolist() == [len(some) > 0 for some in case[0]]
    for image, place in (targets.labels > 0).nonzero().tolist():
        near = (boxes[image] - decoded[image, place]).abs().amax(dim=1)
        assert near.min() < 1e-12
        assert labels[image, near.argmin()] + 1 == targets.labels[image, place]
    assert (targets.offsets[targets.labels == 0] == 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 30), st.sampled_from([0.0, 0.5, 1.0, 3.0]))
@settings(max_examples=40)
def test_laws_of_mining(hard_negatives, seed, batch, default_boxes, negatives_per_positive):
    random = np.random.default_rng(seed)
    losses = torch.from_numpy(random.integers(0, 6, (batch, default_boxes))).float()
    positive = torch.from_numpy(random.random((batch, default_boxes)) < 0.2)
    negative = hard_negatives(losses, positive, negatives_per_positive=negatives_per_positive)
    assert not (negative & positive).any()
    for own, chosen, matched in zip(losses, negative, positive, strict=True):
        assert chosen.sum() == min(int(negatives_per_positive * matched.sum()), int((~matched).sum()))
        order = sorted((~matched).nonzero()[:, 0].tolist(), key=lambda place: -own[place])  # sorting is stable
        assert sorted(order[: int(chosen.sum())]) == chosen.nonzero()[:, 0].tolist()


@pytest.mark.parametrize("match", [0, 1], ids=["without a match", "with a match"])
@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_loss_that_is_not_a_number_is_not_hidden(multibox_loss, place, match):
    logits = torch.zeros(1, 6, 3)
    logits[0, place, 1] = torch.nan
    targets = Targets(torch.zeros(1, 6, 4), torch.tensor([[0, 0, match, 0, 0, 0]]))
    assert multibox_loss(Predictions(torch.zeros(1, 6, 4), logits), targets, negatives_per_positive=1.0).total.isnan()


def test_mining_ranks_by_the_loss_against_the_background(multibox_loss):
    """Not by the largest class score: the two classes of the first box together are further from the background."""
    logits = torch.tensor([[[0.0, 2.0, 2.0], [0.0, 2.3, -9.0], [0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    targets = Targets(torch.zeros(1, 4, 4), torch.tensor([[0, 0, 0, 1]]))
    losses = multibox_loss(Predictions(torch.zeros(1, 4, 4), logits), targets, negatives_per_positive=1.0)
    expected = cross_entropy([0.0, 2.0, 2.0], 0) + cross_entropy([9.0, 0.0, 0.0], 1)
    assert losses.confidence.item() == pytest.approx(expected)


def test_loss_does_not_depend_on_the_order_of_the_objects(whole):
    random = np.random.default_rng(21)
    boxes, labels, *rest = random_case(random, batch=4, most_objects=6, default_boxes=50, classes=3)
    turned = ([some[::-1] for some in boxes], [names[::-1] for names in labels])
    assert_close(whole(boxes, labels, *rest), whole(*turned, *rest))


@pytest.mark.parametrize("negatives_without_matches", [0, 1, 3])
@pytest.mark.parametrize("parts", [(6,), (1, 5), (3, 1, 2), (1, 1, 1, 1, 1, 1)])
def test_the_losses_of_parts_divided_by_the_n_of_the_whole_add_up_to_those_of_the_whole(
    make_targets, multibox_loss, parts, negatives_without_matches
):
    """As in gradient accumulation and in training with several processes. Some parts have no objects."""
    random = np.random.default_rng(sum(parts) * len(parts))
    boxes, labels, default_boxes, *predicted = random_case(random, batch=6, most_objects=4, default_boxes=40, classes=3)
    for empty in (0, 3):
        boxes[empty], labels[empty] = [], []
    targets = make_targets(*padded(boxes, labels), double(default_boxes), CODER)
    rule = {"negatives_without_matches": negatives_without_matches}

    def learn(sizes, divisor):
        predictions = [double(values).requires_grad_() for values in predicted]
        split = zip(*(values.split(sizes) for values in (*predictions, *targets)), strict=True)
        losses = [multibox_loss(Predictions(*part[:2]), Targets(*part[2:]), **rule, divisor=divisor) for part in split]
        sum(part.total for part in losses).backward()
        return [sum(column) for column in zip(*losses, strict=True)], [values.grad for values in predictions]

    split = zip(*(values.split(parts) for values in targets), strict=True)
    divisor = sum(count_matches(Targets(*part), **rule) for part in split)
    assert divisor == pytest.approx((targets.labels > 0).sum().item() + boxes.count([]) * negatives_without_matches / 3)
    in_one = learn((6,), None)
    for number in (divisor, divisor.item()):
        # the divisor is in single precision
        torch.testing.assert_close(learn(parts, number), in_one, rtol=1e-6, atol=1e-12)


def test_the_hardest_negatives_of_an_image_without_matches_are_learned_where_asked_for(multibox_loss):
    """Image 1 has no objects and learns two of its four negatives, which weigh as much as two thirds of a match."""
    logits = torch.zeros(2, 4, 2)
    logits[0, 1:, 0] = 9.0
    logits[1, :, 1] = torch.tensor([1.0, 4.0, 2.0, 3.0])
    targets = Targets(torch.zeros(2, 4, 4), torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0]]))
    predictions = Predictions(torch.zeros(2, 4, 4), logits.requires_grad_())
    assert count_matches(targets, negatives_without_matches=2).item() == pytest.approx(1 + 2 / 3)
    losses = multibox_loss(predictions, targets, negatives_without_matches=2)
    summed = log(2) + 3 * cross_entropy([9.0, 0.0], 0) + cross_entropy([0.0, 4.0], 0) + cross_entropy([0.0, 3.0], 0)
    assert losses.matches == 1
    assert losses.confidence.item() == pytest.approx(summed / (1 + 2 / 3))
    losses.total.backward()
    assert (logits.grad[1, [0, 2]] == 0).all() and (logits.grad[1, [1, 3]] != 0).all()


def test_a_batch_without_objects_learns_its_negatives_where_asked_for(multibox_loss):
    """Its N is below 1, so the losses are not divided: an image alone must not count more than it does in a batch."""
    targets = Targets(torch.zeros(1, 4, 4), torch.zeros(1, 4, dtype=torch.long))
    predictions = Predictions(torch.zeros(1, 4, 4), torch.zeros(1, 4, 2))
    assert count_matches(targets).item() == 0
    assert count_matches(targets, negatives_without_matches=2).item() == pytest.approx(2 / 3)
    losses = multibox_loss(predictions, targets, negatives_without_matches=2)
    assert losses.matches == 0 and losses.confidence.item() == pytest.approx(2 * log(2))
    assert multibox_loss(predictions, targets, negatives_without_matches=9).confidence.item() == pytest.approx(
        4 * log(2) / 3
    )
    assert multibox_loss(predictions, targets, negatives_without_matches=2, divisor=0.0).confidence == losses.confidence
    assert multibox_loss(predictions, targets, negatives_without_matches=2, divisor=8.0).confidence.item() == (
        pytest.approx(2 * log(2) / 8)
    )
