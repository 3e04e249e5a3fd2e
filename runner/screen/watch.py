"""Shows a run: a line for each event, and on a terminal a live view below them."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.events import Event, Kind
from runner.logtail import last_line
from runner.screen import widths
from runner.screen.progress import Progress, duration, whole_duration
from runner.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

_COLORS = {
    Kind.DONE: "green",
    Kind.SKIP: "green",
    Kind.FAIL: "bold red",
    Kind.BLOCK: "red",
    Kind.INTERRUPT: "yellow",
    Kind.RETRY: "yellow",
    Kind.CANCEL: "yellow",
    Kind.PRUNE: "yellow",
    Kind.DROP: "yellow",
    Kind.ADOPT: "cyan",
}
_FAILURES_SHOWN = 5
_SLOTS_SHOWN = 16
_FLUSH_S = 0.2


def line(event: Event, trials: int, width: int | None = None) -> str:
    """One event as one line, as mlrunner prints it; on a terminal of this width it takes no more than that."""
    digits = len(str(trials))
    where = f"{event.slot}, " if event.slot else ""
    number = f"{event.job.trial.index + 1:{digits}d}/{trials}"
    what = ""
    if event.kind is Kind.DONE:
        what = f"{duration(event.seconds)}, "
    elif event.kind is Kind.FAIL:
        what = f"{_took(event)}{why(event)}, "
    elif event.kind is Kind.RETRY:
        what = f"{_took(event)}{why(event)}, due again, "
    elif event.kind is Kind.PRUNE:
        what = f"{_took(event)}fell behind, "
    elif event.kind is Kind.DROP:
        what = "no longer asked for, "
    elif event.kind is Kind.BLOCK:
        what = f"{event.line or 'an earlier stage failed'}, "
    elif event.kind in {Kind.START, Kind.ADOPT} and event.attempt > 1:
        what = f"attempt {event.attempt}, "
    head, trial = f"{event.kind.value:<9} {where}{event.job.stage}: {number}, {what}", event.job.trial
    whole = f"{head}{trial.shown}"
    return whole if width is None or cell_len(whole) <= width else _fitted(head, trial.name, width)


def _fitted(head: str, name: str, width: int) -> str:
    """Without the directory; the name, by which trials are told apart, has half of the line at least."""
    name = widths.without_middle(name, max(width - cell_len(head), width // 2))
    room = width - cell_len(name)
    return f"{head if cell_len(head) <= room else f'{head[: room - 2]}… '}{name}"


def _took(event: Event) -> str:
    return f"{duration(event.seconds)}, " if event.log else ""


def why(event: Event) -> str:
    """The cause that the runner has found, else the exit code."""
    if event.exit_code is None:
        return event.cause or "no exit code"
    has_name = event.cause not in {"", "exit", "traceback"}
    return f"exit code {event.exit_code}{f', {event.cause}' if has_name else ''}"


class PlainWatcher:
    """A line for each event on standard output, for pipes and batch logs."""

    def __init__(self, progress: Progress, trials: int) -> None:
        self._progress = progress
        self._trials = trials
        self._flushed = 0.0

    def handle(self, event: Event) -> None:
        """Prints the event."""
        if not self._progress.handle(event):
            return
        sys.stdout.write(line(event, max(self._trials, self._progress.last)) + "\n")

    def say(self, message: str) -> None:
        """Prints the message."""
        sys.stdout.write(message + "\n")
        sys.stdout.flush()

    def tick(self, now: float) -> None:
        """Lets whoever reads the pipe see what has been printed."""
        if now - self._flushed > _FLUSH_S:
            self._flushed = now
            sys.stdout.flush()

    def close(self) -> None:
        """Prints what is left."""
        sys.stdout.flush()


class LiveWatcher:
    """Event lines that scroll, and below them the slots, the progress, the failures and the time left."""

    _SKIPS_SHOWN = 5

    def __init__(self, progress: Progress, trials: int, console: Console, has_whole_screen: bool = False) -> None:
        self._progress = progress
        self._trials = trials
        self._console = console
        self._skips = 0
        self._lines: list[Text] = []
        self._printed = 0.0
        self._live = Live(
            console=console,
            get_renderable=lambda: self._render(),
            refresh_per_second=2 if has_whole_screen else 8,
            transient=not has_whole_screen,
            screen=has_whole_screen,
        )
        self._live.start()

    def handle(self, event: Event) -> None:
        """Prints the event above the live view; of many skipped jobs only the first ones."""
        if not self._progress.handle(event):
            return
        if event.kind is Kind.SKIP:
            self._skips += 1
            if self._skips > self._SKIPS_SHOWN:
                return
        else:
            self._tell_skips()
        text = line(event, max(self._trials, self._progress.last), self._console.width)
        self._print(text, _COLORS.get(event.kind, ""))

    def say(self, message: str) -> None:
        """Prints the message above the live view."""
        self._flush()
        self._console.print(Text(message, style="bold"))

    def tick(self, now: float) -> None:
        """Prints what has come; the view redraws itself."""
        if now - self._printed > _FLUSH_S / 2:
            self._printed = now
            self._flush()

    def close(self) -> None:
        """Takes the live view off the screen."""
        self._tell_skips()
        self._flush()
        self._live.stop()

    def _tell_skips(self) -> None:
        hidden = self._skips - self._SKIPS_SHOWN
        self._skips = 0
        if hidden > 0:
            self._print(f"SKIP      … and {hidden:,} more that are finished", "green")

    def _print(self, text: str, style: str) -> None:
        self._lines.append(Text(text, style=style))

    def _flush(self) -> None:
        """Prints the collected lines at once: each print lays the whole view out anew."""
        if self._lines:
            lines, self._lines = Text("\n").join(self._lines), []
            self._console.print(lines, soft_wrap=False, overflow="ellipsis", no_wrap=True, crop=True)

    # --- the live view ---

    def _render(self) -> RenderableType:
        now = time.time()
        parts: list[RenderableType] = [Text("")]
        if self._progress.running:
            parts.append(self._slots(now))
        if self._progress.failures:
            parts.append(self._failures())
        parts.append(self._bar(now))
        return Group(*parts)

    def _slots(self, now: float) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(no_wrap=True, style="cyan")
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, ratio=2, overflow="ellipsis")
        table.add_column(no_wrap=True, ratio=3, overflow="ellipsis", style="dim")
        running = sorted(self._progress.running.values(), key=lambda event: (len(event.slot), event.slot))
        for event in running[:_SLOTS_SHOWN]:
            output = printable(last_line(event.log))
            elapsed = whole_duration(max(0.0, now - event.time))
            table.add_row(event.slot, event.job.stage, elapsed, event.job.trial.name, output)
        if len(running) > _SLOTS_SHOWN:
            table.add_row(f"… and {len(running) - _SLOTS_SHOWN} more")
        return table

    def _failures(self) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(no_wrap=True, style="red")
        table.add_column(no_wrap=True, ratio=2, overflow="ellipsis")
        table.add_column(no_wrap=True, ratio=3, overflow="ellipsis", style="dim")
        for event in self._progress.failures[-_FAILURES_SHOWN:]:
            said = event.line or printable(last_line(event.log))
            table.add_row(f"FAIL {event.job.stage}", event.job.trial.name, said)
        return table

    def _bar(self, now: float) -> Table:
        progress = self._progress
        left = progress.time_left_s(now)
        counts = f"{progress.over:,}/{progress.total:,} jobs"
        failed = len(progress.failed)
        tail = Text(counts) + (Text(f", {failed:,} failed", style="red") if failed else Text(""))
        tail += Text("" if left is None else f", {whole_duration(left)} left", style="dim")
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(ratio=1)
        table.add_column(no_wrap=True)
        table.add_row(ProgressBar(total=max(1, progress.total), completed=progress.over), tail)
        return table
