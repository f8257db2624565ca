"""Opens an ExecuTorch file."""

import os
import threading

import numpy as np

from multibox.messages import shortened
from multibox.runtimes.exported import Run

MISSING = "ExecuTorch files need executorch: pip install 'multibox[executorch]'"

NETWORK = "forward"
"""Name of the method that runs the network. The names of its outputs are the results of `output0`, `output1`."""


def open_executorch(path: str | os.PathLike[str], *, device: str = "cpu") -> tuple[Run, int | None]:
    """Opens the file. Returns what runs it, and the number of images that it takes at once.

    ExecuTorch chooses the number of threads by itself. Its Python package brings torch; on a phone it needs none.

    Args:
        path: Path of the file.
        device: `cpu`.

    Raises:
        ImportError: ExecuTorch is not installed.
        ValueError: The file is damaged, or ExecuTorch does not run on the device.
    """
    name = os.fspath(path)
    try:
        import torch
        from executorch.runtime import Runtime
    except ImportError as error:
        raise ImportError(MISSING) from error
    if device != "cpu":
        raise ValueError(f"ExecuTorch files do not run on '{device}' here, only on cpu")
    try:
        program = Runtime.get().load_program(name)
        network = program.load_method(NETWORK)
        count = network.metadata.num_outputs()
        names = [program.load_method(f"output{place}").execute([])[0] for place in range(count)]
    except (RuntimeError, AttributeError) as error:  # a method that is missing is None
        raise ValueError(f"{name}: not an ExecuTorch file, or damaged ({shortened(error)})") from error
    one_at_a_time = threading.Lock()

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        with one_at_a_time:
            outputs = network.execute([torch.from_numpy(np.ascontiguousarray(inputs))])
            return {name: output.numpy().copy() for name, output in zip(names, outputs, strict=True)}

    return run, int(network.metadata.input_tensor_meta(0).sizes()[0])
