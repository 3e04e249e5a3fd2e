"""`run top`: slots, machine and progress on the whole screen, live; Ctrl-C leaves the work alone."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import psutil
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from runner.errors import InputError
from runner.gpus.nvml import Nvml
from runner.screen.watch import LiveWatcher
from runner.subcommands import attach

if TYPE_CHECKING:
    import argparse

    from rich.console import RenderableType

    from runner.events import Event
    from runner.gpus.devices import Device
    from runner.screen.progress import Progress

_GIB = 1 << 30
GPU_LOOK_S = 1.0


def run(options: argparse.Namespace) -> int:
    """Shows the daemon's work until it is done, or until Ctrl-C.

    Raises:
        InputError: standard output is no terminal.
    """
    if not Console().is_terminal:
        raise InputError("run top: needs a terminal; `run status` prints the same once.")
    return attach.follow(options, TopWatcher)


class TopWatcher(LiveWatcher):
    """The live view alone, under the state of the machine."""

    def __init__(self, progress: Progress, trials: int, console: Console) -> None:
        psutil.cpu_percent()  # the first call only begins to measure
        self._nvml = Nvml(patience_s=GPU_LOOK_S)
        self._gpus: list[Device] = []
        self._look_at = 0.0
        super().__init__(progress, trials, console, has_whole_screen=True)

    def handle(self, event: Event) -> None:
        """Takes the event in; it is seen in what is drawn next."""
        self._progress.handle(event)

    def say(self, message: str) -> None:
        """Nothing scrolls here."""

    def _render(self) -> RenderableType:
        return Group(self._machine(), *self._cards(), super()._render())

    def _cards(self) -> list[Table]:
        """A line for each GPU, read once a second; nothing where there is none."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + GPU_LOOK_S
            self._gpus = self._nvml.snapshot().usable()
        if not self._gpus:
            return []
        table = Table.grid(padding=(0, 3))
        for device in self._gpus:
            memory = "" if device.used_mib is None else f"{device.used_mib / 1024:.1f} of {_gib(device.total_mib)} GiB"
            busy = "" if device.utilization is None else f"{device.utilization}% busy"
            table.add_row(Text(f"gpu {device.index}"), Text(device.name), Text(memory), Text(device.fault or busy))
        return [table]

    def _machine(self) -> Table:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        table = Table.grid(padding=(0, 3))
        table.add_row(
            Text(f"CPU {psutil.cpu_percent():.0f}% of {os.cpu_count()} cores"),
            Text(f"load {os.getloadavg()[0]:.1f}"),
            Text(f"memory {memory.used / _GIB:.1f} of {memory.total / _GIB:.1f} GiB"),
            Text(f"swap {swap.used / _GIB:.1f} GiB" if swap.total else ""),
        )
        return table


def _gib(mib: int | None) -> str:
    return "?" if mib is None else f"{mib / 1024:.1f}"
