"""One `run`: read the file, plan the trials, hand the plan to the daemon, show what comes of it."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from runner import client, faraway, handover, logout, planning, process, resources
from runner.batch import scriptview
from runner.changes import Changes, some
from runner.code import snapshot
from runner.errors import SystemFaultError
from runner.events import Kind
from runner.model import DONE, LOCAL, Job
from runner.screen import closing
from runner.screen.follow import Follower, Left, noted_signals
from runner.screen.lasting import lasting_output
from runner.screen.progress import Progress
from runner.screen.watch import LiveWatcher, PlainWatcher
from runner.subcommands import preview

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from runner.events import Watcher
    from runner.model import PlannedTrial, Trial
    from runner.planning import Request
    from runner.protocol import Channel, Message
    from runner.resources import Places
    from runner.screen.follow import Signals

EXIT_OK, EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_HANGUP = 0, 1, 130, 129


def run(options: argparse.Namespace) -> int:
    """Does what the command line asks for; returns the exit code.

    Raises:
        InputError: the file or an option is wrong; nothing was written.
        BusyError: a daemon that does not listen to us works in the output directory.
        SystemFaultError: the machine refused to write or to start something.
    """
    request = planning.read(options)
    if options.dry_run:
        if not options.json:
            _doubts(Console(highlight=False, stderr=True), request)
        (preview.print_json if options.json else preview.print_commands)(request.trials(is_preview=True), sys.stdout)
        if not options.json and any(item.executor != LOCAL for item in request.config.options.values()):
            scriptview.print_scripts(request, request.trials(is_preview=True), sys.stdout)
        return EXIT_OK
    if request.config.takes_snapshot and not options.debug:  # a debugger is for the code that is being edited
        request = replace(request, source=snapshot.source(Path.cwd(), request.output))
    with lasting_output():
        process.bash()  # without it nothing may be written
        trials = handover.planned_trials(request)
        config = request.config
        places = resources.places(config.resource, config.options.values(), config.resource_said)
        console = Console(highlight=False)
        try:
            if options.debug:
                return _debug(request, trials, places, console)
            return _run(request, trials, places, console)
        except OSError as error:
            raise SystemFaultError(f"{error.filename or request.output}: {error.strerror}.") from error


def _run(request: Request, trials: list[PlannedTrial], places: Places, console: Console) -> int:
    said = None
    if client.elsewhere(request.output) is not None:
        said = faraway.hand_over(request, trials, places)
    if said is None and request.options.submit is not None:
        said = faraway.submit(request, trials, places)
    if said is not None:
        _greet(console, request, trials, places.origin)
        console.print(Text(said), soft_wrap=True)
        return EXIT_OK
    changes = _changes(trials, request.time)  # reads records, which may be damaged: before anything is asked for
    if request.options.detach:
        channel, *_ = _hand_over(request, trials, places, changes, console)
        channel.close()
        text = "The daemon goes on. `run watch` shows it, `run status` sums it up, `run stop` ends it."
        console.print(text, soft_wrap=True)
        _warn_of_logout(console)
        return EXIT_OK
    with noted_signals() as signals:  # before the plan is told: what it starts may run before the answer is read
        channel, request, trials, answer = _hand_over(request, trials, places, changes, console)
        progress = Progress(Counter(stage for trial in trials for stage in trial.stages), places.room)
        own: dict[str, Trial] = {trial.key: trial for trial in trials}
        left = _watch(channel, answer, signals, request, own, progress, console)
    if left is Left.DETACHED:
        return EXIT_HANGUP
    return _close(request, list(own.values()), progress, left is Left.STOPPED, console)


def _hand_over(
    request: Request, trials: list[PlannedTrial], places: Places, changes: Sequence[str], console: Console
) -> tuple[Channel, Request, list[PlannedTrial], Message]:
    channel, request, trials, answer = handover.hand_over(request, trials, places)
    _greet(console, request, trials, places.origin)
    _tell_difference(console, answer.get("difference") or {})
    for line in changes:
        console.print(Text(line, style="bold"), soft_wrap=True)
    return channel, request, trials, answer


def _watch(
    channel: Channel,
    first: Message,
    signals: Signals,
    request: Request,
    own: dict[str, Trial],
    progress: Progress,
    console: Console,
) -> Left:
    watcher: Watcher = (
        LiveWatcher(progress, len(own), console) if console.is_terminal else PlainWatcher(progress, len(own))
    )
    follower = Follower(channel, own, watcher, progress, lambda: client.connect_or_start(request.output))
    try:
        return follower.follow(first, signals, is_own=True)
    finally:
        watcher.close()
        follower.close()
        if follower.has_left:
            client.wait_until_left(request.output)


def _debug(request: Request, trials: list[PlannedTrial], places: Places, console: Console) -> int:
    from runner.subcommands import debug

    _greet(console, request, trials, places.origin)
    progress, was_stopped = debug.run(request, trials, places)
    return _close(request, trials, progress, was_stopped, console)


# --- what is said ---


def _doubts(console: Console, request: Request) -> None:
    for warning in request.config.warnings:
        console.print(Text(f"Warning: {warning}", style="yellow"), soft_wrap=True)
    orphans = request.config.orphans()
    if orphans:
        text = f"Orphan parameters, which no command uses: {', '.join(orphans)}"
        console.print(Text(text, style="yellow"), soft_wrap=True)


def _greet(console: Console, request: Request, trials: Sequence[PlannedTrial], origin: str) -> None:
    _doubts(console, request)
    jobs = sum(len(trial.stages) for trial in trials)
    count = sum(not trial.is_unit for trial in trials)
    console.print(f"Trials: {count:,}, jobs: {jobs:,}, on {origin}", soft_wrap=True)
    if not trials:
        console.print("`_exclude` leaves out every combination; `run check` counts those of each grid.", soft_wrap=True)


def _tell_difference(console: Console, difference: Message) -> None:
    """What a plan changes in a queue that is there already; of a first plan there is nothing to say."""
    counts = difference.get("counts", {})
    if not counts.keys() & {"waiting", "changed", "running", "dropped", "kept"}:
        return
    parts = [f"{counts[word]:,} {text}" for word, text in _DIFFERENCE.items() if counts.get(word)]
    console.print(Text(f"Applied to the queue: {', '.join(parts)}."), soft_wrap=True)
    for word in ("new", "changed", "dropped", "kept"):
        names = difference["names"].get(word)
        if names:
            more = f" and {counts[word] - len(names):,} more" if counts[word] > len(names) else ""
            console.print(Text(f"  {_DIFFERENCE[word]}: {', '.join(names)}{more}", style="dim"), soft_wrap=True)
    if difference["environment"]:
        console.print(
            Text(f"  environment that differs: {some(difference['environment'])}", style="dim"), soft_wrap=True
        )


_DIFFERENCE = {
    "new": "new",
    "due": "due again",
    "running": "running",
    "waiting": "waiting as before",
    "changed": "waiting, now with another command, other options or other code",
    "finished": "finished",
    "dropped": "no longer asked for, taken out",
    "kept": "no longer asked for, but running (--prune ends them)",
}


def _changes(trials: Sequence[PlannedTrial], time: str) -> list[str]:
    changes = Changes(time)
    for trial in trials:
        changes.note(trial)
    return list(changes.lines())


def _warn_of_logout(console: Console) -> None:
    warning = logout.warning()
    if warning is not None:
        console.print(Text(warning, style="yellow"), soft_wrap=True)


# --- the end ---


def _close(request: Request, trials: Sequence[Trial], progress: Progress, was_stopped: bool, console: Console) -> int:
    jobs = [Job(trial, stage) for trial in trials for stage in trial.stages]
    closing.print_counts(console, closing.counts_by_stage(jobs, progress))
    closing.print_failures(console, progress.failures)
    if was_stopped:
        console.print("\nStopped. `run` goes on from here.")
        return EXIT_INTERRUPTED
    if not request.options.no_subdir:
        _print_results(console, trials, request)
    if progress.count(Kind.INTERRUPT):
        console.print("\nWhat was interrupted is due again: type `run`.")
    is_complete = all(progress.state(job) in DONE for job in jobs)
    return EXIT_OK if is_complete else EXIT_INCOMPLETE


def _print_results(console: Console, trials: Sequence[Trial], request: Request) -> None:
    try:
        closing.print_results(console, trials, request.output)
    except Exception as error:  # noqa: BLE001 - the trials are what they are, whatever their files hold
        console.print(Text(f"\nThe results cannot be shown: {type(error).__name__}: {error}", style="yellow"))
