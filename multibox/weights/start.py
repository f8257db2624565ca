"""The file with weights that a new detector's backbone starts from. Its keys show whose names they are."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multibox.files import file_sha256
from multibox.messages import quoted, shortened
from multibox.presets import PRESETS
from multibox.weights.backbone_names import REDUCED_TAIL, is_classifier, named_as_ours, our_names
from multibox.weights.convert import convert_weights
from multibox.weights.converters.caffe import is_caffemodel, read_vgg16
from multibox.weights.converters.layers import Tensors
from multibox.weights.converters.other_files import describe_other_file
from multibox.weights.converters.state_dict import StateDict, read_state_dicts
from multibox.weights.converters.tflite import is_tflite
from multibox.weights.file import is_weights_file, load_weights
from multibox.weights.imagenet import ENTRIES, PretrainedBackbone, entry_pixels, torchvision_hash
from multibox.weights.published import HUB, PUBLISHED

Shapes = Mapping[str, tuple[int, ...]]

_EXPECTED = "start_from takes 'imagenet' or a file with the weights of a backbone"

_DETECTOR_PARTS = ("extras.", "offsets.", "logits.", "norm.", "default_boxes")
"""Beginnings of the keys that our detectors have beside those of their backbone."""


class _Fit(NamedTuple):
    """A state dict as the backbone has it.

    Attributes:
        tensors: Tensors that have a place in the backbone, by its own keys.
        problems: What does not fit: the key in the file, and what is wrong with it.
    """

    tensors: dict[str, np.ndarray]
    problems: list[str]


def check_start(start_from: str | os.PathLike[str]) -> None:
    """Checks that this is `imagenet` or a file.

    Raises:
        ValueError: It is the name of a model, or a folder.
        FileNotFoundError: There is no such file.
    """
    text, path = os.fspath(start_from), Path(start_from)
    if text == "imagenet" or path.is_file():
        return
    if text in PRESETS or text in PUBLISHED or text.startswith((HUB, "timm/")):
        raise ValueError(f"{_EXPECTED}; {quoted(text)} is a model: --model {shortened(text)}")
    if path.is_dir():
        best = path / "best.safetensors"
        hint = f"; did you mean '{best}'?" if best.is_file() else ""
        raise ValueError(f"{_EXPECTED}; {quoted(text)} is a folder{hint}")
    if get_close_matches(text.lower(), ["imagenet"]):
        raise ValueError(f"{_EXPECTED}, not {quoted(text)}; did you mean 'imagenet'?")
    raise FileNotFoundError(
        f"{shortened(text)}: there is no such file of weights to start from, and it is not 'imagenet'"
    )


def read_start(path: str | os.PathLike[str], backbone: str, shapes: Shapes) -> PretrainedBackbone:
    """Returns the weights of a backbone in a file.

    The file is a weights file of ours, of any detector on this backbone, or holds a state dict of PyTorch. Its keys may
    be those of the backbone or of one of our detectors, or those of torchvision, timm or efficientnet_lite_pytorch,
    with or without the layers that classify images. All other tensors must be those of the backbone. VGG-16 may also be
    in a file of Caffe, as the authors' start is.

    The mean and scale of the pixels are known for our own files and for torchvision's, and `None` for others.

    Args:
        path: The file.
        backbone: Name of the backbone, or `timm/NAME`.
        shapes: Shapes of the backbone's tensors by its state-dict keys.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or it holds another network than this backbone.
    """
    check_start(path)
    file = Path(path)
    if is_weights_file(file):
        return _of_our_file(file, backbone, shapes)
    if other := describe_other_file(file):
        raise ValueError(f"{file}: is {other}")
    if is_tflite(file):
        raise ValueError(_is_detector(file))
    if is_caffemodel(file):
        return _of_caffemodel(file, backbone, shapes)
    best: _Fit | None = None
    for state_dict in read_state_dicts(file):
        fit = _fit(backbone, state_dict, shapes)
        if not fit.problems:
            place = f", {state_dict.place}" if state_dict.place else ""
            return _of_file(file, backbone, fit.tensors, place)
        if best is None or len(fit.tensors) > len(best.tensors):
            best = fit
    assert best is not None  # there is one, or the file was refused
    try:
        convert_weights(file)
    except ValueError:
        raise ValueError(_misfit(file, backbone, best.problems)) from None
    raise ValueError(_is_detector(file))


def _of_our_file(file: Path, backbone: str, shapes: Shapes) -> PretrainedBackbone:
    """Returns the backbone of a detector of ours, and the pixels that its config says."""
    weights = load_weights(file)
    if weights.config.backbone != backbone:
        raise ValueError(
            f"{file}: its backbone is {quoted(weights.config.backbone)}, but that of the new detector is "
            f"{quoted(backbone)}"
        )
    fit = _fit(backbone, StateDict("", "", dict(weights.tensors)), shapes)
    if fit.problems:
        raise ValueError(_misfit(file, backbone, fit.problems))
    return _of_file(file, backbone, fit.tensors)._replace(mean=weights.config.mean, scale=weights.config.scale)


def _of_caffemodel(file: Path, backbone: str, shapes: Shapes) -> PretrainedBackbone:
    """Returns Caffe's VGG-16, whose pixels are those of the presets on VGG-16."""
    if backbone != "vgg16":
        raise ValueError(f"{file}: a Caffe network, and of these only VGG-16 is read, not {quoted(backbone)}")
    tensors = read_vgg16(file)
    if tensors is None:
        raise ValueError(_is_detector(file))
    fit = _fit(backbone, StateDict("", "", tensors), shapes)
    if fit.problems:
        raise ValueError(_misfit(file, backbone, fit.problems))
    return _of_file(file, backbone, fit.tensors)


def _of_file(file: Path, backbone: str, tensors: Tensors, place: str = "") -> PretrainedBackbone:
    sha256 = file_sha256(file)
    source = f"{file.name}{place} ({len(tensors)} tensors, SHA-256 {sha256})"
    if backbone in ENTRIES and sha256.startswith(torchvision_hash(backbone)):
        return PretrainedBackbone(tensors, *entry_pixels(backbone), source)
    return PretrainedBackbone(tensors, None, None, source)


def _fit(backbone: str, state_dict: StateDict, shapes: Shapes) -> _Fit:
    """Returns the tensors that have a place in the backbone, and what does not fit."""
    tensors = state_dict.tensors
    inside = {key.removeprefix("backbone."): tensor for key, tensor in tensors.items() if key.startswith("backbone.")}
    left = list(state_dict.left)
    if inside.keys() & shapes.keys():
        left += [key for key in tensors if not key.startswith("backbone.")]
        tensors = inside
    left = [key for key in left if not key.startswith(_DETECTOR_PARTS) and not is_classifier(key)]
    if backbone.startswith("timm/"):
        tensors = _as_features(tensors, shapes)
    try:
        found = named_as_ours(backbone, tensors)
    except ValueError as error:
        return _Fit({}, [str(error)])
    theirs = {ours: key for key, ours in our_names(backbone, tensors).items()}
    problems = [
        f"{quoted(theirs.get(key, key))} is {tensor.shape}, expected "
        + (f"{shapes[key]}" if key in shapes else f"none of that name (the first is {quoted(next(iter(shapes)))})")
        for key, tensor in found.items()
        if shapes.get(key) != tensor.shape
    ]
    problems += [f"{quoted(key)} belongs to no layer of it" for key in left]
    may_be_missing = not any(REDUCED_TAIL.match(key) for key in found) and backbone == "mobilenet-v3-large-reduced"
    problems += [
        f"{quoted(key)} is missing, expected {shape}"
        for key, shape in shapes.items()
        if key not in found
        and not key.endswith("num_batches_tracked")  # older files have no such counts
        and not (may_be_missing and REDUCED_TAIL.match(key))
    ]
    return _Fit({key: tensor for key, tensor in found.items() if shapes.get(key) == tensor.shape}, problems)


def _as_features(tensors: Tensors, shapes: Shapes) -> dict[str, np.ndarray]:
    """Returns the tensors of a model of timm by the keys that it has as a backbone.

    There they begin with `network`; and where timm takes a model apart for its feature maps, `layers.0` becomes
    `layers_0`.
    """
    ours = {key.replace("_", "."): key for key in shapes}
    found = {}
    for key, tensor in tensors.items():
        place = key if key in shapes else ours.get(f"network.{key}".replace("_", "."))
        if place is not None or not is_classifier(key):
            found[place or key] = tensor
    return found


def _misfit(file: Path, backbone: str, problems: list[str]) -> str:
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{file}: does not fit the backbone {quoted(backbone)}: {problems[0]}{others}"


def _is_detector(file: Path) -> str:
    return (
        f"{file}: a whole detector of another project, not a backbone; `multibox convert` makes it one of ours, which "
        "--model trains on and --start-from takes"
    )
