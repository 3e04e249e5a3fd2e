"""What happens to the jobs of a plan, told to whoever watches."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from runner.model import Job, JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.model import Trial


class Kind(StrEnum):
    """The word that begins an event's line."""

    START = "START"
    ADOPT = "ADOPT"
    DONE = "DONE"
    FAIL = "FAIL"
    RETRY = "RETRY"
    SKIP = "SKIP"
    INTERRUPT = "INTERRUPT"
    BLOCK = "BLOCK"
    CANCEL = "CANCEL"
    PRUNE = "PRUNE"
    DROP = "DROP"
    WAIT = "WAIT"


# What a job has come to after an event of the kind; START, ADOPT and WAIT (it is due again) say that it has not.
STATE_AFTER: Mapping[Kind, JobState] = {
    Kind.START: JobState.RUNNING,
    Kind.ADOPT: JobState.RUNNING,
    Kind.DONE: JobState.COMPLETED,
    Kind.FAIL: JobState.FAILED,
    Kind.RETRY: JobState.PENDING,
    Kind.SKIP: JobState.COMPLETED,
    Kind.INTERRUPT: JobState.INTERRUPTED,
    Kind.BLOCK: JobState.BLOCKED,
    Kind.CANCEL: JobState.CANCELED,
    Kind.PRUNE: JobState.PRUNED,
    Kind.DROP: JobState.CANCELED,
    Kind.WAIT: JobState.PENDING,
}


@dataclass(frozen=True)
class Event:
    """One event of a job; `time` is in seconds since the epoch, `cause` and `line` say why an attempt failed."""

    kind: Kind
    job: Job
    time: float
    slot: str = ""
    seconds: float = 0.0
    exit_code: int | None = None
    attempt: int = 1
    log: str = ""
    cause: str = ""
    line: str = ""

    def to_wire(self) -> list[Any]:
        """The event as it goes over the socket; the trial by its id."""
        log = self.log.rpartition("/")[2]  # whoever watches may name the directory otherwise
        head = [self.kind.value, self.job.trial.key, self.job.stage, self.time]
        return [*head, self.slot, self.seconds, self.exit_code, self.attempt, log, self.cause, self.line]

    @classmethod
    def from_wire(cls, record: list[Any], trials: Mapping[str, Trial]) -> Event | None:
        """The event; None when it is of a trial that is not among these."""
        kind, trial_id, stage, at, slot, seconds, exit_code, attempt, log, cause, line = record
        trial = trials.get(trial_id)
        if trial is None:
            return None
        log = f"{trial.directory}/{log}" if log else ""
        return cls(Kind(kind), Job(trial, stage), at, slot, seconds, exit_code, attempt, log, cause, line)


class Watcher(Protocol):
    """Shows a run while it goes on."""

    def handle(self, event: Event) -> None:
        """Takes an event in."""

    def say(self, message: str) -> None:
        """Shows a line that belongs to no job."""

    def tick(self, now: float) -> None:
        """Called now and then, so that times on the screen move on."""

    def close(self) -> None:
        """Leaves the screen as it must be left."""
