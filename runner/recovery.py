"""What an earlier run left: which stages are finished, which still run, which were cut off."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner import records
from runner.errors import InputError
from runner.model import JobState, Outcome
from runner.process import ExitRecord

if TYPE_CHECKING:
    from runner.executors.base import Executor
    from runner.model import Trial
    from runner.process import Host
    from runner.records import Attempt, History

EXIT_SAVED = 75  # the program saved its state and wants to be run again


@dataclass(frozen=True)
class Adopted:
    """An attempt that still runs, now watched by this daemon."""

    stage: str
    attempt: int
    native_id: int
    slot: str
    log: str
    started: datetime


@dataclass(frozen=True)
class Found:
    """A trial as its records show it: each stage's state and number of attempts, and what still runs.

    `is_new`: it has no directory yet.
    """

    states: dict[str, JobState]
    attempts: dict[str, int]
    adopted: tuple[Adopted, ...] = ()
    is_new: bool = False


def state_of(exit_code: int | None, is_stopping: bool) -> JobState:
    """The state in which an attempt ends; `is_stopping` when it was asked to leave."""
    if exit_code == 0:
        return JobState.COMPLETED
    if exit_code is None or exit_code == EXIT_SAVED or is_stopping:
        return JobState.INTERRUPTED
    return JobState.FAILED


def exit_record(directory: str, stage: str, attempt: int) -> ExitRecord:
    """Where the shell of an attempt writes its exit code."""
    path = os.path.abspath(records.attempts_file(directory))  # noqa: PTH100 - called for every job
    return ExitRecord(path, records.exit_prefix(stage, attempt))


def recover(trial: Trial, executor: Executor, host: Host, is_forced: bool, takes_over: bool) -> Found:
    """Reads a trial's records; closes attempts that are over, and adopts those that run.

    Raises:
        InputError: an attempt may still run on another host.
    """
    if not os.path.isdir(trial.directory):  # noqa: PTH112 - called for every trial
        return Found(dict.fromkeys(trial.commands, JobState.PENDING), {}, is_new=True)
    stat = records.read_stat(trial.directory)
    if not is_forced and all(stat.get(stage) is JobState.COMPLETED for stage in trial.commands):
        return Found(dict.fromkeys(trial.commands, JobState.COMPLETED), {})
    history = records.read_attempts(trial.directory)
    adopted = []
    told = dict(stat)  # without an attempt: what mlrunner wrote
    for stage in trial.commands:
        last = history.last(stage)
        if last is not None and last.end is not None:
            told[stage] = JobState(last.end["state"])
        elif last is not None:
            running = _adopt(last, trial.directory, executor, host, takes_over)
            if running is not None:
                adopted.append(running)
                told[stage] = JobState.RUNNING
            # `stat` says so only after an end was recorded: what is missing there was lost later.
            elif stat.get(stage) is not JobState.COMPLETED:
                told[stage] = _close(last, trial.directory)
        elif stat.get(stage) is JobState.RUNNING and os.path.exists(records.attempts_file(trial.directory)):  # noqa: PTH110
            path = records.attempts_file(trial.directory)
            raise records.DamagedRecordError(
                f"{path}: lacks the attempt of `{stage}` that runs by `stat`; end what is left of it, delete `stat`."
            )
    if told != stat:
        # The end of an attempt is recorded first; a kill came before `stat` said so too.
        records.write_stat(trial.directory, told)
    is_done = {stage: told.get(stage) is JobState.COMPLETED and not is_forced for stage in trial.commands}
    states = {stage: JobState.COMPLETED if done else JobState.PENDING for stage, done in is_done.items()}
    return Found(states, _counts(history), tuple(adopted))


def _counts(history: History) -> dict[str, int]:
    return {attempt.stage: attempt.number for attempt in history.attempts}


def _adopt(attempt: Attempt, directory: str, executor: Executor, host: Host, takes_over: bool) -> Adopted | None:
    start = attempt.start
    # The boot id is one machine's alone; its name may change.
    is_here = (start["boot"], start["pid_namespace"]) == (host.boot, host.pid_namespace)
    if not is_here:
        # The same machine after another boot: its processes are dead.
        is_dead = start["host"] == host.name and start["boot"] != host.boot
        if is_dead or takes_over:
            return None
        raise InputError(
            f"{directory}: `{attempt.stage}` was started on host {start['host']} at {start['started']} and has "
            f"no recorded end, so that it may still run there. Use `run` there; or, when it is dead, --take-over."
        )
    native_id = executor.adopt(attempt.process, exit_record(directory, attempt.stage, attempt.number))
    if native_id is None:
        return None
    started = datetime.fromisoformat(start["started"])
    return Adopted(attempt.stage, attempt.number, native_id, start["slot"], start["log"], started)


def _close(attempt: Attempt, directory: str) -> JobState:
    """Writes the end of an attempt that nobody watched; its exit code tells how it ended."""
    # Read anew: it may have ended after the records were read and before its process was looked for.
    code = records.read_exit_code(directory, attempt.stage, attempt.number)
    ended = datetime.now(UTC)
    seconds = (ended - datetime.fromisoformat(attempt.start["started"])).total_seconds()
    outcome = Outcome(state_of(code, is_stopping=False), code, seconds)
    record = records.end_record(attempt.stage, attempt.number, outcome, ended.isoformat(timespec="milliseconds"))
    records.append_attempt(directory, record)
    return outcome.state
