"""What an earlier run left: which stages are finished, which still run, which were cut off."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from runner import process, records, triage
from runner.errors import InputError
from runner.executors.batch import Why
from runner.logtail import read_tail
from runner.metricsfile import step_reached
from runner.model import BLOCKING, JobState, Outcome
from runner.process import ExitRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from runner.executors.base import Executor
    from runner.model import Trial
    from runner.options import Retry
    from runner.process import Host
    from runner.records import Attempt, History

EXIT_SAVED = 75  # the program saved its state and wants to be run again


@dataclass(frozen=True)
class Fate:
    """What a batch system says of a task that is over, where the records of its attempts say nothing."""

    why: Why | None = None
    text: str = ""

    def state(self, attempt: Attempt, directory: str) -> JobState:
        """What an attempt came to that was in the task."""
        if self.why is Why.TIME_LIMIT:
            # What has come no further in its time would not the next time either.
            has_progressed = step_reached(directory) > (attempt.start.get("reached") or 0)
            return JobState.INTERRUPTED if has_progressed else JobState.TIMEOUT
        states = {Why.OUT_OF_MEMORY: JobState.FAILED, Why.CANCELED: JobState.CANCELED}
        return JobState.INTERRUPTED if self.why is None else states.get(self.why, JobState.INTERRUPTED)


UNKNOWN = Fate()


@dataclass(frozen=True)
class Adopted:
    """An attempt that still runs, now watched by this daemon."""

    stage: str
    attempt: int
    native_id: int
    slot: str
    log: str
    started: datetime
    shares: Mapping[str, Fraction]  # of the GPUs that it holds
    fallback: int  # the one of its commands for want of memory that it runs


@dataclass(frozen=True)
class Found:
    """A trial as its records show it: each stage's state and number of attempts, and what still runs.

    `is_new`: it has no directory yet; `failures`: how often each stage failed since the trial was last asked for;
    `code`: what its last attempt ran; `fallbacks`: of each stage's commands for want of memory the next one; `resumed`:
    how often each stage was interrupted since the trial was last asked for; `batch`: the one of its last attempt.
    """

    states: dict[str, JobState]
    attempts: dict[str, int]
    adopted: tuple[Adopted, ...] = ()
    is_new: bool = False
    failures: dict[str, int] = field(default_factory=dict)
    code: str | None = None
    fallbacks: dict[str, int] = field(default_factory=dict)
    resumed: dict[str, int] = field(default_factory=dict)
    batch: str | None = None


def state_of(exit_code: int | None) -> JobState:
    """The state in which an attempt ended that nobody watched."""
    if exit_code == 0:
        return JobState.COMPLETED
    if exit_code is None or exit_code == EXIT_SAVED:
        return JobState.INTERRUPTED
    return JobState.FAILED


def exit_record(directory: str, stage: str, attempt: int) -> ExitRecord:
    """Where the shell of an attempt writes its exit code."""
    path = os.path.abspath(records.attempts_file(directory))  # noqa: PTH100 - called for every job
    return ExitRecord(path, records.exit_prefix(stage, attempt), f"{path}:{stage}:{attempt}")


def recover(
    trial: Trial,
    executor: Executor,
    host: Host,
    forced: Set[str],
    takes_over: bool,
    ask: str,
    retries: Mapping[str, Retry],
    inputs: str | None = None,
    revives: bool = False,
    fate: Fate = UNKNOWN,
    batch: str = "",
) -> Found:
    """Reads a trial's records; closes attempts that are over, and adopts those that run.

    What an attempt under the same `ask` came to stands: a daemon that takes a plan up again repeats neither what was
    forced nor what failed, but for what `retries` says of its stage. The stages `forced` run though they are finished,
    and so do those that had other `inputs`, with all after them.
    What was pruned stays so, unless `ask`, which then `revives`, is a later word about the trial itself or finds it due
    already, or the trial was given to a `batch` since, to go on. `fate` is that of the task in which the attempts were
    that are over now.

    Raises:
        InputError: an attempt may still run on another host.
    """
    if not os.path.isdir(trial.directory):  # noqa: PTH112 - called for every trial
        return Found(dict.fromkeys(trial.stages, JobState.PENDING), {}, is_new=True)
    stat = records.read_stat(trial.directory)
    if not forced and inputs is None and all(stat.get(stage) is JobState.COMPLETED for stage in trial.stages):
        return Found(dict.fromkeys(trial.stages, JobState.COMPLETED), {})
    history = records.read_attempts(trial.directory)
    if not history.attempts:
        records.drop_leftover(trial.directory)
    told, adopted = _examine(trial, stat, history, executor, host, takes_over, fate)
    if told != stat:
        # The end of an attempt is recorded first; a kill came before `stat` said so too.
        records.write_stat(trial.directory, told)
    failed = failures(trial, ask, history)
    due = {stage for stage, count in failed.items() if count and _is_due_again(history.last(stage), count, retries)}
    states = _states(trial, told, history, forced, ask, due, revives, batch)
    states |= dict.fromkeys(_stale(trial, told, history, inputs), JobState.PENDING)
    newest = history.attempts[-1].start if history.attempts else {}
    return Found(
        states, _counts(history), tuple(adopted), failures=failed, code=newest.get("code"),
        fallbacks=_fallbacks(history), resumed=_resumed(history, ask), batch=_batch_of(newest),
    )  # fmt: skip


def _examine(
    trial: Trial,
    stat: Mapping[str, JobState],
    history: History,
    executor: Executor,
    host: Host,
    takes_over: bool,
    fate: Fate,
) -> tuple[dict[str, JobState], list[Adopted]]:
    """What each stage has come to, and the attempts that run; those that are over get their end recorded."""
    adopted: list[Adopted] = []
    told = dict(stat)  # without an attempt: what mlrunner wrote
    for stage in trial.stages:
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
                last.end = _close(last, trial.directory, fate)
                told[stage] = JobState(last.end["state"])
        elif stat.get(stage) is JobState.RUNNING and os.path.exists(records.attempts_file(trial.directory)):  # noqa: PTH110
            path = records.attempts_file(trial.directory)
            raise records.DamagedRecordError(
                f"{path}: lacks the attempt of `{stage}` that runs by `stat`; end what is left of it, delete `stat`."
            )
    return told, adopted


def close_dead(trial: Trial, stages: Sequence[str], executor: Executor, host: Host, takes_over: bool) -> None:
    """Records the end of what an earlier daemon left of some stages of a trial, of which another one runs here."""
    history = records.read_attempts(trial.directory) if stages else None
    for stage in stages:
        last = None if history is None else history.last(stage)
        if last is None or last.end is not None:
            continue
        adopted = _adopt(last, trial.directory, executor, host, takes_over)
        if adopted is None:
            _close(last, trial.directory)
        else:
            executor.release(adopted.native_id)


def _stale(trial: Trial, told: Mapping[str, JobState], history: History, inputs: str | None) -> tuple[str, ...]:
    """The first stage that had other inputs than the present ones, and all after it."""
    for index, stage in enumerate(trial.stages if inputs is not None else ()):
        last, state = history.last(stage), told.get(stage)
        has_run = last is not None or state is JobState.COMPLETED
        if has_run and state is not JobState.RUNNING and (last is None or last.start.get("inputs") != inputs):
            return trial.stages[index:]
    return ()


def failures(trial: Trial, ask: str, history: History | None = None) -> dict[str, int]:
    """How often each stage of a trial has failed since it was asked for; the history is read when it is not given."""
    history = records.read_attempts(trial.directory) if history is None else history
    return {stage: sum(_has_failed(item, stage, ask) for item in history.attempts) for stage in trial.stages}


def _states(
    trial: Trial,
    told: Mapping[str, JobState],
    history: History,
    forced: Set[str],
    ask: str,
    due: Set[str],
    revives: bool,
    batch: str,
) -> dict[str, JobState]:
    states: dict[str, JobState] = {}
    is_blocked = is_pruned = False
    for stage in trial.stages:
        last, state = history.last(stage), told.get(stage, JobState.PENDING)
        is_own = last is not None and last.start.get("ask") == ask
        if batch:
            stays_pruned = last is not None and _batch_of(last.start) == batch
        else:
            stays_pruned = is_own or not (revives or stage in forced)
        if state is JobState.COMPLETED and (is_own or stage not in forced):
            states[stage] = state
        elif state is JobState.RUNNING:
            states[stage] = JobState.PENDING  # until it is adopted, also behind one that failed
        elif is_pruned or (state is JobState.PRUNED and stays_pruned):
            # What comes later in a pruned trial goes with it, also a stage that is new.
            states[stage] = JobState.PRUNED
            is_pruned = True
        elif is_blocked:
            states[stage] = JobState.BLOCKED
        elif is_own and state in BLOCKING and stage not in due:
            states[stage] = state
            is_blocked = True
        else:
            states[stage] = JobState.PENDING
    return states


def _batch_of(start: records.Record) -> str:
    """In which batch an attempt was, by its start; empty: in none."""
    return str(start.get("task", "")).partition("/")[0]


def _has_failed(attempt: Attempt, stage: str, ask: str) -> bool:
    is_over = attempt.end is not None and JobState(attempt.end["state"]) in {JobState.FAILED, JobState.TIMEOUT}
    return attempt.stage == stage and attempt.start.get("ask") == ask and is_over


def _is_due_again(last: Attempt | None, count: int, retries: Mapping[str, Retry]) -> bool:
    """Whether a job that failed is tried again by itself."""
    if last is None or last.end is None or JobState(last.end["state"]) not in {JobState.FAILED, JobState.TIMEOUT}:
        return False
    return retries[last.stage].allows(count, last.end.get("cause"))


def _fallbacks(history: History) -> dict[str, int]:
    """Of each stage whose last attempt was out of memory, the command that comes next."""
    last = {attempt.stage: attempt for attempt in history.attempts}
    found = {}
    for stage, attempt in last.items():
        number = attempt.start.get("fallback", 0)
        if attempt.end is not None:
            is_due = JobState(attempt.end["state"]) is JobState.INTERRUPTED
            number = attempt.end.get("fallback", number) if is_due else 0
        if number:
            found[stage] = number
    return found


def _resumed(history: History, ask: str) -> dict[str, int]:
    """How often each stage was interrupted since the trial was asked for."""
    ends = [(item.stage, item.end) for item in history.attempts if item.start.get("ask") == ask]
    return Counter(stage for stage, end in ends if end and JobState(end["state"]) is JobState.INTERRUPTED)


def _counts(history: History) -> dict[str, int]:
    return {attempt.stage: attempt.number for attempt in history.attempts}


def _adopt(attempt: Attempt, directory: str, executor: Executor, host: Host, takes_over: bool) -> Adopted | None:
    start = attempt.start
    if "task" in start:  # who asks has made sure that nobody runs the task any more
        process.kill_all(exit_record(directory, attempt.stage, attempt.number).token)
        return None
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
    shares = {uuid: Fraction(share) for uuid, share in start.get("gpus", {}).items()}
    fallback = start.get("fallback", 0)
    return Adopted(attempt.stage, attempt.number, native_id, start["slot"], start["log"], started, shares, fallback)


def _close(attempt: Attempt, directory: str, fate: Fate = UNKNOWN) -> records.Record:
    """Writes the end of an attempt that nobody watched; its exit code tells how it ended, and its log why.

    Without a code its task's fate tells.
    """
    # Read anew: it may have ended after the records were read and before its process was looked for.
    code = records.read_exit_code(directory, attempt.stage, attempt.number)
    ended = datetime.now(UTC)
    seconds = (ended - datetime.fromisoformat(attempt.start["started"])).total_seconds()
    state = fate.state(attempt, directory) if code is None else state_of(code)
    kind, line = None, None
    if state in {JobState.FAILED, JobState.TIMEOUT}:
        tail = read_tail(f"{directory}/{attempt.start['log']}")
        limit: Literal["timeout"] | None = "timeout" if state is JobState.TIMEOUT else None
        cause = triage.classify(code, None, tail, ended_as=limit, was_oom_killed=fate.why is Why.OUT_OF_MEMORY)
        kind, line = cause.kind.value, cause.line
    outcome = Outcome(state, code, seconds, cause=kind, line=line)
    record = records.end_record(attempt.stage, attempt.number, outcome, ended.isoformat(timespec="milliseconds"))
    records.append_attempt(directory, record)
    return record
