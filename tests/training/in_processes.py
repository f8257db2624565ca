"""Runs that one process and several are to end alike: `torchrun --nproc-per-node 2 in_processes.py FOLDER`.

But for one run the network has no BatchNorm: with it, what is learned of an image depends on those beside it in the
same process.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from multibox.data.augment import Augmentation
from multibox.data.sample import Dataset
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.detector import Detector
from multibox.presets import preset
from multibox.ssd import cpu
from multibox.training import RECIPES, TrainConfig, fit, train, validation
from multibox.training.trainer import Trainer

FIXED = {"augmentation": Augmentation(expand_probability=0.0, crop_probability=0.0, interpolations=("bilinear",))}
PAPER = TrainConfig(recipe="paper", batch_size=6, learning_rate=1e-3, workers=0, device="cpu", precision="fp32")


@dataclass
class Ran:
    """What one process has of a run."""

    losses: list[tuple[float, float, float]] = field(default_factory=list)
    """Localization, confidence, norm of the gradient of each step."""
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    found: list[list[np.ndarray]] = field(default_factory=list)
    """Boxes, labels and scores in each image of the last validation."""
    validated: dict[str, torch.Tensor] = field(default_factory=dict)
    """The weights that were then validated."""
    error: str = ""


def small_config():
    """`ssd256-tiny` on a quarter of its sides: the first four of its feature maps."""
    tiny = preset("ssd256-tiny", scales="voc")
    feature_maps = tuple(
        replace(
            feature_map,
            rows=cells,
            columns=cells,
            step=(64 / cells, 64 / cells),
            box_sizes=tuple((width / 4, height / 4) for width, height in feature_map.box_sizes),
        )
        for feature_map, cells in zip(tiny.feature_maps, (8, 4, 2, 1), strict=False)
    )
    return replace(tiny, name="small", height=64, width=64, extras=tiny.extras[:2], feature_maps=feature_maps)


def new_detector(*, batch_norm=False):
    detector = Detector.create(small_config(), CLASS_NAMES, seed=0)
    for module in [] if batch_norm else list(detector.network.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return detector


def without_objects(dataset, which):
    samples = [
        replace(sample, truth=sample.truth[np.zeros(len(sample.truth), bool)]) if index in which else sample
        for index, sample in enumerate(dataset)
    ]
    return Dataset("some empty", dataset.class_names, samples)


def one_is_gone(dataset):
    """The second image, which the second process looks at in a validation."""
    first, second, *others = dataset
    return replace(dataset, samples=[first, replace(second, image=Path("gone.png")), *others])


TRAIN, VAL = (synthetic_scenes(count, seed=count, height=64, width=64) for count in (13, 5))
FEW = Dataset("few", TRAIN.class_names, TRAIN.samples[:1])
NAN_AT = 3


def run(out, train_set, val_set, config, *, stop_at=None, resume=False, poisoned=None, scores=(), batch_norm=False):
    """One run, with an eye on its steps."""
    ran = Ran()
    step_of, predict, score, loss = Trainer.step, validation.predict, validation.score, cpu.multibox_loss
    recipes = dict(RECIPES)
    scores = list(scores)

    def watched_step(self, batch, *, learning_rate):
        if self.step_count == NAN_AT and poisoned == self._group.rank:
            cpu.multibox_loss = poisoned_loss
        step = step_of(self, batch, learning_rate=learning_rate)
        ran.losses.append(tuple(float(value) for value in step[:3]))
        return step

    def poisoned_loss(*args, **kwargs):
        losses = loss(*args, **kwargs)
        return losses._replace(localization=losses.localization * float("nan"))

    def watched_predict(detector, *args, **kwargs):
        ran.validated = {name: values.clone() for name, values in detector.network.state_dict().items()}
        found = predict(detector, *args, **kwargs)
        ran.found = [[each.boxes, each.labels, each.scores] for each in found or []]
        return found

    def scripted_score(*args, **kwargs):
        metrics = score(*args, **kwargs)
        return replace(metrics, ap=scores.pop(0)) if scores else metrics

    def on_progress(progress):
        if progress.step == stop_at:
            raise KeyboardInterrupt

    Trainer.step, validation.predict, validation.score = watched_step, watched_predict, scripted_score
    # without BatchNorm the network is not the one that its file describes: it cannot be loaded for the card
    finalize, fit.finalize = fit.finalize, lambda *args, **kwargs: None
    load, Detector.load = Detector.load, classmethod(lambda cls, path: detector)
    RECIPES["paper"] = replace(RECIPES["paper"], **FIXED)
    detector = new_detector(batch_norm=batch_norm)
    try:
        train(detector, train_set, val_set, config, out=out, on_progress=on_progress, resume=resume)
    except (ValueError, FileExistsError, KeyboardInterrupt) as error:
        ran.error = f"{type(error).__name__}: {error}"
    finally:
        Trainer.step, validation.predict, validation.score, fit.finalize = step_of, predict, score, finalize
        Detector.load = load
        cpu.multibox_loss = loss
        RECIPES["paper"] = recipes["paper"]
    ran.weights = {name: values.clone() for name, values in detector.network.state_dict().items()}
    return ran


LONG = replace(PAPER, steps=20, validate_every=5)
HALVES = replace(PAPER, steps=8, validate_every=1)
RUNS = {
    "plain": lambda out: run(out, TRAIN, VAL, LONG),
    "odd batch": lambda out: run(out, TRAIN, VAL, replace(LONG, batch_size=7)),
    # the first process has five images, the other four: parts of 2, 1, 1, 1 and of 1, 1, 1, 1
    "accumulated": lambda out: run(out, TRAIN, VAL, replace(LONG, batch_size=9, accumulate=4)),
    "without objects": lambda out: run(out, without_objects(TRAIN, {0, 1, 2, 3, 5, 8, 11}), VAL, LONG),
    "few images": lambda out: run(out, FEW, FEW, replace(LONG, batch_size=2)),
    "patience": lambda out: run(
        out, TRAIN, VAL, replace(PAPER, steps=40, validate_every=1, patience=2), scores=[0.5, 0.4, 0.3, 0.9, 0.9]
    ),
    "bad step": lambda out: run(out, TRAIN, VAL, LONG, poisoned=dist.get_world_size() - 1 if in_several() else 0),
    "one image for two": lambda out: run(out, TRAIN, VAL, replace(LONG, batch_size=1)),
    "there already": lambda out: run(out.with_name("plain"), TRAIN, VAL, LONG),
    "begun": lambda out: run(out, TRAIN, VAL, HALVES, stop_at=3),
    "taken up": lambda out: run(out, TRAIN, VAL, HALVES, resume=True),
    "other data": lambda out: run(out, TRAIN if dist.get_rank() == 0 else FEW, VAL, LONG),
    "unreadable": lambda out: run(out, TRAIN, one_is_gone(VAL), LONG),
    "batch norm": lambda out: run(out, TRAIN, VAL, LONG, batch_norm=True),
    "an image is gone": lambda out: run(out, one_is_gone(TRAIN), VAL, replace(LONG, max_unreadable=0.0)),
    "damaged": lambda out: run(out, TRAIN, VAL, HALVES, resume=True),
}


def in_several():
    return dist.is_initialized()


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    results = {}
    for name in sys.argv[2:] or RUNS:
        print(name, rank, flush=True)
        results[name] = vars(RUNS[name](folder / name))
        dist.barrier()
    torch.save(results, folder / f"process-{rank}.pt")
    dist.destroy_process_group()
