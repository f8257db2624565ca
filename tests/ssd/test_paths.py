"""The two ways through matching and loss, image by image and all at once: the same results, whatever the device."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from multibox.ssd.loss import make_targets, multibox_loss
from multibox.ssd.network import Predictions
from tests.ssd.test_loss import CODER, padded, random_case


def take(patch, image_by_image):
    for module in ("matching", "loss"):
        patch.setattr(f"multibox.ssd.{module}.image_by_image", lambda values: image_by_image)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch, most_objects", [(0, 3), (1, 1), (3, 0), (6, 5), (3, 40)])
def test_both_paths_give_the_same(batch, most_objects, dtype, monkeypatch):
    random = np.random.default_rng([batch, most_objects])
    boxes, labels, default_boxes, *predicted = random_case(
        random, batch=batch, most_objects=most_objects, default_boxes=30, classes=4
    )
    predicted[1] = (np.array(predicted[1]).reshape(batch, 30, 5) / 2).round()  # equal losses abound
    predicted[0] = np.array(predicted[0]).reshape(batch, 30, 4)

    def results(image_by_image):
        take(monkeypatch, image_by_image)
        targets = make_targets(*padded(boxes, labels), torch.tensor(default_boxes), CODER)
        predictions = Predictions(*(torch.from_numpy(values).to(dtype).requires_grad_() for values in predicted))
        losses = multibox_loss(predictions, targets, negatives_without_matches=2)
        losses.total.backward()
        return targets, losses, [values.grad for values in predictions]

    targets, *one = results(True)
    others, *all_at_once = results(False)
    assert torch.equal(targets.labels, others.labels) and torch.equal(targets.offsets, others.offsets)
    torch.testing.assert_close(one, all_at_once, rtol=1e-6 if dtype == torch.float32 else 0.02, atol=1e-6)


def learn(boxes, labels, default_boxes, offsets, logits):
    targets = make_targets(boxes, labels, default_boxes, CODER)
    losses = multibox_loss(Predictions(offsets, logits), targets, negatives_without_matches=1)
    losses.total.backward()
    return losses.total.detach()


def tensors(case, device):
    boxes, labels, *rest = case
    values = [*padded(boxes, labels), *map(torch.tensor, rest)]
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
    torch.testing.assert_close(total.cpu(), expected)


COMPILED = """
import sys, torch
from multibox.ssd.coder import BoxCoder
from multibox.ssd.loss import make_targets, multibox_loss
from multibox.ssd.network import Predictions

def losses(boxes, labels, default_boxes, offsets, logits):
    targets = make_targets(boxes, labels, default_boxes, BoxCoder(0.1, 0.2))
    return multibox_loss(Predictions(offsets, logits), targets, negatives_without_matches=1)

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
torch.testing.assert_close(answers[1], answers[0], rtol=1e-5, atol=1e-6)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_targets_and_loss_compile_to_one_graph(backend):
    """In a process of its own, since the checks of shapes in the tests are nothing to compile."""
    subprocess.run([sys.executable, "-c", COMPILED, backend], check=True)
