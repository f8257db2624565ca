"""Times multibox beside other libraries.

    python -m benchmarks [PART ...] [--threads 1] [--json FILE]

Without a part, all parts for a CPU run, in about ten minutes on two cores. Variants take turns in one process. Compare
the ratios; the times themselves depend on the machine.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import detect, evaluation, freezing, gpu, input, loss, machine, network, postprocess, resize, step
from benchmarks.timing import Comparison, Settings
from multibox.presets import PRESETS

Part = Callable[[Settings], Iterable[Comparison | gpu.Profile]]

CPU_PARTS: dict[str, Part] = {
    "input": input.measure,
    "resize": resize.measure,
    "loss": loss.measure,
    "step": step.measure,
    "freezing": freezing.measure,
    "presets": network.measure_presets,
    "detect": detect.measure,
    "postprocess": postprocess.measure,
    "evaluation": evaluation.measure,
}
GPU_PARTS: dict[str, Part] = {
    "gpu-training": gpu.measure_training,
    "gpu-inference": gpu.measure_inference,
    "gpu-profile": gpu.measure_profile,
}
PARTS = CPU_PARTS | GPU_PARTS


def run(names: Iterable[str], settings: Settings, *, show: Callable[[str], None]) -> dict[str, Any]:
    """Measures the parts, shows each table as soon as it is ready, and returns the contents of the JSON file.

    Raises:
        ValueError: A part is to run on a GPU, and there is none.
    """
    names = list(names)
    if settings.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(
            f"{', '.join(names)}: needs a CUDA device, but torch {torch.__version__} sees none here; run it on a "
            f"machine with a GPU and its driver, or take parts for the CPU ({', '.join(CPU_PARTS)}) with --device cpu"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        about = machine.facts(settings)
        cpu = f"{about['cpu']} ({about['cpu_capability']})"
        device = cpu if about["device"] == "cpu" else f"{about['device']}, CUDA {about['cuda']}"
        versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
        show(f"{device}, threads: {about['threads']}, commit {about['commit']}, {about['date']}, {versions}\n")
        measured: dict[str, list[Any]] = {}
        for name in names:
            measured[name] = []
            for result in PARTS[name](settings):
                show(result.markdown())
                measured[name].append(result.values())
        return {"machine": about, "parts": measured}
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", choices=("cpu", "cuda"), help="device to measure: cpu, or cuda for the GPU's parts")
    parser.add_argument(
        "--threads", type=int, default=1, help="torch's threads; CPU time is measured on one, wall time on several"
    )
    parser.add_argument("--rounds", type=int, help="number of times that each variant is measured")
    parser.add_argument(
        "--batch-size",
        type=int,
        nargs="+",
        dest="batch_sizes",
        help="images in a batch of loss, step and the GPU's parts",
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), nargs="+", dest="precisions", help="precision of step")
    parser.add_argument(
        "--model", nargs="+", choices=tuple(PRESETS), dest="models", metavar="NAME", help="presets to measure"
    )
    parser.add_argument("--images", type=int, help="number of images of evaluation")
    parser.add_argument("--compile", action="store_true", help="measure compiled variants of the step as well")
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)  # the tests' sizes
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to write all numbers to")
    given = vars(parser.parse_args())
    names, file = given.pop("parts") or list(CPU_PARTS), given.pop("json")
    for name in names:
        if name not in PARTS:
            parser.error(f"there is no part '{name}'; it is one of {', '.join(PARTS)}")
    given["device"] = given["device"] or ("cuda" if any(name in GPU_PARTS for name in names) else "cpu")
    settings = Settings(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
    # before the first call into it: rayon reads it once
    os.environ.setdefault("RAYON_NUM_THREADS", str(settings.threads))
    try:
        measured = run(names, settings, show=partial(print, flush=True))
    except ValueError as error:
        parser.exit(1, f"{error}\n")
    if file:
        file.write_text(json.dumps(measured, indent=2, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
