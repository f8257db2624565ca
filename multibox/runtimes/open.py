"""Opens exported files by their suffix."""

import os
from pathlib import Path
from typing import get_args

from multibox.config import PrecisionChoice
from multibox.messages import quoted
from multibox.runtimes.exported import Run


def open_exported(
    path: str | os.PathLike[str], *, device: str = "cpu", precision: PrecisionChoice = "fp32"
) -> tuple[Run, int | None]:
    """Returns what runs the file, and the number of images that it takes at once (None: any number).

    Args:
        path: Path of the file: `.onnx`, `.tflite`, `.pte`, or `.xml` with its `.bin`.
        device: Device that it runs on.
        precision: Precision of the computation: `bf16` is for OpenVINO alone; `auto` is what the file has.

    Raises:
        ImportError: The package that runs it is not installed.
        ValueError: The file is damaged, does not run on the device or in the precision, or there is no such precision.
    """
    if precision not in get_args(PrecisionChoice):
        raise ValueError(f"precision must be 'fp32', 'bf16' or 'auto', but is {quoted(precision)}")
    suffix = Path(path).suffix
    if suffix == ".xml":
        from multibox.runtimes.openvino_runtime import open_openvino

        return open_openvino(path, device=device, precision="fp32" if precision == "auto" else precision)
    if precision == "bf16":
        kind = {".onnx": "an ONNX", ".tflite": "a TFLite", ".pte": "an ExecuTorch"}[suffix]
        raise ValueError(f"{os.fspath(path)}: {kind} file has its own precision; leave out precision='bf16'")
    if suffix == ".tflite":
        from multibox.runtimes.litert_runtime import open_litert

        return open_litert(path, device=device)
    if suffix == ".pte":
        from multibox.runtimes.executorch_runtime import open_executorch

        return open_executorch(path, device=device)
    from multibox.runtimes.onnx_runtime import open_onnx

    return open_onnx(path, device=device)
