"""Adapt a run to the machine: threads, torch's random state, the memory format, and the faster precision."""

import copy
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from multibox.runtimes.precision import Precision, faster_precision, has_bf16
from multibox.ssd.network import SSD
from multibox.training.distributed import ProcessGroup
from multibox.training.recipes import TrainConfig

log = logging.getLogger("multibox")

TRIAL_IMAGES = 2
"""Largest number of images in the batches of a trial of both precisions."""


@contextmanager
def torch_threads(config: TrainConfig, group: ProcessGroup) -> Iterator[int]:
    """Opens a context in which torch uses the cores that the readers leave. Yields the number of reader processes.

    On a small machine both would otherwise fight for the cores. Torch's random state is restored at the end as well.
    """
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", group.size)) if group.size > 1 else 1
    cores = max(1, _cores() // on_this_machine)
    workers = _default_workers(group.device, cores) if config.workers is None else config.workers
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, cores - workers))
    try:
        with torch.random.fork_rng(devices=[group.device] if group.device.startswith("cuda") else []):
            yield workers
    finally:
        torch.set_num_threads(before)


def choose_precision(network: SSD, *, height: int, width: int, device: str, batch_size: int) -> tuple[Precision, str]:
    """Returns the precision in which the network trains faster on this device, and the reason.

    The network, and torch's random state, stay as they are: the trial on a CPU takes copies.

    Args:
        network: The network to be trained, in training mode except for its frozen layers.
        height: Height of the network input in pixels.
        width: Width of the network input in pixels.
        device: Device of the run.
        batch_size: Number of images that go through the network at once.
    """
    native = has_bf16(torch.device(device))
    if device.startswith("cuda"):
        return ("bf16", "the GPU computes in it") if native else ("fp32", "the GPU does not compute in bf16")
    if not native:
        return "fp32", "the processor does not compute in bf16" if device == "cpu" else f"the device is {device}"
    inputs = torch.zeros(min(batch_size, TRIAL_IMAGES), 3, height, width, dtype=torch.uint8)
    inputs.random_(generator=torch.Generator().manual_seed(0))
    precisions: tuple[Precision, Precision] = ("fp32", "bf16")
    faster, measured = faster_precision({each: _trial_step(network, inputs, precision=each) for each in precisions})
    return faster, f"on this processor a batch forward and backward takes {measured}"


def _trial_step(
    network: SSD, inputs: UInt8[Tensor, "batch 3 height width"], *, precision: Precision
) -> Callable[[], None]:
    """Returns a function that takes the inputs forward and backward through a copy of the network."""
    layout = memory_format(network, device="cpu", precision=precision)
    trial = copy.deepcopy(network).to("cpu").to(memory_format=layout)
    batch = inputs.contiguous(memory_format=layout)

    def step() -> None:
        with torch.random.fork_rng(devices=[]):
            trial.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                offsets, logits = trial(batch)
            (offsets.float().square().mean() + logits.float().square().mean()).backward()

    return step


def memory_format(network: nn.Module, *, device: str, precision: Precision) -> torch.memory_format:
    """Returns the memory format in which the network trains faster: channels last nearly everywhere.

    The exception is a CPU in fp32: there the backward pass of wide 3x3 convolutions takes twice as long in channels
    last (docs/benchmarks.md).
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
    """Returns the default number of reader processes: on a CPU, one core can read images for three cores that train."""
    return max(1, cores - 1) if device.startswith("cuda") else cores // 4


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
