"""Opens a TFLite file with LiteRT."""

import os
import threading
from pathlib import Path

import numpy as np

from multibox.messages import shortened
from multibox.runtimes.cores import count_threads
from multibox.runtimes.exported import Run

POSTPROCESS = b"TFLite_Detection_PostProcess"
"""The operator that suppresses. With n > 1 threads it leaves out class number n (tensorflow issue 56058)."""


def open_litert(path: str | os.PathLike[str], *, device: str = "cpu") -> tuple[Run, int | None]:
    """Opens the file. Returns what runs it, and the number of images that it takes at once.

    Threads are those of the cores that this process may use, or `OMP_NUM_THREADS`; one, if the file suppresses.

    Args:
        path: Path of the file.
        device: `cpu`.

    Raises:
        ImportError: LiteRT is not installed.
        ValueError: The file is damaged, or LiteRT does not run on the device.
    """
    name = os.fspath(path)
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError("TFLite files need ai-edge-litert: pip install 'multibox[litert]'") from error
    if device != "cpu":
        raise ValueError(f"TFLite files do not run on '{device}' here, only on cpu")
    content = Path(path).read_bytes()  # once: another file may have the name when the next thread comes
    threads = 1 if POSTPROCESS in content else count_threads()
    interpreters = threading.local()  # an interpreter runs in one thread at a time

    def own_interpreter() -> Interpreter:
        if not hasattr(interpreters, "own"):
            interpreters.own = Interpreter(model_content=content, num_threads=threads)
            interpreters.own.allocate_tensors()
        return interpreters.own

    try:
        (images,) = own_interpreter().get_input_details()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: not a TFLite file, or damaged ({shortened(error)})") from error
    outputs = {output["name"]: output["index"] for output in own_interpreter().get_output_details()}

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        interpreter = own_interpreter()
        interpreter.set_tensor(images["index"], np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

    return run, int(images["shape"][0])
