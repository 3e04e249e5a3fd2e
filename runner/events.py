"""What happens in a run, told to whoever watches."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from runner.model import Job


class Kind(StrEnum):
    """The word that begins an event's line."""

    START = "START"
    ADOPT = "ADOPT"
    DONE = "DONE"
    FAIL = "FAIL"
    SKIP = "SKIP"
    INTERRUPT = "INTERRUPT"
    BLOCK = "BLOCK"


@dataclass(frozen=True)
class Event:
    """One event of a job; `time` is in seconds since the epoch."""

    kind: Kind
    job: Job
    time: float
    slot: str = ""
    seconds: float = 0.0
    exit_code: int | None = None
    attempt: int = 1
    log: str = ""


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
