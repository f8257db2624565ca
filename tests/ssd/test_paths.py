"""The two ways through matching and loss, batched and image by image: the same results."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from multibox.default_boxes import make_default_boxes
from multibox.presets import preset
from multibox.ssd import cpu, loss, matching
from multibox.ssd.coder import center_to_corner
from multibox.ssd.network import Predictions
from tests.ssd.test_loss import CODER, double, padded, random_case
from tests.tolerances import assert_close

ROOT = Path(__file__).parents[2]
SSD300 = center_to_corner(torch.from_numpy(make_default_boxes(preset("ssd300-vgg16"))))


def crowded(random, *, batch, objects, grid):
    """Boxes with corners on a coarse grid, where equal overlaps abound, and padding rows among them."""
    low = random.integers(0, grid - 1, (batch, objects, 2))
    size = random.integers(1, grid - low)
    boxes = torch.from_numpy(np.concatenate([low, low + size], axis=2) / grid).float()
    return boxes, torch.from_numpy(random.random((batch, objects)) < 0.8)


@pytest.mark.parametrize("grid", [4, 16, 1000])
@pytest.mark.parametrize("objects", [0, 1, 2, 20, 50])
def test_both_ways_match_the_same_on_the_boxes_of_ssd300(objects, grid):
    random = np.random.default_rng([objects, grid])
    boxes, present = crowded(random, batch=3, objects=objects, grid=grid)
    for threshold in (0.0, 0.5):
        expected = cpu.match(boxes, present, SSD300, iou_threshold=threshold)
        assert torch.equal(matching.match(boxes, present, SSD300, iou_threshold=threshold), expected)


@pytest.mark.parametrize("objects, default_boxes", [(9, 5), (5, 9), (30, 30), (60, 20)])
def test_both_ways_match_the_same_where_most_objects_want_the_same_default_boxes(objects, default_boxes):
    random = np.random.default_rng([objects, default_boxes])
    for _ in range(20):
        boxes, present = crowded(random, batch=4, objects=objects, grid=3)
        table = crowded(random, batch=1, objects=default_boxes, grid=3)[0][0]
        assert torch.equal(matching.match(boxes, present, table), cpu.match(boxes, present, table))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_both_ways_mine_the_same_negatives(levels, share):
    """Equal losses abound with few levels; some losses are not a number, in images with and without matches."""
    random = np.random.default_rng([levels, int(100 * share)])
    for poisoned in (0, 5):
        losses = torch.from_numpy(random.integers(0, levels, (5, 300))).double()
        positive = torch.from_numpy(random.random((5, 300)) < share)
        losses[:, torch.from_numpy(random.permutation(300)[:poisoned])] = torch.nan
        for rule in ({"negatives_without_matches": 0}, {"negatives_without_matches": 7}):
            expected = loss.hard_negatives(losses, positive, negatives_per_positive=3.0, **rule)
            assert torch.equal(cpu.hard_negatives(losses, positive, negatives_per_positive=3.0, **rule), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch, most_objects", [(0, 3), (1, 1), (3, 0), (6, 5), (3, 40)])
@pytest.mark.parametrize("class_weights", [None, torch.tensor([1.0, 0.25, 2.0, 4.0, 0.5])], ids=["plain", "weighted"])
def test_both_ways_give_the_same_targets_losses_and_gradients(batch, most_objects, dtype, class_weights):
    """In float32 and bfloat16 the targets are equal, and gradients as far apart as their rounding."""
    random = np.random.default_rng([batch, most_objects])
    boxes, labels, default_boxes, *predicted = random_case(
        random, batch=batch, most_objects=most_objects, default_boxes=30, classes=4
    )
    predicted[1] = (np.array(predicted[1]).reshape(batch, 30, 5) / 2).round()  # equal losses abound
    predicted[0] = np.array(predicted[0]).reshape(batch, 30, 4)

    def results(make_targets, multibox_loss):
        padded_boxes, padded_labels = padded(boxes, labels)
        targets = make_targets(padded_boxes.float(), padded_labels, double(default_boxes), CODER)
        predictions = Predictions(*(torch.from_numpy(values).to(dtype).requires_grad_() for values in predicted))
        losses = multibox_loss(predictions, targets, negatives_without_matches=2, class_weights=class_weights)
        losses.total.backward()
        return targets, losses, [values.grad for values in predictions]

    targets, losses, gradients = results(cpu.make_targets, cpu.multibox_loss)
    others, *batched = results(matching.make_targets, loss.multibox_loss)
    assert torch.equal(targets.labels, others.labels) and torch.equal(targets.offsets, others.offsets)
    assert_close(batched, [losses, gradients])


def learn(boxes, labels, default_boxes, offsets, logits):
    targets = matching.make_targets(boxes, labels, default_boxes, CODER)
    weights = torch.full(logits.shape[-1:], 2.0, device=logits.device)
    losses = loss.multibox_loss(
        Predictions(offsets, logits), targets, negatives_without_matches=1, class_weights=weights
    )
    losses.total.backward()
    return losses.total.detach()


def tensors(case, device):
    boxes, labels, *rest = case
    values = [*padded(boxes, labels), *map(double, rest)]
    return [value.to(device).requires_grad_(place > 2) for place, value in enumerate(values)]


@pytest.mark.gpu
def test_targets_and_loss_on_a_gpu_do_not_wait_for_it():
    case = random_case(np.random.default_rng(1), batch=4, most_objects=5, default_boxes=60, classes=3)
    expected = learn(*tensors(case, "cpu"))
    learn(*tensors(case, "cuda"))  # what is set up only once may wait
    arguments = tensors(case, "cuda")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        total = learn(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_close(total.cpu(), expected)


COMPILED = """
import sys, torch
torch.set_default_dtype(torch.float64)
from multibox.ssd.coder import BoxCoder
from multibox.ssd.loss import multibox_loss
from multibox.ssd.matching import make_targets
from multibox.ssd.network import Predictions
from tests.tolerances import assert_close

def losses(boxes, labels, default_boxes, offsets, logits):
    targets = make_targets(boxes, labels, default_boxes, coder)
    return multibox_loss(Predictions(offsets, logits), targets, negatives_without_matches=1)

coder = BoxCoder(0.1, 0.2)  # a run makes it once
torch.manual_seed(0)
low = torch.rand(3, 4, 2) * 0.7
boxes = torch.cat([low, low + 0.1 + 0.2 * torch.rand(3, 4, 2)], dim=-1)
labels = torch.tensor([[0, 1, 2, 1], [2, -1, -1, -1], [-1, -1, -1, -1]])
default_boxes = 0.1 + 0.8 * torch.rand(50, 4)
predicted = torch.randn(3, 50, 4, requires_grad=True), torch.randn(3, 50, 5, requires_grad=True)
compiled = torch.compile(losses, fullgraph=True, backend=sys.argv[1])
answers = []
for function in (losses, compiled):
    answer = function(boxes, labels, default_boxes, *predicted)
    answers.append((answer, torch.autograd.grad(answer.total, predicted)))
assert_close(answers[1], answers[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_targets_and_loss_compile_to_one_graph(backend):
    """In a process of its own, since the checks of shapes in the tests are nothing to compile."""
    subprocess.run([sys.executable, "-c", COMPILED, backend], check=True, cwd=ROOT)
