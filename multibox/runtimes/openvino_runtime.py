"""Opens an OpenVINO file (IR, `.xml` with its `.bin`)."""

import os
import threading
from pathlib import Path
from typing import Literal

import numpy as np

from multibox.messages import shortened
from multibox.runtimes.cores import count_threads
from multibox.runtimes.exported import Run

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def open_openvino(
    path: str | os.PathLike[str], *, device: str = "cpu", precision: Literal["fp32", "bf16"] = "fp32"
) -> tuple[Run, int | None]:
    """Opens the file. Returns what runs it, and the number of images that it takes at once (None: any number).

    Threads are those of the cores that this process may use, or `OMP_NUM_THREADS`.

    Args:
        path: Path of the `.xml` file.
        device: Name of an OpenVINO device: `cpu`, `gpu`, `npu`.
        precision: Precision of the computation. (OpenVINO by itself takes bf16 where the processor has it.)

    Raises:
        ImportError: OpenVINO is not installed.
        ValueError: The file is damaged or lacks its `.bin`, or OpenVINO does not run on the device.
    """
    name = os.fspath(path)
    try:
        import openvino
    except ImportError as error:
        raise ImportError("OpenVINO files need openvino: pip install 'multibox[openvino]'") from error
    if not Path(path).with_suffix(".bin").is_file():
        raise ValueError(f"{name}: its weights are missing, {Path(path).with_suffix('.bin').name} beside it")
    core, place = openvino.Core(), device.upper()
    if place not in core.available_devices:
        there = ", ".join(known.lower() for known in core.available_devices)
        raise ValueError(f"OpenVINO does not run on '{device}' here, only on {there}")
    settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[precision]}
    if place == "CPU":
        settings["INFERENCE_NUM_THREADS"] = count_threads()
    try:
        model = core.compile_model(core.read_model(name), place, settings)
    except RuntimeError as error:
        raise ValueError(f"{name}: not an OpenVINO file, or damaged ({shortened(error)})") from error
    names = [output.get_any_name() for output in model.outputs]
    requests = threading.local()  # a request runs in one thread at a time

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        if not hasattr(requests, "own"):
            requests.own = model.create_infer_request()
        found = requests.own.infer([np.ascontiguousarray(inputs)])
        return {name: np.array(found[place]) for place, name in enumerate(names)}

    batch = model.inputs[0].partial_shape[0]
    return run, batch.get_length() if batch.is_static else None
