"""`run check`: what a `run` would find, and what looks wrong in the file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from runner import planning, records
from runner.changes import Changes, some
from runner.model import JobState
from runner.naming import HASH_LENGTH, MAX_NAME_BYTES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from runner.model import PlannedTrial
    from runner.planning import Request


def run(options: argparse.Namespace) -> int:
    """Prints the report; nothing is written."""
    request = planning.read(options)
    console = Console(highlight=False, soft_wrap=True)
    _print_grids(console, request)
    tally = Tally(request.time)
    for trial in request.trials(is_preview=True):
        tally.add(trial)
    tally.print(console)
    _print_doubts(console, request)
    return 0


def _print_grids(console: Console, request: Request) -> None:
    for number, sweep in enumerate(request.config.sweeps, start=1):
        size, left = sweep.grid.size, sweep.count()
        without = f", {size - left:,} more excluded" if left < size else ""
        combinations = "combination" if left == 1 else "combinations"
        stages = f", only {', '.join(sweep.stages)}" if sweep.stages else ""
        console.print(Text(f"grid {sweep.title or number}: {left:,} {combinations}{without}{stages}"))


class Tally:
    """Counts what the output directory already has of the trials."""

    def __init__(self, time: str) -> None:
        self.counts: Counter[str] = Counter()
        self.units = 0
        self.changes = Changes(time)
        self.hashed: list[str] = []
        self.long: list[str] = []

    def add(self, trial: PlannedTrial) -> None:
        """Looks at one trial's records."""
        if trial.is_unit:
            self.units += 1
            self.changes.note(trial)
            return
        stat = records.read_stat(trial.directory) if Path(trial.directory).is_dir() else None
        if stat is None:
            self.counts["new"] += 1
        else:
            is_done = all(stat.get(stage) is JobState.COMPLETED for stage in trial.commands)
            self.counts["done" if is_done else "begun"] += 1
            self.changes.note(trial)
        if trial.name.endswith(trial.trial_id[:HASH_LENGTH]):
            is_long = len(trial.name.encode()) >= MAX_NAME_BYTES - 3  # cut where a character ends
            (self.long if is_long else self.hashed).append(trial.name)

    def print(self, console: Console) -> None:
        """The counts and, where there are any, the changed commands and the names with a hash."""
        told = ", ".join(f"{self.counts[word]:,} {word}" for word in ("new", "begun", "done") if self.counts[word])
        console.print(f"trials: {self.counts.total():,} ({told or 'none'})")
        if self.units:
            console.print(f"gathers and decisions of searches: {self.units:,}")
        for line in self.changes.lines():
            console.print(Text(line))
        _list(console, "names cut to 143 bytes, ending with a hash", self.long)
        _list(console, "names ending with a hash, since two trials would have the same", self.hashed)


def _print_doubts(console: Console, request: Request) -> None:
    orphans = request.config.orphans()
    if orphans:
        console.print(Text(f"orphan parameters, which no command uses: {', '.join(orphans)}", style="yellow"))
    for warning in request.config.warnings:
        console.print(Text(f"suspicious: {warning}", style="yellow"))


def _list(console: Console, what: str, names: Sequence[str]) -> None:
    if names:
        console.print(Text(f"{what}: {some(names)}"))
