"""Distillation is the loops below, asks nothing of a student that equals its teacher, and moves any other to it."""

from math import exp, log

import numpy as np
import pytest
import torch

from multibox.ssd.distillation import distillation_loss
from multibox.ssd.network import Predictions
from tests.ssd.test_loss import smooth_l1
from tests.tolerances import assert_close


def random_predictions(random, *, batch=2, default_boxes=30, classes=3, dtype=torch.float64):
    logits = random.normal(0, 2, (batch, default_boxes, classes + 1))
    logits[..., 0] += 3  # most default boxes are background
    offsets = random.normal(0, 2, (batch, default_boxes, 4))
    return Predictions(*(torch.from_numpy(values).to(dtype) for values in (offsets, logits)))


def softmax(logits, temperature):
    powers = [exp(value / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def loops(student, teacher, *, divisor, least_score, temperature):
    """The definition, in loops over plain numbers."""
    total, chosen = 0.0, 0
    for image in range(len(student.logits)):
        for place in range(student.logits.shape[1]):
            ours, theirs = (each.logits[image, place].tolist() for each in (student, teacher))
            if softmax(theirs, 1.0)[0] > 1 - least_score:
                continue
            chosen += 1
            p, q = softmax(theirs, temperature), softmax(ours, temperature)
            total += temperature**2 * sum(a * log(a / b) for a, b in zip(p, q, strict=True))
            difference = (student.offsets - teacher.offsets)[image, place].tolist()
            total += sum(map(smooth_l1, difference))
    return total / max(divisor, 1), chosen


@pytest.mark.parametrize("least_score", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("divisor", [0.0, 7.0])
def test_the_loss_is_the_loops(least_score, temperature, divisor):
    random = np.random.default_rng(1)
    student, teacher = (random_predictions(random) for _ in range(2))
    rules = {"divisor": divisor, "least_score": least_score, "temperature": temperature}
    expected, chosen = loops(student, teacher, **rules)
    assert 0 < chosen <= 60 and (chosen == 60) == (least_score == 0)
    assert_close(distillation_loss(student, teacher, **rules).item(), expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_equal_networks_have_no_loss_and_no_gradient(temperature):
    teacher = random_predictions(np.random.default_rng(2))
    student = Predictions(*(values.clone().requires_grad_() for values in teacher))
    loss = distillation_loss(student, teacher, divisor=1.0, temperature=temperature)
    loss.backward()
    assert loss == 0
    assert (student.offsets.grad == 0).all()
    torch.testing.assert_close(student.logits.grad, torch.zeros_like(student.logits), rtol=0, atol=1e-15)


def test_a_constant_on_all_logits_of_a_default_box_changes_nothing():
    random = np.random.default_rng(3)
    student, teacher = (random_predictions(random) for _ in range(2))
    shifted = student._replace(logits=student.logits + torch.linspace(-5, 5, 30, dtype=torch.float64)[:, None])
    assert_close(*(distillation_loss(each, teacher, divisor=3.0) for each in (student, shifted)))


def test_one_step_moves_the_student_to_the_teacher_where_it_may_see_an_object_and_nowhere_else():
    random = np.random.default_rng(4)
    student, teacher = (random_predictions(random) for _ in range(2))
    student = Predictions(*(values.requires_grad_() for values in student))
    loss = distillation_loss(student, teacher, divisor=1.0)
    loss.backward()
    moved = Predictions(*(values.detach() - 0.05 * values.grad for values in student))
    assert distillation_loss(moved, teacher, divisor=1.0) < loss
    chosen = teacher.logits.softmax(-1)[..., 0] <= 0.9
    assert 0 < chosen.sum() < chosen.numel()
    for before, after in zip(student, moved, strict=True):
        assert torch.equal(before[~chosen], after[~chosen])
    nearer = (moved.offsets - teacher.offsets).abs() < (student.offsets - teacher.offsets).abs()
    assert nearer[chosen].all()


def test_a_step_is_the_same_in_parts():
    random = np.random.default_rng(5)
    student, teacher = (random_predictions(random, batch=6) for _ in range(2))
    parts = zip(*(values.split([1, 3, 2]) for values in (*student, *teacher)), strict=True)
    summed = sum(distillation_loss(Predictions(*part[:2]), Predictions(*part[2:]), divisor=5.0) for part in parts)
    assert_close(summed, distillation_loss(student, teacher, divisor=5.0))


def test_the_teacher_gets_no_gradient_and_half_precision_becomes_single():
    random = np.random.default_rng(6)
    student, teacher = (random_predictions(random, dtype=torch.bfloat16) for _ in range(2))
    loss = distillation_loss(student, teacher, divisor=torch.tensor(2.0))
    assert loss.dtype == torch.float32
    same = distillation_loss(*(Predictions(*(v.float() for v in each)) for each in (student, teacher)), divisor=2.0)
    assert loss == same


@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("values", ["offsets", "logits"])
def test_a_number_that_is_none_is_not_hidden(whose, values):
    random = np.random.default_rng(7)
    both = {name: random_predictions(random) for name in ("student", "teacher")}
    place = (both["teacher"].logits.softmax(-1)[..., 0] <= 0.9).nonzero()[0]
    getattr(both[whose], values)[place[0], place[1], 0] = torch.nan
    assert distillation_loss(both["student"], both["teacher"], divisor=1.0).isnan()


def test_a_teacher_that_sees_nothing_teaches_nothing():
    random = np.random.default_rng(8)
    student, teacher = (random_predictions(random) for _ in range(2))
    teacher.logits[..., 0] += 100
    student = Predictions(*(values.requires_grad_() for values in student))
    loss = distillation_loss(student, teacher, divisor=0.0)
    loss.backward()
    assert loss == 0 and (student.logits.grad == 0).all() and (student.offsets.grad == 0).all()


@pytest.mark.gpu
def test_distillation_does_not_wait_for_a_gpu():
    random = np.random.default_rng(9)
    both = [random_predictions(random) for _ in range(2)]
    expected = distillation_loss(*both, divisor=torch.tensor(4.0))
    on_device = [Predictions(*(values.cuda() for values in each)) for each in both]
    divisor = torch.full((), 4.0, device="cuda")
    distillation_loss(*on_device, divisor=divisor)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = distillation_loss(*on_device, divisor=divisor)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_close(found.cpu(), expected)
