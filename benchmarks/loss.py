"""Times matching and loss, forward and backward: 8 images, 8,732 default boxes, 20 classes.

On a CPU this is `multibox.ssd.cpu`, as in training.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torchvision.ops import box_iou

from benchmarks.networks import theirs
from benchmarks.timing import Comparison, Settings, compare, peak_memory
from multibox.default_boxes import make_default_boxes
from multibox.presets import preset
from multibox.ssd import cpu, loss, matching
from multibox.ssd.coder import BoxCoder, center_to_corner
from multibox.ssd.network import Predictions

SIDE, CLASSES = 300, 20


def measure(settings: Settings) -> Iterator[Comparison]:
    batch = 2 if settings.quick else (settings.batch_sizes or (8,))[0]
    model = theirs("ssdlite320-mobilenetv3", classes=CLASSES)  # has the loss of SSD300 and is faster to create
    for objects in (1,) if settings.quick else (1, 20, 50):
        torch.manual_seed(0)
        center, size = torch.rand(batch, objects, 2), torch.empty(batch, objects, 2).uniform_(0.1, 0.6)
        boxes = torch.cat([center - size / 2, center + size / 2], dim=2).clamp(0, 1).to(settings.device)
        labels = torch.randint(CLASSES, (batch, objects), device=settings.device)
        default_boxes = torch.from_numpy(make_default_boxes(preset("ssd300-vgg16"))).to(settings.device)
        offsets = torch.randn(batch, len(default_boxes), 4, device=settings.device, requires_grad=True)
        logits = torch.randn(batch, len(default_boxes), CLASSES + 1, device=settings.device, requires_grad=True)
        variants = {
            "torchvision": _theirs(model, offsets, logits, boxes, labels, default_boxes),
            "multibox": _ours(offsets, logits, boxes, labels, default_boxes),
        }
        totals = [f"{run().item():.4f} ({name})" for name, run in variants.items()]
        yield compare(
            f"Matching and loss, {batch} images, objects an image: {objects}",
            variants,
            settings,
            rounds=15,
            warm_up=2,
            unit="batch",
            images=0,
            extras={name: {"peak MiB": peak_memory(run, device=settings.device)} for name, run in variants.items()},
            notes=[f"Losses: {', '.join(totals)}. Objects that share their best default box are matched differently."],
        )


def _ours(
    offsets: Tensor, logits: Tensor, boxes: Tensor, labels: Tensor, default_boxes: Tensor
) -> Callable[[], Tensor]:
    coder = BoxCoder(center_variance=0.1, size_variance=0.2)
    on_cpu = offsets.device.type == "cpu"
    make_targets = cpu.make_targets if on_cpu else matching.make_targets
    multibox_loss = cpu.multibox_loss if on_cpu else loss.multibox_loss

    def run() -> Tensor:
        targets = make_targets(boxes, labels, default_boxes, coder)
        total = multibox_loss(Predictions(offsets, logits), targets).total
        total.backward()
        offsets.grad = logits.grad = None
        return total.detach()

    return run


def _theirs(
    model: torch.nn.Module, offsets: Tensor, logits: Tensor, boxes: Tensor, labels: Tensor, default_boxes: Tensor
) -> Callable[[], Tensor]:
    anchors = center_to_corner(default_boxes) * SIDE
    targets = [{"boxes": each * SIDE, "labels": own + 1} for each, own in zip(boxes, labels, strict=True)]

    def run() -> Tensor:
        # as in the model's `forward`
        matched = [model.proposal_matcher(box_iou(target["boxes"], anchors)) for target in targets]
        outputs = {"bbox_regression": offsets, "cls_logits": logits}
        total = sum(model.compute_loss(targets, outputs, [anchors] * len(targets), matched).values())
        total.backward()
        offsets.grad = logits.grad = None
        return total.detach()

    return run
