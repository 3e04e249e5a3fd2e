"""`run watch` and `run wait`: seeing a daemon's work through without having asked for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from runner import client, faraway
from runner.errors import InputError
from runner.model import DONE, Job
from runner.screen import closing
from runner.screen.follow import Follower, Left, noted_signals, trial_of
from runner.screen.lasting import lasting_output
from runner.screen.progress import Progress
from runner.screen.watch import LiveWatcher, PlainWatcher
from runner.subcommands import overview
from runner.text import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from runner.events import Event, Watcher
    from runner.protocol import Channel

EXIT_OK, EXIT_INCOMPLETE, EXIT_INTERRUPTED = 0, 1, 130


def run(options: argparse.Namespace) -> int:
    """Watches, or waits in silence, to the end; Ctrl-C, and `timeout`, leave the work alone."""
    return follow(options, None if options.subcommand == "wait" else _watcher)


def follow(options: argparse.Namespace, watcher_of: Callable[[Progress, int, Console], Watcher] | None) -> int:
    """Attaches to the daemon with a watcher of this kind, None: in silence; returns the exit code."""
    output = Path(options.output)
    if not output.is_dir():
        raise InputError(f"-o {output}: no such directory.")
    if watcher_of is None:
        faraway.wait(output)
    channel = client.reach(output)
    if channel is None:
        return _without_daemon(output)
    with lasting_output():
        return _attach(channel, output, watcher_of)


def _attach(channel: Channel, output: Path, watcher_of: Callable[[Progress, int, Console], Watcher] | None) -> int:
    first = channel.ask({"do": "watch", "trials": True})
    trials = [trial_of(row) for row in first["trials"]]
    progress = Progress(Counter(stage for trial in trials for stage in trial.stages), first["slots"])
    console = Console(highlight=False)
    watcher = _Silent(progress) if watcher_of is None else watcher_of(progress, len(trials), console)
    own = {trial.key: trial for trial in trials}
    follower = Follower(channel, own, watcher, progress, lambda: client.connect_or_start(output))
    try:
        with noted_signals() as signals:
            left = follower.follow(first, signals, is_own=False)
    finally:
        watcher.close()
        follower.close()
    if left is Left.DETACHED:
        console.print("Detached; the daemon goes on.")
        return EXIT_INTERRUPTED
    jobs = [Job(trial, stage) for trial in own.values() for stage in trial.stages]
    if watcher_of is not None:
        closing.print_counts(console, closing.counts_by_stage(jobs, progress))
        closing.print_failures(console, progress.failures)
    if left is Left.STOPPED:
        return EXIT_INTERRUPTED
    return EXIT_OK if all(progress.state(job) in DONE for job in jobs) else EXIT_INCOMPLETE


def _watcher(progress: Progress, trials: int, console: Console) -> Watcher:
    return LiveWatcher(progress, trials, console) if console.is_terminal else PlainWatcher(progress, trials)


def _without_daemon(output: Path) -> int:
    """Nothing is left to wait for: the records tell."""
    view = overview.look(output, with_trials=True)
    states = [state for trial in view.trials if trial.sweep != overview.EARLIER for state in trial.states.values()]
    if not states:
        print("No daemon works here, and nothing has been asked for; `run` begins.")
        return EXIT_INCOMPLETE
    done = sum(state in DONE for state in states)
    if done < len(states):
        said = f"{done:,} of {counted(len(states), 'job')} complete"
        print(f"No daemon works here: {said}; `run status` tells more, `run` goes on.")
        return EXIT_INCOMPLETE
    print("No daemon works here: all is complete.")
    return EXIT_OK


class _Silent:
    """Takes events in and shows nothing."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def handle(self, event: Event) -> None:
        """Counts."""
        self._progress.handle(event)

    def say(self, message: str) -> None:
        """Says nothing."""

    def tick(self, now: float) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Has nothing to close."""
