"""What a run takes of the machine: its cores, shared by torch and those who read pictures; torch's random state."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from multibox.training.recipes import TrainConfig
from multibox.training.world import World


@contextmanager
def borrow(config: TrainConfig, world: World) -> Iterator[int]:
    """Torch's threads and random state as a run has them, for a while; the number of processes that read pictures.

    On a small machine torch's threads and those processes fight for the cores: each gets its own.
    """
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", world.size)) if world.size > 1 else 1
    cores = max(1, _cores() // on_this_machine)
    workers = _default_workers(world.device, cores) if config.workers is None else config.workers
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, cores - workers))
    try:
        with torch.random.fork_rng(devices=[world.device] if world.device.startswith("cuda") else []):
            yield workers
    finally:
        torch.set_num_threads(before)


def has_bf16(device: str) -> bool:
    """Whether the device computes in bf16 by itself: CUDA also has it where it is slower, in software."""
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


def _default_workers(device: str, cores: int) -> int:
    """On a CPU one core reads what three can learn from; a GPU takes all that can be had."""
    return max(1, cores - 1) if device.startswith("cuda") else cores // 4


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
