"""`run status`: how far everything is, what runs, and what failed and why."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner import protocol
from runner.errors import InputError
from runner.logtail import nothing_said
from runner.model import DONE, JobState
from runner.screen.progress import whole_duration
from runner.selection import named
from runner.subcommands import overview
from runner.text import counted, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from runner.subcommands.overview import Overview, TrialView

_FAILURES_SHOWN = 20
_COLORS = {
    "finished": "green",
    "failed": "red",
    "timeout": "red",
    "blocked": "red",
    "running": "cyan",
    "interrupted": "yellow",
    "pruned": "yellow",
    "canceled": "yellow",
}
EXIT_OK = 0


def run(options: argparse.Namespace) -> int:
    """Prints the state of an output directory, or of every daemon of this user on this machine."""
    console = Console(highlight=False)
    if options.all:
        return _print_daemons(console, options.json)
    output = Path(options.output)
    if not output.is_dir():
        raise InputError(f"-o {output}: no such directory.")
    view = overview.look(output, with_trials=bool(options.names) or options.json or options.trials)
    if options.json:
        print(json.dumps(_as_json(view, options.names)))
        return EXIT_OK
    _print_head(console, view)
    if options.names or options.trials:
        _print_trials(console, named(view.trials, options.names) if options.names else view.trials)
    else:
        _print_counts(console, view)
        for item in view.searches:
            console.print(Text(printable(item.line())), soft_wrap=True)
        _print_running(console, view)
        _print_places(console, view)
        _print_failures(console, view.failed)
        _print_blocked(console, view)
    return EXIT_OK


def _as_json(view: Overview, names: Sequence[str]) -> dict[str, object]:
    daemon = view.daemon
    trials = named(view.trials, names) if names else view.trials
    return {
        "daemon": None if daemon is None else {"pid": daemon.pid, "host": daemon.host, "started": daemon.started},
        "paused": view.paused,
        "places": [
            dict(zip(("label", "busy", "why_idle", "name", "used_mib", "total_mib"), place, strict=True))
            for place in view.places
        ],
        "sweeps": [
            {"sweep": sweep, "stages": {stage: dict(counts) for stage, counts in stages.items()}}
            for sweep, stages in view.counts.items()
        ],
        "searches": [asdict(item) for item in view.searches],
        "blocked": view.blocked,
        "trials": [
            {
                "number": trial.index + 1,
                "name": trial.name,
                "sweep": trial.sweep,
                "directory": trial.directory,
                "states": trial.states,
                "failures": [asdict(failure) for failure in overview.failures(trial)] if _is_bad(trial) else [],
            }
            for trial in trials
        ],
    }


def _is_bad(trial: TrialView) -> bool:
    return bool({JobState.FAILED.value, JobState.TIMEOUT.value} & set(trial.states.values()))


def _what_is_left(view: Overview) -> str:
    asked = [counts for sweep, stages in view.counts.items() if sweep != overview.EARLIER for counts in stages.values()]
    if not asked:
        return "nothing has been asked for; `run` begins."
    done = {state.value for state in DONE}
    is_complete = not any(count for counts in asked for state, count in counts.items() if state not in done)
    return "all is complete." if is_complete else "what is not finished goes on with `run`."


def _print_head(console: Console, view: Overview) -> None:
    if view.daemon is None and view.job is not None:
        console.print(f"The daemon is {view.job}, which does not run now.")
    elif view.daemon is None:
        console.print(f"No daemon works here: {_what_is_left(view)}")
    else:
        since = f"pid {view.daemon.pid} on {view.daemon.host}, since {view.daemon.started}"
        doing = ", about to leave" if view.is_stopping else ""
        console.print(f"Daemon: {since}{doing}", soft_wrap=True)
    if view.paused is None:
        console.print(Text("Paused: nothing starts until `run resume`.", style="yellow"))
    elif view.paused:
        names = ", ".join(view.paused)
        console.print(Text(f"Paused: {names}; `run resume` goes on.", style="yellow"), soft_wrap=True)


def _print_counts(console: Console, view: Overview) -> None:
    states = [
        state.value
        for state in JobState
        if any(counts[state.value] for stages in view.counts.values() for counts in stages.values())
    ]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sweep")
    table.add_column("stage")
    for state in states:
        table.add_column("waiting" if state == "pending" else state, justify="right")
    for sweep, stages in view.counts.items():
        for stage, counts in stages.items():
            cells = [
                Text(f"{counts[state]:,}" if counts[state] else "·", style=_COLORS.get(state, "")) for state in states
            ]
            table.add_row(sweep, stage, *cells)
    console.print(table)


def _print_running(console: Console, view: Overview) -> None:
    if not view.running:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("slot", "stage", "running for", "trial"):
        table.add_column(name, no_wrap=True)
    for _, name, stage, slot, started, attempt in view.running:
        again = f" (attempt {attempt})" if attempt > 1 else ""
        table.add_row(slot, f"{stage}{again}", whole_duration(max(0.0, time.time() - started)), name)
    console.print()
    console.print(table)


def _print_places(console: Console, view: Overview) -> None:
    """The share of time in which each place was busy; alike ones in one line."""
    if not view.places:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("place", no_wrap=True)
    table.add_column("busy", justify="right")
    table.add_column("now")
    alike: dict[str, list[tuple[str, float]]] = {}
    for label, busy, why, name, used_mib, total_mib in view.places:
        if label.startswith("cpu"):
            alike.setdefault(why, []).append((label, busy))
        else:
            memory = "" if used_mib is None else f"{used_mib / 1024:.1f} of {(total_mib or 0) / 1024:.1f} GiB"
            table.add_row(label, f"{busy:.0%}", Text(", ".join(part for part in (name, memory, why) if part)))
    for why, members in alike.items():
        label = members[0][0] if len(members) == 1 else f"{len(members)} CPU slots"
        table.add_row(label, f"{sum(busy for _, busy in members) / len(members):.0%}", why)
    console.print()
    console.print(table)


def _print_failures(console: Console, failed: Sequence[TrialView]) -> None:
    for trial in failed[:_FAILURES_SHOWN]:
        for failure in overview.failures(trial):
            code = "no exit code" if failure.exit_code is None else f"exit code {failure.exit_code}"
            cause = f", {failure.cause}" if failure.cause not in {"", "exit"} else ""
            console.print(Text(f"\nFailed: {failure.stage}, {trial.name} ({code}{cause})", style="red"), soft_wrap=True)
            console.print(Text(f"  {printable(failure.line) or nothing_said(failure.log)}"), soft_wrap=True)
    if len(failed) > _FAILURES_SHOWN:
        console.print(f"\n… and {len(failed) - _FAILURES_SHOWN:,} more trials that failed.")


def _print_blocked(console: Console, view: Overview) -> None:
    for name, why in list(view.blocked.items())[:_FAILURES_SHOWN]:
        console.print(Text(f"\nBlocked: {printable(name)}", style="red"), soft_wrap=True)
        console.print(Text(f"  {printable(why)}"), soft_wrap=True)
    if len(view.blocked) > _FAILURES_SHOWN:
        console.print(f"\n… and {len(view.blocked) - _FAILURES_SHOWN:,} more that are blocked.")


def _print_trials(console: Console, trials: Sequence[TrialView]) -> None:
    for trial in trials:
        line = Text(f"{trial.index + 1:>6}  {trial.name}  ")
        for stage, state in trial.states.items():
            line.append(f" {stage}: ")
            line.append("waiting" if state == "pending" else state, style=_COLORS.get(state, ""))
        console.print(line, soft_wrap=True)
    _print_failures(console, [trial for trial in trials if _is_bad(trial)])


def _print_daemons(console: Console, is_json: bool) -> int:
    found = []
    for path in sorted(protocol.socket_directory().glob("*.sock")):
        try:
            channel = protocol.Channel(path)
            answer = channel.ask({"do": "status"})
            channel.close()
        except protocol.ConnectionLostError:
            continue
        found.append(
            {key: answer[key] for key in ("pid", "output", "counts", "slots")} | {"running": len(answer["running"])}
        )
    if is_json:
        print(json.dumps(found))
        return EXIT_OK
    if not found:
        console.print("No daemon of yours works on this machine.")
    for item in found:
        waiting = sum(count for *_, state, count in item["counts"] if state == "pending")
        what = f"{item['running']} running on {counted(len(item['slots']), 'slot')}, {waiting:,} waiting"
        console.print(f"{item['output']}: pid {item['pid']}, {what}", soft_wrap=True)
    return EXIT_OK
