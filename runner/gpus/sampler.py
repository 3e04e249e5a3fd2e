"""What an attempt uses: GPU memory, host memory and CPU time of all its processes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from runner.gpus.devices import Snapshot

UNLISTED_MIB = 64  # less than any program's own context: a GPU that has grown by that has a process
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """A line of the process table; CPU seconds with those of the children that it waited for."""

    pid: int
    parent: int
    session: int
    cpu_s: float


@dataclass(frozen=True)
class Usage:
    """What an attempt uses at a moment, or, as a peak, what it used at most."""

    vram_mib: Mapping[str, int] = field(default_factory=dict)  # by GPU
    is_whole_device: bool = False  # the driver tells it for GPUs, not for processes
    host_mib: float = 0.0  # memory that is shared among its processes counts once
    cpu_s: float = 0.0  # so far

    def peak_with(self, other: Usage) -> Usage:
        """The larger one of each figure."""
        cards = {*self.vram_mib, *other.vram_mib}
        return Usage(
            {card: max(self.vram_mib.get(card, 0), other.vram_mib.get(card, 0)) for card in cards},
            self.is_whole_device or other.is_whole_device,
            max(self.host_mib, other.host_mib),
            max(self.cpu_s, other.cpu_s),
        )


def process_table() -> list[Process]:
    """All processes of this machine that can be seen."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (process := _process(int(entry.name))) is not None:
            found.append(process)
    return found


def tree(root: int, table: Collection[Process]) -> list[Process]:
    """The process, those of its session, and all below them."""
    children: dict[int, list[Process]] = {}
    for process in table:
        children.setdefault(process.parent, []).append(process)
    due = [process for process in table if process.pid == root or process.session == root]
    found: dict[int, Process] = {}
    while due:
        process = due.pop()
        if process.pid not in found:
            found[process.pid] = process
            due += children.get(process.pid, [])
    return list(found.values())


class Sampler:
    """Follows one attempt; `root` is the pid of its shell, `uuids` are its GPUs.

    Where the driver does not tell a process's memory, or shows none of the processes, as in some containers, the GPU's
    own growth since the start counts: right when the attempt is alone there, too much otherwise.
    """

    def __init__(self, root: int, uuids: Collection[str], before: Snapshot) -> None:
        self._root = root
        self._before_mib = {uuid: _used_mib(before, uuid) for uuid in uuids}
        self._listed: set[str] = set()  # where the driver has shown its processes
        self.peak = Usage()

    def sample(self, snapshot: Snapshot, table: Collection[Process]) -> Usage:
        """What it uses now; one table of processes serves the samplers of all attempts."""
        members = tree(self._root, table)
        pids = {process.pid for process in members}
        vram_mib, is_whole_device = {}, False
        for uuid, before_mib in self._before_mib.items():
            used_mib = _used_by(snapshot, uuid, {self._root, *pids})
            growth_mib = max(0, _used_mib(snapshot, uuid) - before_mib)
            if used_mib:
                self._listed.add(uuid)
            if used_mib is None or (growth_mib >= UNLISTED_MIB and self._is_unlisted(snapshot, uuid)):
                used_mib, is_whole_device = growth_mib, True
            vram_mib[uuid] = used_mib
        usage = Usage(vram_mib, is_whole_device, _host_mib(pids), round(sum(one.cpu_s for one in members), 2))
        self.peak = self.peak.peak_with(usage)
        return usage

    def _is_unlisted(self, snapshot: Snapshot, uuid: str) -> bool:
        """Whether the driver shows no process on a GPU, and never showed one of this attempt there."""
        device = snapshot.device(uuid)
        return device is not None and not device.processes and uuid not in self._listed


def _used_by(snapshot: Snapshot, uuid: str, pids: set[int]) -> int | None:
    device = snapshot.device(uuid)
    if device is None or any(process.user is None for process in device.compute_processes()):
        return None  # it may be one of ours that cannot be seen, as from within a container
    return device.used_by(pids)


def _used_mib(snapshot: Snapshot, uuid: str) -> int:
    device = snapshot.device(uuid)
    return (device.used_mib or 0) if device else 0


def _process(pid: int) -> Process | None:
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    cpu_ticks = sum(int(field) for field in fields[11:15])
    return Process(pid, int(fields[1]), int(fields[3]), cpu_ticks * _TICK_S)


def _host_mib(pids: Collection[int]) -> float:
    own, shared = 0, 0
    for pid in pids:
        fields = _read(f"/proc/{pid}/statm").split()
        if len(fields) > 2:
            own += int(fields[1]) - int(fields[2])
            shared = max(shared, int(fields[2]))
    return round((own + shared) * _PAGE_MIB, 1)


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # gone meanwhile
        return b""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
