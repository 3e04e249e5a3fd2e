"""The processes of a run: one, or those that torchrun started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed

from train.errors import TrainError


@dataclass(frozen=True)
class World:
    """This process's place among `size` ones; the first one writes the files."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of all processes' tensors."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, wish: bool) -> bool:
        """Return whether any process wishes it."""
        return bool(self.sum(torch.tensor(int(wish)))) if self.size > 1 else wish

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's values."""
        for tensor in tensors if self.size > 1 else ():
            distributed.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        self.any(False)


@contextmanager
def joined(device_name: str) -> Iterator[World]:
    """Join the other processes, if torchrun's environment names any, on the device that is asked for."""
    size = processes()
    if size == 1:
        yield World(0, size, find_device(device_name, None))
        return
    try:
        rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    except KeyError as error:
        raise TrainError(
            f"the environment says WORLD_SIZE={size} and no {error.args[0]}: start several processes with torchrun, "
            "or unset WORLD_SIZE"
        ) from error
    device = find_device(device_name, local_rank)
    # gloo for what is on the CPU: the wish to stop.
    distributed.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo")
    try:
        yield World(rank, size, device)
    finally:
        distributed.destroy_process_group()


def processes() -> int:
    """Return how many processes torchrun has started; one without it."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def leave(code: int) -> NoReturn:
    """End this program, which has done its work, with an exit code.

    Where it was one of several processes, at once: torch's threads may still run while the interpreter goes down, and
    then abort it.
    """
    if processes() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def find_device(name: str, local_rank: int | None) -> torch.device:
    """Return the device of a name; `auto` and `cuda` are a process's own GPU among several processes."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainError(f"device is {name}: {reason}") from error
    if device.type not in ("cpu", "cuda"):
        raise TrainError(f"device is {name}: allowed are auto, cpu, cuda and cuda:N")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
