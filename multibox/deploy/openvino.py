"""Writes a detector as an OpenVINO file, through ONNX."""

from collections.abc import Mapping
from pathlib import Path

import onnx

from multibox.messages import shortened


def write_openvino(
    model: onnx.ModelProto, path: Path, metadata: Mapping[str, str], model_info: Mapping[str, str] | None = None
) -> None:
    """Writes `path`, which ends in `.xml`, and the `.bin` beside it, with weights in single precision.

    Args:
        model: The ONNX model.
        path: The file to write.
        metadata: Texts by name, for `rt_info/multibox`.
        model_info: Texts by name, for `rt_info/model_info`, which OpenVINO's Model API reads.

    Raises:
        ImportError: OpenVINO is not installed.
        ValueError: OpenVINO does not take the model.
    """
    try:
        import openvino
    except ImportError as error:
        raise ImportError("OpenVINO files need openvino: pip install 'multibox[openvino]'") from error
    try:
        converted = openvino.Core().read_model(model.SerializeToString())
    except RuntimeError as error:
        raise ValueError(f"OpenVINO does not take this model ({shortened(error)})") from error
    for name, text in metadata.items():
        converted.set_rt_info(text, ["multibox", name])
    for name, text in (model_info or {}).items():
        converted.set_rt_info(text, ["model_info", name])
    openvino.save_model(converted, path, compress_to_fp16=False)
