"""What a reading of the machine's GPUs holds, and which of them the surrounding shell allows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_SHOWN_LENGTH = 40
# What ends CUDA's own reading of CUDA_VISIBLE_DEVICES.
_HIDES_THE_REST = frozenset({"-1", "NoDevFiles"})


class Health(Enum):
    """Whether the driver still answers for a GPU."""

    WELL = "well"
    UNREADABLE = "unreadable"  # not this time; nothing new is started there
    LOST = "lost"  # off the bus: what runs there is lost too


@dataclass(frozen=True)
class GpuProcess:
    """A process on a GPU; what cannot be seen of it is None.

    `lineage` holds its pid, its session and its ancestors: by them it is told whose it is.
    """

    pid: int
    is_compute: bool
    used_mib: int | None = None
    user: str | None = None
    command: str | None = None
    lineage: tuple[int, ...] = ()

    @property
    def program(self) -> str:
        """The command line without the directories of its first words, cut to what fits into a sentence."""
        if not self.command:
            return "a program that cannot be seen"
        words = self.command.split()
        command = " ".join([*(word.rsplit("/", 1)[-1] for word in words[:2]), *words[2:]])
        return command if len(command) <= _SHOWN_LENGTH else f"{command[: _SHOWN_LENGTH - 1]}…"

    def descends_from(self, roots: Collection[int]) -> bool:
        """Whether it is one of these processes, in the session of one, or below one."""
        return self.pid in roots or any(pid in roots for pid in self.lineage)


@dataclass(frozen=True)
class Device:
    """A GPU, or a MIG instance of one; a reading that the driver does not give is None."""

    uuid: str
    index: str  # as nvidia-smi counts, in the order of the PCI bus; an instance: GPU:instance
    name: str
    bus: str = ""
    total_mib: int | None = None
    used_mib: int | None = None
    free_mib: int | None = None
    utilization: int | None = None  # percent
    processes: tuple[GpuProcess, ...] | None = ()
    parent: str | None = None  # the UUID of the GPU that a MIG instance is part of
    is_divided: bool = False  # in MIG mode: only its instances can be used
    health: Health = Health.WELL
    fault: str = ""  # what the driver said instead

    def compute_processes(self) -> list[GpuProcess]:
        """The processes that compute; none where the driver does not list them."""
        return [process for process in self.processes or () if process.is_compute]

    def used_by(self, roots: Collection[int]) -> int | None:
        """MiB that the processes below `roots` use; None where the driver does not tell it for each process."""
        amounts = [process.used_mib for process in self.processes or () if process.descends_from(roots)]
        if self.processes is None or any(amount is None for amount in amounts):
            return None
        return sum(amount or 0 for amount in amounts)


@dataclass(frozen=True)
class Snapshot:
    """All GPUs at one moment of the monotonic clock; `no_driver` says why there are none."""

    at_s: float
    devices: tuple[Device, ...] = ()
    no_driver: str = ""

    def usable(self) -> list[Device]:
        """What a program can be given: GPUs, and the instances of those in MIG mode."""
        return [device for device in self.devices if not device.is_divided]

    def device(self, uuid: str) -> Device | None:
        """The device with this UUID."""
        return next((device for device in self.devices if device.uuid == uuid), None)


def is_gpu(item: str) -> bool:
    """Whether an item has the form of an index, of an instance's (`0:1`), or of a UUID."""
    return re.fullmatch(r"\d+(:\d+)?|(GPU|MIG)-[\w/-]+", item, re.ASCII) is not None


def matches(item: str, device: Device) -> bool:
    """Whether an item of a list of GPUs means this device: its index, or enough of its UUID's beginning.

    A GPU in MIG mode means its instances.
    """
    if item.isdigit():
        return device.index.partition(":")[0] == str(int(item))
    if item == device.index:
        return True
    own = [device.uuid] if device.parent is None else [device.uuid, device.parent]
    return item.startswith(("GPU-", "MIG-")) and any(uuid.lower().startswith(item.lower()) for uuid in own)


class Limit(NamedTuple):
    """Which GPUs the surroundings allow, as CUDA_VISIBLE_DEVICES says it, and where that stands; None: all."""

    items: str | None = None
    said: str = ""


def allowed(limit: Limit, devices: Sequence[Device]) -> list[Device]:
    """The devices that a limit allows, in its order.

    As CUDA does, the reading ends at the first item that is no device here.
    """
    if limit.items is None:
        return list(devices)
    found: list[Device] = []
    for item in map(str.strip, limit.items.split(",")):
        meant = [device for device in devices if matches(item, device)]
        parts_of = {device.parent or device.uuid for device in meant}
        if item in _HIDES_THE_REST or len(parts_of) != 1:
            break
        found += [device for device in meant if device not in found]
    return found


def limit_of(environment: Mapping[str, str]) -> Limit:
    """What limits the GPUs in an environment: the shell's CUDA_VISIBLE_DEVICES, or Slurm's allocation.

    Slurm sets CUDA_VISIBLE_DEVICES itself, but not in a shell that joined a job later.
    """
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        items = environment.get(name)
        if items or (items is not None and name == "CUDA_VISIBLE_DEVICES"):
            return Limit(items, f"{name}={items}")
    return Limit()
