"""Measures detection beside a busy process, with multibox imported before torch and after it.

    python -m benchmarks.spinning [--seconds 4] [--rounds 3]

Threads of torch spin while they wait for each other, unless multibox is imported first: its `GOMP_SPINCOUNT` lets them
sleep. One process keeps a core busy meanwhile.
"""

import argparse
import os
import statistics
import subprocess
import sys

BUSY = "while True: pass"
DETECT = """
import sys, time
for module in sys.argv[2:]:
    __import__(module)
import multibox

detector = multibox.load("multibox/shapes")
detector.detect(multibox.EXAMPLE_IMAGE)
images, began = 0, time.monotonic()
while (taken := time.monotonic() - began) < float(sys.argv[1]):
    detector.detect(multibox.EXAMPLE_IMAGE)
    images += 1
print(images / taken)
"""
SETTINGS = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"}  # those of the caller do not count
ORDERS = {"multibox first": ["multibox", "torch"], "torch first": ["torch", "multibox"]}


def images_per_second(order: list[str], seconds: float) -> float:
    """Returns how many images a fresh process detects in a second, with its modules imported in this order."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-c", DETECT, str(seconds), *order]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    neighbor = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        rounds = [
            {name: images_per_second(order, given.seconds) for name, order in ORDERS.items()}
            for _ in range(given.rounds)
        ]
    finally:
        neighbor.kill()
        neighbor.wait()
    for name in ORDERS:
        print(f"{name:16}{statistics.median(each[name] for each in rounds):6.1f} images/s")


if __name__ == "__main__":
    main()
