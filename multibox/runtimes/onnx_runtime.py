"""Opens an ONNX file with ONNX Runtime."""

import os

import numpy as np

from multibox.messages import shortened
from multibox.runtimes.cores import count_threads
from multibox.runtimes.exported import Run

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_onnx(path: str | os.PathLike[str], *, device: str = "cpu") -> tuple[Run, int | None]:
    """Opens the file. Returns what runs it, and the number of images that it takes at once (None: any number).

    Threads are those of the cores that this process may use, or `OMP_NUM_THREADS`.

    Args:
        path: Path of the file.
        device: `cpu`, `cuda`, or `cuda:1` for the second GPU.

    Raises:
        ImportError: ONNX Runtime is not installed.
        ValueError: The file is damaged, or ONNX Runtime does not run on the device.
    """
    name = os.fspath(path)
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("ONNX files need onnxruntime: pip install 'multibox[onnx]'") from error
    kind, _, number = device.partition(":")
    available = onnxruntime.get_available_providers()
    if _PROVIDERS.get(kind) not in available or not (number.isdecimal() or device == kind):
        there = [known for known, provider in _PROVIDERS.items() if provider in available]
        raise ValueError(f"the installed onnxruntime does not run on '{device}', only on {', '.join(there)}")
    provider = _PROVIDERS[kind]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_threads()
    options.log_severity_level = 3  # errors alone: its warnings are about single nodes of a graph
    of_device = {"device_id": number} if number and kind == "cuda" else {}
    try:
        session = onnxruntime.InferenceSession(name, options, [(provider, of_device)])
    except Exception as error:  # it has a class of its own for each kind of damage
        raise ValueError(f"{name}: not an ONNX file, or damaged ({shortened(error)})") from error
    if session.get_providers()[0] != provider:  # it falls back to the CPU
        raise ValueError(
            f"onnxruntime cannot use '{device}' here: libraries of CUDA are missing, or there is no such GPU"
        )
    (images,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {images.name: inputs}), strict=True))

    batch = images.shape[0]
    return run, batch if isinstance(batch, int) else None
