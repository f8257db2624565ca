"""Explain names that other tools have for the arguments and methods of this package."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import fields
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

ARGUMENTS = {
    "images": ("source", "sources", "image", "img", "inputs"),
    "score_threshold": ("conf", "conf_thres", "confidence", "threshold", "score", "score_thresh", "box_score_thresh"),
    "iou_threshold": ("iou", "iou_thres", "nms", "nms_thresh", "nms_threshold", "overlap"),
    "max_detections": ("max_det", "limit", "topk", "top_k", "detections_per_img"),
    "class_agnostic": ("agnostic", "agnostic_nms"),
    "merge": ("voting", "box_voting", "wbf", "weighted"),
    "class_names": ("classes", "names", "filter_classes"),
    "batch_size": ("batch", "bs", "batchsize"),
    "progress": ("verbose",),
    "detector": ("model",),
    "dataset": ("data", "val_set", "val_data"),
    "train_set": ("dataset", "train_data"),
    "out": ("output", "output_dir", "save_dir", "project", "name"),
    "learning_rate": ("lr", "lr0", "base_lr"),
    "epochs": ("epoch", "num_epochs", "max_epochs"),
    "workers": ("num_workers",),
    "patience": ("early_stopping",),
    "precision": ("amp", "half", "fp16", "bf16"),
}
"""Arguments of ours, and what other tools call them."""

ELSEWHERE = {
    "the size of the input is the detector's: multibox.Detector.create(preset, class_names, height=320, width=320)": (
        *("imgsz", "img_size", "image_size", "input_size", "size", "height", "width"),
    ),
    "the device is the detector's: multibox.load(model, device='cuda'), or detector.to('cuda')": (
        *("device", "gpu", "gpus", "cuda"),
    ),
    "save the drawing: found.draw().save('found.png')": ("save",),
    "show the drawing: found.show()": ("show", "view_img"),
}
"""How a detector does what other tools have an argument for."""

METHODS = {
    "detector.detect(images)": ("predict", "infer", "inference", "forward"),
    "multibox.evaluate(detector, data)": ("val", "validate", "evaluate", "eval", "test"),
    "multibox.train(detector, data, out=folder)": ("train", "fit", "finetune"),
    "detector.class_names": ("names", "classes", "labels"),
    "detector.to('cuda')": ("cuda", "gpu"),
    "detector.to('cpu')": ("cpu",),
}
"""What a user of a detector writes, and what other tools call it."""


def explains_arguments(
    config: type[Any] | None = None,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Returns a decorator. A call of the function with an unknown argument then says what it is called here.

    An `__init__` is called by the name of its class.

    Args:
        config: The dataclass of the function's argument `config`.
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        known = [name for name in inspect.signature(function).parameters if name != "self"]

        @wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            unknown = next((name for name in kwargs if name not in known), None)
            if unknown is not None:
                raise unknown_argument(function.__qualname__.removesuffix(".__init__"), unknown, known, config)
            return function(*args, **kwargs)

        return call

    return decorate


def unknown_argument(function: str, name: str, known: Collection[str], config: type[Any] | None = None) -> TypeError:
    """Returns the error of a call with an argument that the function does not have.

    Args:
        function: Name of the function.
        name: The unknown argument.
        known: Names of the arguments that the function has.
        config: The dataclass of the function's argument `config`.
    """
    values = () if config is None else [field.name for field in fields(config)]
    candidates = [name, *(ours for ours, theirs in ARGUMENTS.items() if name in theirs)]
    explained = [f"it is called {ours} here" for ours in candidates if ours in known]
    explained += [
        f"it is a value of the config: config=multibox.{config.__name__}({ours}=...)"
        for ours in candidates
        if config is not None and ours in values
    ]
    explained += [text for text, words in ELSEWHERE.items() if name in words]
    explained += [f"did you mean {near}?" for near in get_close_matches(name, known, n=1)]
    explained += [f"it has {', '.join(known)}"]
    return TypeError(f"{function} has no argument '{name}'; {explained[0]}")


def unknown_attribute(name: str) -> AttributeError:
    """Returns the error of a detector that is asked for an attribute that it does not have."""
    for ours, theirs in METHODS.items():
        if name in theirs:
            return AttributeError(f"a detector has no '{name}'; here it is {ours}", name=name)
    return AttributeError(f"'Detector' object has no attribute '{name}'", name=name)
