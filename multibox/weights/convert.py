"""Convert weights files of other projects to ours. The content of a file shows which project it is from."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from multibox.checks import check_class_names
from multibox.config import DetectorConfig
from multibox.messages import counted, list_names, quoted, shortened
from multibox.presets import input_size
from multibox.weights.converters import lufficc, qfgaohao, ssd_pytorch, torchvision, ultra_light
from multibox.weights.converters.caffe import convert_caffemodel, is_caffemodel
from multibox.weights.converters.class_names import GuessedNames, read_class_names
from multibox.weights.converters.layers import Tensors
from multibox.weights.converters.other_files import describe_other_file
from multibox.weights.converters.state_dict import StateDict, read_state_dicts
from multibox.weights.converters.tflite import convert_tflite, is_tflite
from multibox.weights.file import Weights

_log = logging.getLogger(__name__)

STATE_DICTS: Sequence[Callable[[Tensors], Weights | None]] = (
    torchvision.convert,
    ssd_pytorch.convert,
    lufficc.convert,
    qfgaohao.convert,
    ultra_light.convert,
)
"""Converters of state dicts of PyTorch. Each returns `None` if the keys are not those of its project."""


def convert_weights(path: str | os.PathLike[str], *, height: int | None = None, width: int | None = None) -> Weights:
    """Returns config, class names and tensors of a weights file of another project. No code in it is ever run.

    Args:
        path: Path of the file.
        height: Height of the network input in pixels, for the detectors whose file leaves it open.
        width: Width of the network input in pixels. If only one of the two is given, the input is square.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of no known project, is damaged, or holds code; or its detector has an input of another
            size.
    """
    weights = _convert(Path(path))
    if height is None and width is None:
        return weights
    height, width = input_size(height, width, weights.config.height)
    return weights._replace(config=_with_input_size(weights.config, height, width, os.fspath(path)))


def _with_input_size(config: DetectorConfig, height: int, width: int, name: str) -> DetectorConfig:
    """Returns the config for an input of this size.

    Raises:
        ValueError: The weights were trained for an input of one size, which is another.
    """
    if (height, width) == (config.height, config.width):
        return config
    if not config.backbone.startswith("ultra-light"):
        raise ValueError(
            f"{name}: its input has {config.height} x {config.width} pixels (height x width), not {height} x {width}; "
            "only the Ultra-Light face detectors take other sizes"
        )
    return ultra_light.config_for(config.backbone, height=height, width=width)


def _convert(source: Path) -> Weights:
    if not source.is_file():
        raise FileNotFoundError(f"{source}: there is no such weights file")
    other = describe_other_file(source)
    if other is not None:
        raise ValueError(f"{source}: is {other}")
    if is_caffemodel(source):
        return convert_caffemodel(source)
    if is_tflite(source):
        return convert_tflite(source)
    first: StateDict | None = None
    for state_dict in read_state_dicts(source):
        first = first or state_dict
        weights = _convert_state_dict(source, state_dict.tensors)
        if weights is not None:
            return weights._replace(provenance={**weights.provenance, **_origin(state_dict)})
    assert first is not None  # there is one, or the file was refused
    raise ValueError(
        f"{source}: the weights of no detector that can be converted; its first tensors are "
        f"{quoted(list(first.tensors)[:3])}"
    )


def _convert_state_dict(source: Path, tensors: Tensors) -> Weights | None:
    """Returns the detector of a state dict, or `None` if it is of no known project."""
    for convert in STATE_DICTS:
        try:
            weights = convert(tensors)
        except KeyError as error:
            raise ValueError(f"{source}: the tensor {shortened(error)} is missing") from error
        except ValueError as error:
            raise ValueError(f"{source}: {shortened(error)}") from error
        except (LookupError, TypeError, ArithmeticError) as error:  # tensors with other axes
            raise ValueError(f"{source}: damaged, or another model ({shortened(repr(error))})") from error
        if weights is not None:
            return weights
    return None


def _origin(state_dict: StateDict) -> dict[str, str]:
    """Returns, for the provenance, which state dict of a file was converted and what was left, if there is more."""
    origin = {}
    if state_dict.others:
        origin["state dict"] = f"{state_dict.place or 'the outermost'}; not {', '.join(state_dict.others)}"
    if state_dict.left:
        some = list_names(state_dict.left, 3)
        origin["left out"] = f"{counted(len(state_dict.left), 'tensor')} not under {state_dict.prefix!r}: {some}"
    return origin


def name_classes(weights: Weights, path: str | os.PathLike[str], class_names: Sequence[str] | None) -> Weights:
    """Returns the weights with the names of their classes, if the file has none.

    They are the given ones, else those of a `labels.txt` beside the file. Otherwise they stay what the number of
    classes suggests. The provenance says which, and a warning in the log says so if they are a guess.

    Args:
        weights: Converted weights.
        path: The file that they were converted from.
        class_names: Names of the classes, in the order of the labels.

    Raises:
        ValueError: There are more or fewer names than classes, one is empty or occurs twice.
    """
    number, name = len(weights.class_names), os.fspath(path)
    if class_names is not None:
        check_class_names(class_names)
        if len(class_names) != number:
            raise ValueError(
                f"class_names has {counted(len(class_names), 'name')}, but {name} has {counted(number, 'class')}"
            )
        return _named(weights, class_names, "given")
    guessed = weights.class_names
    if not isinstance(guessed, GuessedNames):  # the project has these classes alone
        return weights
    found = _names_beside(path, number)
    if found is not None:
        return _named(weights, found, "labels.txt beside the file")
    if not guessed.owner:
        return _named(weights, guessed, "none in the file")
    _log.warning(
        "%s: %d classes: named as %s's, a guess; class_names (--class-names FILE) gives yours",
        name,
        number,
        guessed.owner,
    )
    return _named(weights, guessed, f"{guessed.owner}'s, a guess from their number")


def _names_beside(path: str | os.PathLike[str], number: int) -> list[str] | None:
    """Returns the names in a `labels.txt` beside the file, if there is one for so many classes."""
    labels = Path(path).with_name("labels.txt")
    if not labels.is_file():
        return None
    try:
        found = read_class_names(labels)
        check_class_names(found)
        if len(found) == number:
            return found
        problem = f"it has {counted(len(found), 'name')}, but {os.fspath(path)} has {counted(number, 'class')}"
    except ValueError as error:
        problem = shortened(error)
    _log.warning("%s is not used: %s", labels, problem)
    return None


def _named(weights: Weights, class_names: Sequence[str], origin: str) -> Weights:
    provenance = {**weights.provenance, "class names": origin}
    return weights._replace(class_names=tuple(class_names), provenance=provenance)
