"""What the detector finds in the images that it does not learn from, each process looking at its share."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from multibox.data.sample import Dataset
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.training.distributed import World

BATCH_SIZE = 8


def find(
    detector: Detector, dataset: Dataset, world: World, *, stop: Callable[[], bool] = lambda: False
) -> list[Detections] | None:
    """The detections in each image of the set, in its order, for all processes; nothing where one was told to stop.

    An image that cannot be read stops all processes.

    Args:
        detector: With the same weights in each process.
        dataset: Process r of n looks at the images r, r + n, r + 2 n, ...
        world: The processes.
        stop: Asked between batches.

    Raises:
        ValueError: An image cannot be read.
    """
    mine = range(world.rank, len(dataset), world.size)
    batches = [mine[start : start + BATCH_SIZE] for start in range(0, len(mine), BATCH_SIZE)]
    found: list[Detections] = []
    stopped = False
    unreadable: str | None = None
    with ThreadPoolExecutor(max_workers=1) as thread:  # the next images are decoded meanwhile
        ahead = thread.submit(_decode, dataset, batches[0] if batches else mine)
        for following in (*batches[1:], range(0))[: len(batches)]:
            if stopped := stop():
                break
            try:
                images, ahead = ahead.result(), thread.submit(_decode, dataset, following)
            except (OSError, ValueError) as error:
                unreadable = str(error)
                break
            threshold = detector.config.postprocess.score_threshold
            found += detector.detect(images, score_threshold=threshold, batch_size=BATCH_SIZE)
    shares = world.gather((stopped, unreadable, found))
    for _, complaint, _ in shares:
        if complaint:
            raise ValueError(
                f"{complaint}; it belongs to {dataset.name}, which is not learned from: mend it, and go on"
            )
    if any(stopped for stopped, *_ in shares):
        return None
    return [shares[index % world.size][2][index // world.size] for index in range(len(dataset))]


def _decode(dataset: Dataset, indices: range) -> list[Image.Image]:
    return [dataset[index].open() for index in indices]
