"""Try what might make boxes tighter: other localization losses, and a neck, each beside the paper's loss.

    taskset -c 0 python -m benchmarks.localization run --data BCCD --epochs 16 --out OUT
    python -m benchmarks.localization table OUT

The variants (`--variants`), on `ssd256-tiny` from random weights with the defaults of `multibox train`:

    smooth-l1    the paper's: smooth L1 with its threshold at 1, and the weight 1
    weight-W     the same, with W times the weight
    beta-B       the same, with the threshold at B: the loss is linear from there on, with the slope 1
    ciou-W       W times the CIoU loss of the decoded boxes instead (Zheng et al. 2020)
    neck         a top-down path: each of the backbone's maps gets the next smaller one, enlarged, through a 1x1
                 convolution whose weights begin at zero

All learn from the split `train`, else `trainval`, for the same epochs without validation, and their last weights are
scored on `val`, else `test`, by COCO's rule. `--images` takes so many training images, evenly spaced. For each seed
`smooth-l1` comes first. The others are compared with it by a paired bootstrap over the images.

Each run leaves OUT/NAME.json and OUT/NAME.npz with its detections; a run whose file is there already is skipped. The
command can therefore be stopped and started again.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import complete_box_iou_loss

import multibox
from benchmarks import runs
from multibox.data.sample import Dataset
from multibox.default_boxes import make_default_boxes
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.evaluation.bootstrap import compare
from multibox.evaluation.coco_matches import match_by_class
from multibox.evaluation.evaluate import evaluate
from multibox.presets import preset
from multibox.ssd import cpu
from multibox.ssd.backbones import BACKBONES, Backbone
from multibox.ssd.backbones.tiny import tiny
from multibox.ssd.coder import BoxCoder
from multibox.ssd.loss import Losses
from multibox.ssd.matching import Targets
from multibox.ssd.network import Predictions

PAPER = "smooth-l1"
VARIANTS = (PAPER, "weight-2", "weight-4", "beta-0.33", "beta-0.1", "ciou-5", "ciou-16", "neck")

FIELDS = ("boxes", "scores", "labels")

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Sum of a localization loss over default boxes, given their offsets, the targets, and the default boxes."""


def main(given: Sequence[str] | None = None) -> None:
    parser, run = runs.make_parser("localization", __doc__)
    run.add_argument("--epochs", type=float, default=16.0)
    run.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--images", type=int, help="number of training images")
    run.add_argument("--resamples", type=int, default=1000, help="drawn sets of the bootstrap")
    arguments = parser.parse_args(given)
    if arguments.command == "run":
        run_all(arguments)
        arguments.out = [arguments.out]
    print_table(arguments.out)


def run_all(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    train_set = runs.read(arguments.data, None, ("train", "trainval"), arguments.images)
    test_set = runs.read(arguments.data, None, ("val", "test")).with_classes(train_set.class_names)
    truths = [sample.truth for sample in test_set]
    paper: Sequence[Detections] = ()
    for seed in arguments.seeds:
        for variant in (PAPER, *(each for each in arguments.variants if each != PAPER)):
            name = runs.file_name(arguments.data.name, variant, f"{arguments.epochs:g}", "epochs", "seed", seed)
            file = arguments.out / f"{name}.json"
            if file.exists():
                if variant == PAPER:
                    paper = load_detections(file.with_suffix(".npz"), train_set.class_names)
                continue
            trained = train(variant, train_set, epochs=arguments.epochs, seed=seed)
            metrics = evaluate(trained, test_set, progress=False)
            if variant == PAPER:
                paper = metrics.detections
            compared = compare(
                *(match_by_class(truths, found, train_set.class_names) for found in (paper, metrics.detections)),
                images=len(test_set),
                class_names=train_set.class_names,
                resamples=arguments.resamples,
            )
            result = {
                "data": arguments.data.name,
                "variant": variant,
                "epochs": arguments.epochs,
                "seed": seed,
                "images": len(train_set),
                "test_images": len(test_set),
                "ap": metrics.ap,
                "ap50": metrics.ap50,
                "ap75": metrics.ap75,
                "difference": str(compared.ap) if variant != PAPER else "",
                **runs.machine(),
            }
            arguments.out.mkdir(parents=True, exist_ok=True)
            save_detections(file.with_suffix(".npz"), metrics.detections)
            runs.write_result(file, result)
            print(f"{name}: AP {100 * result['ap']:.1f} {result['difference']}", flush=True)


def train(variant: str, train_set: Dataset, *, epochs: float, seed: int) -> Detector:
    """Returns the detector that was trained in this way."""
    config = preset("ssd256-tiny")
    if variant == "neck":
        config = replace(config, backbone="tiny-neck")
    coder = BoxCoder(config.center_variance, config.size_variance, config.max_log_size)
    values = multibox.TrainConfig(
        epochs=epochs, validate_every=1e6, precision="fp32", workers=0, device="cpu", seed=seed
    )
    with localization_loss(variant, coder), neck(), tempfile.TemporaryDirectory() as folder:
        detector = Detector.create(config, train_set.class_names, seed=seed)
        return multibox.train(detector, train_set, None, values, out=Path(folder) / "run")


def distance_of(variant: str, coder: BoxCoder) -> Distance | None:
    """Returns the localization loss of a variant; None for the paper's."""
    kind, _, value = variant.rpartition("-")
    if kind == "weight":
        return lambda offsets, targets, _: float(value) * F.smooth_l1_loss(offsets, targets, reduction="sum")
    if kind == "beta":
        return lambda offsets, targets, _: F.smooth_l1_loss(offsets, targets, reduction="sum", beta=float(value))
    if kind == "ciou":
        return lambda offsets, targets, boxes: (
            float(value)
            * complete_box_iou_loss(coder.decode(offsets, boxes), coder.decode(targets, boxes), reduction="sum")
        )
    return None


@contextmanager
def localization_loss(variant: str, coder: BoxCoder) -> Iterator[None]:
    """Opens a context in which training on a CPU has the localization loss of a variant."""
    distance, paper = distance_of(variant, coder), cpu.multibox_loss
    if distance is None:
        yield
        return
    table = torch.from_numpy(make_default_boxes(preset("ssd256-tiny")))

    def multibox_loss(predictions: Predictions, targets: Targets, *, divisor: Tensor, **rules: Any) -> Losses:
        losses = paper(predictions, targets, divisor=divisor, **rules)
        matched = (targets.labels > 0).flatten().nonzero()[:, 0]
        offsets = predictions.offsets.flatten(0, 1).index_select(0, matched)
        total = distance(offsets, targets.offsets.flatten(0, 1)[matched], table[matched % len(table)])
        return losses._replace(localization=total / divisor.clamp(min=1))

    cpu.multibox_loss = multibox_loss  # type: ignore[assignment]
    try:
        yield
    finally:
        cpu.multibox_loss = paper


class Neck(nn.Module):
    """A backbone whose maps each get the next smaller one, through a convolution whose weights begin at zero."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.inner = backbone.network
        channels = {name: source.channels for name, source in backbone.sources.items()}
        names = [name for name, source in backbone.sources.items() if source.stride >= 8]
        self.above = dict(pairwise(names))
        self.lateral = nn.ModuleDict(
            {name: nn.Conv2d(channels[above], channels[name], 1) for name, above in self.above.items()}
        )
        for convolution in self.lateral.children():
            for parameter in convolution.parameters():
                nn.init.zeros_(parameter)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.inner(inputs)
        for name in reversed(self.above):
            smaller = self.lateral[name](maps[self.above[name]])
            maps[name] = maps[name] + F.interpolate(smaller, maps[name].shape[-2:], mode="nearest")
        return maps


@contextmanager
def neck() -> Iterator[None]:
    """Opens a context in which there is a backbone `tiny-neck`."""
    backbones = cast("dict[str, Callable[..., Backbone]]", BACKBONES)

    def with_neck(image_channels: int = 3) -> Backbone:
        backbone = tiny(image_channels)
        return backbone._replace(network=Neck(backbone))

    backbones["tiny-neck"] = with_neck
    try:
        yield
    finally:
        del backbones["tiny-neck"]


def save_detections(file: Path, detections: Sequence[Detections]) -> None:
    joined = {name: np.concatenate([getattr(each, name) for each in detections]) for name in FIELDS}
    np.savez_compressed(file, counts=[len(each) for each in detections], **joined)  # type: ignore[arg-type]


def load_detections(file: Path, class_names: Sequence[str]) -> list[Detections]:
    with np.load(file) as saved:
        ends = np.cumsum(saved["counts"])[:-1]
        parts = zip(*(np.split(saved[name], ends) for name in FIELDS), strict=True)
    return [
        Detections(boxes, scores, labels, np.full(len(boxes), -1), tuple(class_names))
        for boxes, scores, labels in parts
    ]


def print_table(folders: Sequence[Path]) -> None:
    """Prints the mean and the spread over the seeds of each variant, and its difference from the paper's loss."""
    results = runs.read_results(folders)
    runs.print_row("data", "epochs", "variant", "AP", "AP50", "AP75", "difference in AP by seed, with its interval")
    runs.print_row("---", "---:", "---", "---:", "---:", "---:", "---:")
    tasks = sorted({(each["data"], each["epochs"]) for each in results})
    for data, epochs in tasks:
        of_task = [each for each in results if (each["data"], each["epochs"]) == (data, epochs)]
        means = {name: statistics.mean(_values(of_task, name, "ap")) for name in {each["variant"] for each in of_task}}
        for variant in sorted(means, key=means.__getitem__, reverse=True):
            cells = [runs.spread(_values(of_task, variant, number)) for number in ("ap", "ap50", "ap75")]
            differences = [each["difference"] for each in of_task if each["variant"] == variant]
            runs.print_row(data, f"{epochs:g}", variant, *cells, "; ".join(filter(None, differences)))
    runs.print_machines(results)


def _values(results: Sequence[dict[str, Any]], variant: str, number: str) -> list[float]:
    return [each[number] for each in results if each["variant"] == variant]


if __name__ == "__main__":
    main()
