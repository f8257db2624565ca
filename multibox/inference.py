"""The one loop that runs a detector over many images: load the next batch in a thread, run this one, yield in order."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


def predict(
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    run: Callable[[list[Loaded]], Iterable[Result]],
    *,
    batch_size: int,
) -> Iterator[Result]:
    """Yields the result of each item, in order, as soon as its batch is done.

    While `run` works on a batch, a thread takes the next `batch_size` items from `items` and loads them, and no more
    than these. What `items` or `load` raises is raised here after the results of all batches before it.

    Args:
        items: Images, or other items that `load` takes. Only the thread advances the iterator, one item at a time.
        load: Decodes and resizes one image.
        run: Returns the result of each image of a batch.
        batch_size: Number of images in a batch.
    """
    remaining = iter(items)

    def load_batch() -> list[Loaded]:
        return [load(item) for item in islice(remaining, batch_size)]

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="multibox-load") as thread:
        upcoming = thread.submit(load_batch)
        while batch := upcoming.result():
            upcoming = thread.submit(load_batch)
            yield from run(batch)
