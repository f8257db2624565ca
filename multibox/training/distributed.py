"""The processes that train together: a single one, or those that torchrun started."""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """All processes of a run, seen from one of them. A single process communicates with nobody.

    Attributes:
        rank: Number of this process. The main process has rank 0; it alone writes files and log lines.
        size: Number of processes.
        device: Device on which this process computes.
    """

    rank: int
    size: int
    device: str

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def sum_(self, values: Tensor) -> Tensor:
        """Replaces `values` by their sum over all processes, in place, and returns them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def all_gather(self, value: Value) -> list[Value]:
        """Returns the values of all processes, in the order of their ranks."""
        values: list[Any] = [None] * self.size
        if self.size == 1:
            return [value]
        dist.all_gather_object(values, value)
        return values

    def broadcast_from_main(self, make: Callable[[], Value]) -> Value:
        """Calls `make` in the main process and returns its result in all processes. Its exception is raised in all."""
        if self.size == 1:
            return make()
        made: list[Any] = [None, None]
        if self.is_main:
            try:
                made[0] = make()
            except Exception as error:
                made[1] = sendable(error)
        dist.broadcast_object_list(made, src=0)
        if made[1] is not None:
            raise made[1]
        value: Value = made[0]
        return value

    def sync(self, seconds: float, *flags: bool) -> tuple[float, tuple[bool, ...]]:
        """Returns the main process's clock, and for each flag whether any process has set it.

        All processes get the same values, so decisions that are based on them agree.
        """
        if self.size == 1:
            return seconds, flags
        values = torch.tensor([seconds if self.is_main else 0.0, *flags], dtype=torch.float64)
        dist.all_reduce(values)
        return float(values[0]), tuple(map(bool, values[1:].tolist()))

    def broadcast_module(self, network: nn.Module) -> None:
        """Copies the main process's weights and statistics of a network to all processes."""
        if self.size > 1:
            for values in network.state_dict().values():
                dist.broadcast(values, src=0)


def sendable(error: Exception) -> Exception:
    """Returns the exception, or its text as a `RuntimeError` if other processes could not unpickle it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def is_alone() -> bool:
    """Returns whether this process is the only one of its run."""
    return not dist.is_torchelastic_launched() and not dist.is_initialized()


@contextmanager
def join_processes(device: str | None) -> Iterator[ProcessGroup]:
    """Joins the processes that torchrun started (`torchrun --nproc-per-node N -m multibox train ...`).

    Each process takes a GPU of its own, and the processes communicate by NCCL. Where there are fewer GPUs than
    processes, the processes share them and communicate by gloo, as on a CPU.

    Args:
        device: `cpu`, `cuda` or `mps`. By default a GPU if there is one, otherwise the CPU.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    if is_alone():
        yield ProcessGroup(rank=0, size=1, device=device)
        return
    gpus = torch.cuda.device_count() if device == "cuda" else 0  # all processes share a device such as cuda:1
    local_rank, local_size = (int(os.environ.get(name, 0)) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if gpus:
        device = f"cuda:{local_rank % gpus}"
        torch.cuda.set_device(device)
    ours = not dist.is_initialized()
    if ours:
        # small messages between the hosts always use gloo, so that no GPU waits for them
        dist.init_process_group("cpu:gloo,cuda:nccl" if 0 < local_size <= gpus else "gloo")
    try:
        yield ProcessGroup(rank=dist.get_rank(), size=dist.get_world_size(), device=device)
    finally:
        if ours:
            dist.destroy_process_group()
