"""Count the functions of multibox that an image passes on its way: `python tools/count_hops.py detect` or `train`.

`detect` runs an image file to its detections, `train` an image file of a data set to its loss. Every call of a function
of the package is traced; nested functions, generators and lambdas count for the function that holds them, and functions
that run once for a detector or a run (loading, making tables) do not count.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import numpy as np
from PIL import Image

import multibox
from multibox.data.sample import Dataset
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.detector import Detector

PACKAGE = Path(multibox.__file__).parent
LIMITS = {"detect": (20, 8), "train": (35, 10)}
"""Largest number of functions, and of files, that each way should take."""


def hops(run: Callable[[], object]) -> list[tuple[str, str]]:
    """Returns each function of the package that `run` calls, as (file, name), in the order of its first call."""
    seen: dict[tuple[str, str], None] = {}

    def trace(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (hop := _hop(frame.f_code)):
            seen.setdefault(hop)

    sys.setprofile(trace)
    try:
        run()
    finally:
        sys.setprofile(None)
    return list(seen)


def _hop(code: CodeType) -> tuple[str, str] | None:
    file = Path(code.co_filename)
    if not file.is_relative_to(PACKAGE):
        return None
    return str(file.relative_to(PACKAGE)), code.co_qualname.split(".<locals>")[0]


def detect(model: str = "ssd300-vgg16") -> list[tuple[str, str]]:
    """Returns the hops of an image file to its detections, with the defaults of `Detector.detect`."""
    detector = Detector.create(model, ["a", "b"], seed=0).to("cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.jpg"
        pixels = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        passing = detector.detect(path, score_threshold=0.0).scores[20]  # so that there is something to suppress
        config = dataclasses.replace(detector.config, detect_score_threshold=float(passing))
        detector = Detector.of_network(config, detector.class_names, detector.network)
        detector.detect(path)  # the network is prepared when it is first run
        found: list[multibox.Detections] = []
        result = hops(lambda: found.append(detector.detect(path)))
    assert len(found[0]), "nothing was found, so suppression was not passed"
    return result


def train(model: str = "ssd300-vgg16") -> list[tuple[str, str]]:
    """Returns the hops of an image file of a data set to its loss: augmentation, batch, targets, network, loss."""
    from multibox.training.distributed import ProcessGroup
    from multibox.training.loading import make_loader
    from multibox.training.recipes import RECIPES, TrainConfig
    from multibox.training.trainer import Trainer

    detector = Detector.create(model, CLASS_NAMES, seed=0)
    recipe, config = RECIPES["paper"], detector.config
    group = ProcessGroup(rank=0, size=1, device="cpu")
    trainer = Trainer(detector, recipe, TrainConfig(device="cpu"), precision="fp32", group=group)
    with tempfile.TemporaryDirectory() as folder:
        dataset = _as_files(synthetic_scenes(8, seed=0), Path(folder))
        batches = make_loader(
            dataset, config, recipe.augmentation, batch_size=4, first_step=0, steps=2, seed=0, workers=0
        )
        next(batches)  # what a run makes once
        result = hops(lambda: trainer.step(next(batches), learning_rate=1e-3))
    return result[: result.index(("training/trainer.py", "Trainer._update"))]  # what follows the loss


def _as_files(dataset: Dataset, folder: Path) -> Dataset:
    samples = []
    for sample in dataset:
        path = folder / f"{sample.name}.jpg"
        sample.open().save(path)
        samples.append(dataclasses.replace(sample, image=path))
    return dataclasses.replace(dataset, samples=samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=("detect", "train"))
    way = parser.parse_args().way
    result = {"detect": detect, "train": train}[way]()
    functions, files = LIMITS[way]
    for file, name in result:
        print(f"{file:40}{name}")
    passed = len({file for file, _ in result})
    print(f"{len(result)} functions in {passed} files; at most {functions} in {files} are wanted")


if __name__ == "__main__":
    main()
