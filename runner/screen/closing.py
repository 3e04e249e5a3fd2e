"""What `run` leaves on the screen at its end: what completed, failed and was skipped, and the results."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from runner.events import Kind
from runner.logtail import last_line, nothing_said
from runner.model import JobState
from runner.screen import widths
from runner.screen.watch import why
from runner.screen.widths import Column
from runner.text import counted, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

    from runner.events import Event
    from runner.examine.summary import Results
    from runner.model import Job, Trial
    from runner.screen.progress import Progress

_FAILURES_SHOWN = 20
_RESULTS_SHOWN = 30
_COLUMNS = {
    "completed": "green",
    "skipped": "green",
    "failed": "red",
    "blocked": "red",
    "interrupted": "yellow",
    "pruned": "yellow",
    "canceled": "yellow",
    "running": "cyan",
    "not run": "yellow",
}
_WORDS = {
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.TIMEOUT: "failed",
    JobState.BLOCKED: "blocked",
    JobState.INTERRUPTED: "interrupted",
    JobState.PRUNED: "pruned",
    JobState.CANCELED: "canceled",
    JobState.RUNNING: "running",
    JobState.PENDING: "not run",
}


def counts_by_stage(jobs: Iterable[Job], progress: Progress) -> dict[str, Counter[str]]:
    """For each stage, how many jobs came to what."""
    table: dict[str, Counter[str]] = {}
    for job in jobs:
        is_skipped = progress.ended.get(job) is Kind.SKIP
        word = "skipped" if is_skipped else _WORDS[progress.state(job)]
        table.setdefault(job.stage, Counter())[word] += 1
    return table


def print_counts(console: Console, table: Mapping[str, Counter[str]]) -> None:
    """The closing table: a row for each stage, a column for each thing that happened."""
    if not table:
        return
    used = [word for word in _COLUMNS if any(counts[word] for counts in table.values())]
    view = Table(box=None, pad_edge=False, header_style="bold")
    view.add_column("stage")
    for word in used:
        view.add_column(word, justify="right")
    for stage, counts in table.items():
        cells = [Text(f"{counts[word]:,}" if counts[word] else "·", style=_COLUMNS[word]) for word in used]
        view.add_row(stage, *cells)
    console.print()
    console.print(view)


def print_failures(console: Console, failures: Sequence[Event]) -> None:
    """Each failed job with the last line of its log and where the log is; once what many have failed of without one."""
    groups: dict[tuple[object, ...], list[Event]] = {}
    for event in failures:
        alike = (event.job.stage, event.line, event.cause) if not event.log else (event.job,)
        groups.setdefault(alike, []).append(event)
    shown = list(groups.values())[:_FAILURES_SHOWN]
    for events in shown:
        event, others = events[0], f" and {counted(len(events) - 1, 'more trial')}" if len(events) > 1 else ""
        console.print(Text(f"\nFailed: {event.job.stage}, {event.job.trial.name}{others}", style="red"), soft_wrap=True)
        said = event.line or printable(last_line(event.log)) or nothing_said(event.log)
        console.print(Text(f"  {said}"), soft_wrap=True)
        where = f", log: {event.log}" if Path(event.log).is_file() else ""
        console.print(Text(f"  {why(event)}{where}", style="dim"), soft_wrap=True)
    left = len(failures) - sum(map(len, shown))
    if left:
        console.print(f"\n… and {left:,} more that failed.")


def print_results(console: Console, trials: Sequence[Trial], output: Path) -> None:
    """The table of final metrics and the plot of all curves, when any trial wrote a metrics.csv.

    On a terminal the table is made to fit; elsewhere, as in a file, it is whole.
    """
    directories = [Path(trial.output) for trial in trials if not trial.is_unit]
    with_metrics = [directory for directory in directories if (directory / "metrics.csv").is_file()]
    if not with_metrics:
        return
    from runner.examine import summary

    results = summary.collect_results(with_metrics)
    columns = _columns(results)
    fitted = widths.fit(columns, console.width) if console.is_terminal else widths.whole(columns)
    for table in filter(None, fitted.tables):
        console.print()
        _print_table(console, table)
    if len(results.rows) > _RESULTS_SHOWN:
        console.print(f"… and {len(results.rows) - _RESULTS_SHOWN:,} more trials.")
    if fitted.left_out:
        option = "" if output == Path("output") else f" -o {shlex.quote(str(output))}"
        told = f"Left out to fit: {', '.join(fitted.left_out)}; `run table{option}` and the Examiner show all."
        console.print(Text(told))
    picture = summary.plot_curves(with_metrics, output / "curves.png")
    if picture is not None:
        console.print(Text(f"\nCurves of {counted(len(with_metrics), 'trial')}: {picture}"), soft_wrap=True)


def _columns(results: Results) -> list[Column]:
    """The first rows, as text."""
    names = [*results.parameters, *results.metrics]
    values = list(zip(*results.rows[:_RESULTS_SHOWN], strict=True)) or [()] * len(names)
    return [
        Column(
            printable(str(name)),
            tuple(map(_cell, column)),
            is_parameter=place < len(results.parameters),
            is_text=not all(isinstance(value, int | float | None) for value in column),
        )
        for place, (name, column) in enumerate(zip(names, values, strict=True))
    ]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "·" if value is None else printable(str(value))


def _print_table(console: Console, columns: Sequence[tuple[Column, int]]) -> None:
    width = widths.taken(size for _, size in columns)
    view = Table(box=None, pad_edge=False, header_style="bold", width=width)
    for column, size in columns:
        view.add_column(Text(column.header), justify="right", vertical="bottom", overflow="fold", width=size)
    for row in zip(*(column.cells for column, _ in columns), strict=True):
        view.add_row(*map(Text, row))
    console.print(view, crop=False)
