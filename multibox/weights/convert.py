"""Convert weights files of other projects to ours. The content of a file shows which project it is from."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from multibox.config import DetectorConfig
from multibox.messages import quoted, shortened
from multibox.presets import input_size
from multibox.weights.converters import lufficc, qfgaohao, ssd_pytorch, torchvision, ultra_light
from multibox.weights.converters.caffe import convert_caffemodel, is_caffemodel
from multibox.weights.converters.layers import Tensors
from multibox.weights.converters.state_dict import read_state_dict
from multibox.weights.converters.tflite import convert_tflite, is_tflite
from multibox.weights.file import Weights

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
    if is_caffemodel(source):
        return convert_caffemodel(source)
    if is_tflite(source):
        return convert_tflite(source)
    tensors = read_state_dict(source)
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
    raise ValueError(
        f"{source}: the weights of no detector that can be converted; its first tensors are {quoted(list(tensors)[:3])}"
    )
