"""Convert weights files of other projects to ours. The content of a file shows which project it is from."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from multibox.messages import quoted, shortened
from multibox.weights.converters import lufficc, qfgaohao, ssd_pytorch, torchvision, ultra_light
from multibox.weights.converters.caffe import convert_caffemodel, is_caffemodel
from multibox.weights.converters.layers import Tensors
from multibox.weights.converters.other_files import describe_other_file
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


def convert_weights(path: str | os.PathLike[str]) -> Weights:
    """Returns config, class names and tensors of a weights file of another project. No code in it is ever run.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of no known project, is damaged, or holds code.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: there is no such weights file")
    other = describe_other_file(source)
    if other is not None:
        raise ValueError(f"{source}: is {other}")
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
