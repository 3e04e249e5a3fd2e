"""Trial, job, attempt, and the states of a job with what may follow each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.values import Params


class JobState(StrEnum):
    """A job's state; the values are the words of the file `stat`, mlrunner's where it has one."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    BLOCKED = "blocked"


# Within one run. A later run finds each job PENDING again, unless it is COMPLETED.
FOLLOWS: Mapping[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.RUNNING, JobState.BLOCKED, JobState.COMPLETED}),
    JobState.RUNNING: frozenset({JobState.COMPLETED, JobState.FAILED, JobState.INTERRUPTED}),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.INTERRUPTED: frozenset(),
    JobState.BLOCKED: frozenset(),
}


@dataclass(frozen=True, eq=False)
class Trial:
    """One combination of parameter values, with the commands that it was planned with.

    A plan holds each trial once, so that a trial equals itself alone.
    """

    index: int
    trial_id: str
    name: str
    output: str  # what {_output} says
    directory: str  # where its records and logs lie; the output, but for --no-subdir
    params: Params
    commands: Mapping[str, str]
    needs_config: bool = False

    @property
    def shown(self) -> str:
        """The trial in a message: its directory, which its name ends, or, without one of its own, both."""
        return self.output if self.output == self.directory else f"{self.output}: {self.name}"


class Job(NamedTuple):
    """One stage of one trial: what is scheduled."""

    trial: Trial
    stage: str


@dataclass(frozen=True)
class Slot:
    """A place where one attempt runs: GPUs that it is shown through CUDA_VISIBLE_DEVICES, or CPU cores."""

    label: str
    gpus: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: `exit_code` is None when none was recorded."""

    state: JobState
    exit_code: int | None
    seconds: float
    peak_rss_mib: float | None = None
    cpu_s: float | None = None
