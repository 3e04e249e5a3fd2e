"""How attempts end: the limits of their stage, what came of them, and whether they are tried again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from runner import records, triage
from runner.logtail import read_tail
from runner.metricsfile import step_reached
from runner.model import JobState, Outcome
from runner.recovery import EXIT_SAVED

if TYPE_CHECKING:
    from runner.executors.base import Ended
    from runner.model import Job, Slot
    from runner.options import StageOptions

QUICK_S = 5.0
QUICK_SAVES = 3  # so often in a row a job may ask to be run again, or vanish, that soon after its start


class Ending(StrEnum):
    """Why the runner itself ended an attempt."""

    TIMEOUT = "timeout"
    STALL = "stall"
    CANCEL = "cancel"
    PRUNE = "prune"
    STOP = "stop"
    LOST = "lost"  # its GPU is off the bus
    LIMIT = "limit"  # its allocation's time is over
    TAKEN = "taken"  # its allocation ends before


@dataclass
class Running:
    """An attempt under way; `started` is in seconds since the epoch, `began` on the clock since boot."""

    job: Job
    native_id: int
    attempt: int
    slot: Slot
    started: float
    began: float
    log: str
    options: StageOptions
    fallback: int = 0  # the one of its commands for want of memory that it runs
    ending: Ending | None = None
    ask_at: float | None = None  # when it is asked to end, where that waits a little
    kill_at: float | None = None
    reached: int | None = None  # the last step of its metrics when it began
    size: int = -1  # of what the attempt writes, when it last grew
    grew_at: float = 0.0

    @property
    def needs_watch(self) -> bool:
        """Whether time alone can change something."""
        options = self.options
        limits = (self.kill_at, options.timeout_s, options.stall_s, options.prune)
        return any(limit is not None for limit in limits)


def exceeded(item: Running, now: float) -> Ending | None:
    """The limit that an attempt has come to."""
    options = item.options
    if options.timeout_s is not None and now - item.began >= options.timeout_s:
        return Ending.TIMEOUT
    if options.stall_s is not None:
        size = _written(item)
        if size != item.size:
            item.size, item.grew_at = size, now
        elif now - item.grew_at >= options.stall_s:
            return Ending.STALL
    return None


def _written(item: Running) -> int:
    """The bytes that show progress: the log's and the metrics'."""
    total = 0
    for path in (item.log, f"{item.job.trial.directory}/metrics.csv"):
        try:
            total += os.stat(path).st_size  # noqa: PTH116 - called every half second for each attempt
        except OSError:  # not written yet
            continue
    return total


def judge(item: Running, ended: Ended, seconds: float) -> Outcome:
    """What came of an attempt, and why, as far as its exit code and its log say."""
    trial, stage = item.job
    exit_code = ended.exit_code
    if exit_code is None:
        exit_code = records.read_exit_code(trial.directory, stage, item.attempt)
    state = _state(item, exit_code, is_watched=ended.is_watched)
    if not os.path.isdir(trial.directory):  # noqa: PTH112 - a command that deletes its own directory leaves no result
        state = JobState.FAILED
    cause: triage.Cause | None = None
    if state in {JobState.FAILED, JobState.TIMEOUT}:
        limit: Literal["timeout", "stall"] | None = None
        if item.ending in {Ending.TIMEOUT, Ending.STALL, Ending.LIMIT}:
            limit = "stall" if item.ending is Ending.STALL else "timeout"
        tail = read_tail(item.log)
        cause = triage.classify(exit_code, ended.signal, tail, ended_as=limit, was_oom_killed=ended.was_oom_killed)
    return Outcome(
        state,
        exit_code,
        seconds,
        ended.peak_rss_mib,
        ended.cpu_s,
        None if cause is None else cause.kind.value,
        None if cause is None else cause.line,
    )


def _state(item: Running, exit_code: int | None, is_watched: bool) -> JobState:
    if exit_code == 0:
        return JobState.COMPLETED
    if exit_code == EXIT_SAVED and item.ending in {None, Ending.LIMIT, Ending.TAKEN}:
        return JobState.INTERRUPTED
    if item.ending is Ending.LIMIT:
        # What has come no further in its time would not the next time either.
        has_progressed = step_reached(item.job.trial.directory) > (item.reached or 0)
        return JobState.INTERRUPTED if has_progressed else JobState.TIMEOUT
    if item.ending is not None:
        return _STATE_OF_ENDING[item.ending]
    # Without a code: killed before our eyes, which is a failure, or gone while nobody watched.
    return JobState.FAILED if exit_code is not None or is_watched else JobState.INTERRUPTED


_STATE_OF_ENDING = {
    Ending.TIMEOUT: JobState.TIMEOUT,
    Ending.STALL: JobState.FAILED,
    Ending.CANCEL: JobState.CANCELED,
    Ending.PRUNE: JobState.PRUNED,
    Ending.STOP: JobState.INTERRUPTED,
    Ending.LOST: JobState.INTERRUPTED,
    Ending.TAKEN: JobState.INTERRUPTED,
}


def again_at(outcome: Outcome, item: Running, failures: int, quick: int, now: float) -> float | None:
    """When the job is due again by itself, on the clock of `now`; None: not before the user asks.

    `failures` counts how often it has failed since it was asked for, `quick` how often in a row it was interrupted
    within seconds, this attempt among them.
    """
    if outcome.state is JobState.INTERRUPTED and item.ending in {None, Ending.LOST}:
        return now if quick < QUICK_SAVES else None
    retry = item.options.retry
    if outcome.state in {JobState.FAILED, JobState.TIMEOUT} and retry.allows(failures, outcome.cause):
        return now + retry.delay_s
    return None
