"""How long the network of each preset takes on a CPU, beside torchvision's SSD300.

    python benchmarks/latency.py [--rounds 15] [NAME ...]

The network alone (normalised pixels to offsets and logits; no resizing, no selection), random weights, batch 1, 20
classes, one thread, eager PyTorch in float32. The networks take turns, and CPU time is measured, so that what else runs
on the machine matters little; each time is the median of its rounds, and what counts is the ratio to torchvision's.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torchvision.models.detection import ssd300_vgg16

from multibox.detector import Detector
from multibox.presets import FIGURE_CLASSES, PRESETS

REFERENCE = "torchvision ssd300_vgg16"
CLASSES = [f"class {number}" for number in range(FIGURE_CLASSES)]


def reference() -> Callable[[], object]:
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=FIGURE_CLASSES + 1).eval()
    images = torch.rand(1, 3, 300, 300)
    return lambda: model.head(list(model.backbone(images).values()))


def ours(name: str) -> Callable[[], object]:
    detector = Detector.create(name, CLASSES, seed=0)
    images = torch.randint(0, 256, (1, 3, detector.config.height, detector.config.width), dtype=torch.uint8)
    return lambda: detector.network(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="presets, or timm/NAME; by default all presets")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = {REFERENCE: reference()} | {name: ours(name) for name in given.names or PRESETS}
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for turn in range(given.rounds + 2):
            for name, run in runs.items():
                began = time.process_time()
                run()
                if turn >= 2:  # the first two warm up
                    times[name].append(time.process_time() - began)
    whole = statistics.median(times[REFERENCE])
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {given.rounds} rounds, one thread")
    print(f"{'network':26} {'ms':>8} {'ratio':>7}   quartiles of the ratio to the same round's")
    for name, values in times.items():
        ratios = [value / other for value, other in zip(values, times[REFERENCE], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        median = statistics.median(values)
        print(f"{name:26} {1000 * median:8.1f} {median / whole:7.3f}   {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
