"""What a run takes of the machine (cores, torch's random state), and what suits its device."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from multibox.training.distributed import World
from multibox.training.recipes import Precision, TrainConfig


@contextmanager
def borrow(config: TrainConfig, world: World) -> Iterator[int]:
    """Torch's threads and random state as a run has them, for a while; the number of processes that read images.

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


def memory_format(network: nn.Module, *, device: str, precision: Precision) -> torch.memory_format:
    """The order of the tensors in memory that is quicker to train in: channels last nearly everywhere.

    But wide 3x3 convolutions in 32 bits take twice as long backwards so on a CPU: docs/benchmarks.md.
    """
    wide = any(
        isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and layer.kernel_size[0] > 1
        and min(layer.in_channels, layer.out_channels) >= 256
        for layer in network.modules()
    )
    return torch.contiguous_format if device == "cpu" and precision == "fp32" and wide else torch.channels_last


def _default_workers(device: str, cores: int) -> int:
    """On a CPU one core reads what three can learn from; a GPU takes all that can be had."""
    return max(1, cores - 1) if device.startswith("cuda") else cores // 4


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
