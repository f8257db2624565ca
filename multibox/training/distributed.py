"""The processes that train together: one, or those that torchrun started."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """All processes of a run, seen from one of them. With a single one nothing is sent and all is its own.

    Attributes:
        rank: Of this process; the first, 0, writes the files and speaks.
        size: How many there are.
        device: On which this one computes.
    """

    rank: int
    size: int
    device: str

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum_(self, values: Tensor) -> Tensor:
        """The sum over all processes, which takes the place of `values`."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Value) -> list[Value]:
        """What each process gives, in the order of their ranks."""
        values: list[Any] = [None] * self.size
        if self.size == 1:
            return [value]
        dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What the first process makes, for all of them; what it raises, all raise."""
        if self.size == 1:
            return make()
        made: list[Any] = [None, None]
        if self.is_first:
            try:
                made[0] = make()
            except (OSError, ValueError) as error:
                made[1] = error
        dist.broadcast_object_list(made, src=0)
        if made[1] is not None:
            raise made[1]
        value: Value = made[0]
        return value

    def agree(self, seconds: float, *flags: bool) -> tuple[float, tuple[bool, ...]]:
        """The first one's time, and of each flag whether it is up in any process: what follows is the same for all."""
        if self.size == 1:
            return seconds, flags
        values = torch.tensor([seconds if self.is_first else 0.0, *flags], dtype=torch.float64)
        dist.all_reduce(values)
        return float(values[0]), tuple(map(bool, values[1:].tolist()))

    def share(self, network: nn.Module) -> None:
        """Gives all processes the first one's weights and statistics of a network."""
        if self.size > 1:
            for values in network.state_dict().values():
                dist.broadcast(values, src=0)


@contextmanager
def join_world(device: str | None) -> Iterator[World]:
    """This process and those that torchrun started with it (`torchrun --nproc-per-node N -m multibox train ...`).

    On GPUs each process has its own, and they speak NCCL; where there are fewer GPUs than processes they share them,
    and speak gloo, as on a CPU.

    Args:
        device: `cpu`, `cuda`, `mps`; a GPU where there is one.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    if not dist.is_torchelastic_launched() and not dist.is_initialized():
        yield World(rank=0, size=1, device=device)
        return
    gpus = torch.cuda.device_count() if device == "cuda" else 0  # cuda:1 is that one for all of them
    local_rank, local_size = (int(os.environ.get(name, 0)) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if gpus:
        device = f"cuda:{local_rank % gpus}"
        torch.cuda.set_device(device)
    ours = not dist.is_initialized()
    if ours:
        # small messages between the hosts go by gloo in any case, so that no GPU waits for them
        dist.init_process_group("cpu:gloo,cuda:nccl" if 0 < local_size <= gpus else "gloo")
    try:
        yield World(rank=dist.get_rank(), size=dist.get_world_size(), device=device)
    finally:
        if ours:
            dist.destroy_process_group()
