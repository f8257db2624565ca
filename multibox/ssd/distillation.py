"""Distillation, default box by default box: a student learns the outputs of a larger SSD with the same default boxes.

Soft targets are those of Hinton et al. 2015 ("Distilling the Knowledge in a Neural Network"). Chen et al. 2017
("Learning Efficient Object Detection Models with Knowledge Distillation") learn a detector's classes and offsets so.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multibox.ssd.network import Predictions


def distillation_loss(
    student: Predictions,
    teacher: Predictions,
    *,
    divisor: Float[Tensor, ""] | float,
    least_score: float = 0.1,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Returns how far the student is from the teacher in the default boxes where the teacher may see an object.

    Those are the default boxes whose background has a probability of at most `1 - least_score` for the teacher. All
    others are left to the labels: about the mined negatives among them the teacher says what the labels say, and
    thousands of easy negatives would outweigh the objects. For each chosen default box, the loss is the
    Kullback-Leibler divergence of the student's class probabilities from the teacher's, plus the smooth L1 distance
    between the offsets of both.

    Args:
        student: Output of the network that learns.
        teacher: Output of the teacher for the same images, with the classes in the same order.
        divisor: N, the number of matched default boxes that `multibox_loss` divides by; the loss is divided by it if it
            is above 1. The losses of the parts of a batch add up to the loss of the whole.
        least_score: Smallest probability of an object, whatever its class, that the teacher must give a default box.
        temperature: Divisor of the logits. Above 1, the classes that the teacher thinks less likely count more. The
            divergence is multiplied by its square, which keeps the size of the gradients (Hinton et al., section 2).
    """
    offsets, logits = (values.to(torch.promote_types(values.dtype, torch.float32)) for values in student)
    wanted_offsets, wanted_logits = (values.to(logits.dtype) for values in teacher)
    # written so that a probability that is not a number is chosen, and shows in the loss
    chosen = ~(wanted_logits.softmax(dim=-1)[..., 0] > 1 - least_score)
    if logits.device.type == "cpu":  # a GPU would have to wait for the number of rows, and is fast enough without it
        rows = chosen.flatten().nonzero()[:, 0]
        logits, wanted_logits, offsets, wanted_offsets, chosen = (
            values.flatten(0, 1).index_select(0, rows)
            for values in (logits, wanted_logits, offsets, wanted_offsets, chosen)
        )
    divergence = F.kl_div(
        (logits / temperature).log_softmax(dim=-1),
        (wanted_logits / temperature).log_softmax(dim=-1),
        reduction="none",
        log_target=True,
    ).sum(dim=-1)
    distance = F.smooth_l1_loss(offsets, wanted_offsets, reduction="none").sum(dim=-1)
    losses = torch.where(chosen, divergence * temperature**2 + distance, 0.0)
    return losses.sum() / torch.as_tensor(divisor).clamp(min=1)
