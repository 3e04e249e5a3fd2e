"""One `run`: read the file, plan the trials, carry the plan out, show what came of it."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import shutil
import signal
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from runner import closing, config, plan, resources, trials
from runner.config import CpuResource
from runner.daemon import Daemon
from runner.directories import Directories
from runner.errors import BusyError, InputError, SystemFaultError
from runner.events import Kind
from runner.executors.local import LocalExecutor
from runner.model import JobState
from runner.progress import Progress
from runner.scheduler import Scheduler
from runner.watch import LiveWatcher, PlainWatcher

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    from runner.config import Config, Resource
    from runner.events import Watcher
    from runner.model import Slot, Trial
    from runner.values import Params

EXIT_OK, EXIT_INCOMPLETE, EXIT_INTERRUPTED = 0, 1, 130


def run(options: argparse.Namespace) -> int:
    """Does what the command line asks for; returns the exit code.

    Raises:
        InputError: the file or an option is wrong; nothing was written.
        BusyError: another `run` works in the output directory.
        SystemFaultError: the machine refused to write or to start something.
    """
    console = Console(highlight=False)
    selected = _configuration(options)
    output = Path(options.output)
    if output.exists() and not output.is_dir():
        raise InputError(f"-o {output}: is a file; name a directory.")
    started = time.strftime("%Y%m%d.%H%M%S")
    journal = plan.Journal(output)
    introduced = journal.introduced()
    new_defaults = plan.newly_introduced(selected.default, introduced)
    planned = _trials(selected, introduced | new_defaults, options.output, started)
    for warning in selected.warnings:
        console.print(Text(f"Warning: {warning}", style="yellow"), soft_wrap=True)
    if options.dry_run:
        _print_commands(planned)
        return EXIT_OK
    slots, origin = resources.slots(selected.resource)
    with _sole_user(output):
        _copy_file(selected.path, output, options.title)
        journal.append(_entry(options, started, len(planned), new_defaults))
        _greet(console, selected, planned, origin)
        return _carry_out(planned, slots, console, output, started, options)


def _configuration(options: argparse.Namespace) -> Config:
    selected = trials.select(config.load(Path(options.yaml)), options.title, options.command)
    if options.resource is None:
        return selected
    return replace(selected, resource=_resource_option(options.resource))


def _resource_option(words: Sequence[str]) -> Resource:
    if list(words) == ["auto"]:
        return "auto"
    cpu = re.fullmatch(r"cpu:([1-9]\d*)", words[0])
    if cpu and len(words) == 1:
        return CpuResource(cpu=int(cpu[1]))
    for word in words:
        if not re.fullmatch(r"[\w-]+(,[\w-]+)*", word) or word == "auto":
            raise InputError(f"-r {word}: no resource; allowed: GPU indices such as 0 1 or 0,1 2,3, or cpu:4, or auto.")
    return list(words)


def _trials(selected: Config, introduced: Params, output: str, started: str) -> list[Trial]:
    directories = Directories(Path(output), introduced)
    drafts = trials.draft(selected, introduced)
    return list(trials.complete(drafts, selected.templates, output, started, directories.name_of))


def _print_commands(planned: Sequence[Trial]) -> None:
    for trial in planned:
        print(f"# {trial.index + 1}/{len(planned)}, {trial.output}")
        for command in trial.commands.values():
            print(command)


@contextmanager
def _sole_user(output: Path) -> Iterator[None]:
    """Holds the output directory; the lock ends with the process, however it ends."""
    state = output / plan.STATE_DIRECTORY
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise SystemFaultError(f"{error.filename}: {error.strerror}; choose another directory with -o.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BusyError(
            f"{output}: another `run` works here; wait for it, or choose another directory with -o."
        ) from None
    finally:
        os.close(lock)


def _copy_file(path: Path, output: Path, title: str | None) -> None:
    name = path.name if title is None else f"{path.name}.{title}"
    try:
        shutil.copyfile(path, output / name)
    except shutil.SameFileError:
        return
    except OSError as error:
        raise SystemFaultError(f"{output / name}: {error.strerror}.") from error


def _entry(options: argparse.Namespace, started: str, count: int, new_defaults: Params) -> plan.Entry:
    asked = {key: value for key, value in vars(options).items() if value}
    return {"kind": "plan", "time": started, "options": asked, "trials": count, "introduced": new_defaults}


def _greet(console: Console, selected: Config, planned: Sequence[Trial], origin: str) -> None:
    orphans = selected.orphans()
    if orphans:
        text = f"Orphan parameters, which no command uses: {', '.join(orphans)}"
        console.print(Text(text, style="yellow"), soft_wrap=True)
    jobs = sum(len(trial.commands) for trial in planned)
    combinations = trials.sweep_sizes(selected.sweeps)
    some_twice = f" ({combinations:,} combinations, some twice)" if combinations > len(planned) else ""
    console.print(f"Trials: {len(planned):,}{some_twice}, jobs: {jobs:,}, on {origin}", soft_wrap=True)


def _carry_out(
    planned: Sequence[Trial],
    slots: Sequence[Slot],
    console: Console,
    output: Path,
    started: str,
    options: argparse.Namespace,
) -> int:
    progress = Progress(Counter(stage for trial in planned for stage in trial.commands), len(slots))
    watcher: Watcher
    if console.is_terminal:
        watcher = LiveWatcher(progress, len(planned), console)
    else:
        watcher = PlainWatcher(progress, len(planned))
    scheduler = Scheduler(slots)
    executor = LocalExecutor()
    daemon = Daemon(scheduler, executor, watcher, started, os.environ)
    skipped: Counter[str] = Counter()
    try:
        with _polite_signals(daemon):
            daemon.submit(planned, options.force, options.take_over)
            for trial in planned:
                states = scheduler.states(trial).items()
                skipped.update(stage for stage, state in states if state is JobState.COMPLETED)
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
    closing.print_results(console, planned, output)
    if progress.ended[Kind.INTERRUPT]:
        console.print("\nWhat was interrupted is due again: type `run`.")
    return _exit_code(final, progress)


def _exit_code(final: Sequence[Mapping[str, JobState]], progress: Progress) -> int:
    is_complete = all(state is JobState.COMPLETED for states in final for state in states.values())
    return EXIT_OK if is_complete and not progress.ended[Kind.FAIL] else EXIT_INCOMPLETE


@contextmanager
def _polite_signals(daemon: Daemon) -> Iterator[None]:
    """Ctrl-C, a closed terminal and SIGTERM end the run politely, a second one hard."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        daemon.request_stop()

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
