"""`run top`: slots, machine and progress on the whole screen, live; Ctrl-C leaves the work alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from runner import attach
from runner.errors import InputError
from runner.watch import LiveWatcher

if TYPE_CHECKING:
    import argparse

    from rich.console import RenderableType

    from runner.events import Event
    from runner.progress import Progress

_GIB = 1 << 30


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
        super().__init__(progress, trials, console, has_whole_screen=True)

    def handle(self, event: Event) -> None:
        """Takes the event in; it is seen in what is drawn next."""
        self._progress.handle(event)

    def say(self, message: str) -> None:
        """Nothing scrolls here."""

    def _render(self) -> RenderableType:
        return Group(self._machine(), super()._render())

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
