"""One `run`: read the file, plan the trials, carry the plan out, show what came of it."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from runner import closing, plan, planning, preview, process, records, resources
from runner.changes import Changes
from runner.daemon import Daemon
from runner.errors import SystemFaultError
from runner.events import Kind
from runner.executors.foreground import ForegroundExecutor
from runner.executors.local import LocalExecutor
from runner.lasting import lasting_output
from runner.lock import sole_user
from runner.model import JobState
from runner.progress import Progress
from runner.scheduler import Scheduler
from runner.watch import LiveWatcher, PlainWatcher

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    from runner.events import Watcher
    from runner.executors.base import Executor
    from runner.model import Slot, Trial
    from runner.planning import Request

EXIT_OK, EXIT_INCOMPLETE, EXIT_INTERRUPTED = 0, 1, 130


def run(options: argparse.Namespace) -> int:
    """Does what the command line asks for; returns the exit code.

    Raises:
        InputError: the file or an option is wrong; nothing was written.
        BusyError: another `run` works in the output directory.
        SystemFaultError: the machine refused to write or to start something.
    """
    request = planning.read(options)
    if options.dry_run:
        (preview.print_json if options.json else preview.print_commands)(request.trials(is_preview=True), sys.stdout)
        return EXIT_OK
    with lasting_output():
        return _run(request)


def _run(request: Request) -> int:
    process.bash()  # without it nothing may be written
    console = Console(highlight=False)
    planned = _plan(request)
    slots, origin = resources.slots(request.config.resource)
    try:
        with sole_user(request.output):
            if plan.Journal(request.output).size() != request.journal_size:
                # Another `run` has been here since: its trials and defaults count.
                request = planning.again(request)
                planned = _plan(request)
            _copy_file(request)
            plan.Journal(request.output).append(_entry(request, len(planned)))
            _greet(console, request, planned, origin)
            return _carry_out(planned, slots, console, request)
    except OSError as error:
        raise SystemFaultError(f"{error.filename or request.output}: {error.strerror}.") from error


def _plan(request: Request) -> list[Trial]:
    return list(itertools.islice(request.trials(), 1 if request.options.debug else None))


def _copy_file(request: Request) -> None:
    """Keeps the text that was read, which may have been a pipe's."""
    records.replace_text(str(request.copy), request.config.text)


def _entry(request: Request, count: int) -> plan.Entry:
    asked = {key: value for key, value in vars(request.options).items() if value}
    introduced = request.new_defaults
    return {"kind": "plan", "time": request.time, "options": asked, "trials": count, "introduced": introduced}


def _greet(console: Console, request: Request, planned: Sequence[Trial], origin: str) -> None:
    for warning in request.config.warnings:
        console.print(Text(f"Warning: {warning}", style="yellow"), soft_wrap=True)
    orphans = request.config.orphans()
    if orphans:
        text = f"Orphan parameters, which no command uses: {', '.join(orphans)}"
        console.print(Text(text, style="yellow"), soft_wrap=True)
    jobs = sum(len(trial.commands) for trial in planned)
    console.print(f"Trials: {len(planned):,}, jobs: {jobs:,}, on {origin}", soft_wrap=True)


def _carry_out(planned: Sequence[Trial], slots: Sequence[Slot], console: Console, request: Request) -> int:
    options = request.options
    progress = Progress(Counter(stage for trial in planned for stage in trial.commands), len(slots))
    watcher: Watcher
    if console.is_terminal and not options.debug:
        watcher = LiveWatcher(progress, len(planned), console)
    else:
        watcher = PlainWatcher(progress, len(planned))
    scheduler = Scheduler(slots[:1] if options.debug else slots)
    executor: Executor = ForegroundExecutor() if options.debug else LocalExecutor()
    daemon = Daemon(scheduler, executor, watcher, request.time, os.environ)
    skipped: Counter[str] = Counter()
    try:
        with _polite_signals(daemon, is_ctrl_c_ours=not options.debug):
            daemon.submit(planned, options.force or options.debug, options.take_over)
            changes = Changes()
            for trial in planned:
                states = scheduler.states(trial).items()
                finished = [stage for stage, state in states if state is JobState.COMPLETED]
                skipped.update(finished)
                changes.note(trial, finished)
            for line in changes.lines():
                watcher.say(line)
            # The plan lives as long as the process: the garbage collector need not look at it again and again.
            gc.freeze()
            daemon.run()
    finally:
        executor.close()
        watcher.close()
    final = [scheduler.states(trial) for trial in planned]
    closing.print_counts(console, closing.counts_by_stage(final, skipped))
    closing.print_failures(console, progress.failures)
    if daemon.was_stopped:
        console.print("\nStopped. `run` goes on from here.")
        return EXIT_INTERRUPTED
    if not options.no_subdir:
        _print_results(console, planned, request)
    if progress.ended[Kind.INTERRUPT]:
        console.print("\nWhat was interrupted is due again: type `run`.")
    return _exit_code(final, progress)


def _print_results(console: Console, planned: Sequence[Trial], request: Request) -> None:
    try:
        closing.print_results(console, planned, request.output)
    except Exception as error:  # noqa: BLE001 - the trials are what they are, whatever their files hold
        console.print(Text(f"\nThe results cannot be shown: {type(error).__name__}: {error}", style="yellow"))


def _exit_code(final: Sequence[Mapping[str, JobState]], progress: Progress) -> int:
    is_complete = all(state is JobState.COMPLETED for states in final for state in states.values())
    return EXIT_OK if is_complete and not progress.ended[Kind.FAIL] else EXIT_INCOMPLETE


@contextmanager
def _polite_signals(daemon: Daemon, is_ctrl_c_ours: bool) -> Iterator[None]:
    """Ctrl-C, a closed terminal and SIGTERM end the run politely, a second one hard.

    On the terminal of `-d` Ctrl-C is the program's, as under a shell.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        daemon.request_stop()

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # What was ignored when `run` was typed, as under nohup, stays so.
    heeded = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    old = {number: signal.signal(number, stop) for number in heeded}
    if not is_ctrl_c_ours and signal.SIGINT in heeded:
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
