"""Arrays that were submitted and their tasks, as far as a daemon knows them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runner.batch import batchfile, claims
from runner.logtail import last_line, read_tail

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.batch.batchfile import Intent, Part
    from runner.executors.batch import BatchKeys, Seen
    from runner.model import Job
    from runner.service.endings import Running


@dataclass(eq=False)
class Array:
    """A batch with its place on disk; `job` is None until the batch system has taken it."""

    folder: Path
    intent: Intent
    keys: BatchKeys
    job: str | None = None
    tasks: dict[int, Task] = field(default_factory=dict)  # those that are not over

    def with_tasks(self, tasks: Sequence[Task]) -> Array:
        """Another array with some of its tasks, whose intent is on disk.

        Raises:
            OSError: it could not be written.
        """
        parts = tuple(task.parts for task in tasks)
        intent = replace(self.intent, name=batchfile.new_name(), tasks=parts, created=time.time())
        folder = self.folder.with_name(intent.name)
        batchfile.write(folder, intent)
        return Array(folder, intent, self.keys)


@dataclass(eq=False)
class Task:
    """One task of an array."""

    array: Array
    number: int
    parts: tuple[Part, ...]
    claim: int | None = None  # the number of its last claim; None: nobody is known to have begun it
    is_revoked: bool = False  # before anybody had begun it
    lines: int = 0  # that were read of the claim
    is_over: bool = False  # the claim says so
    was_ended: bool = False  # by the batch system, as the claim says
    fault: str = ""  # why it could not be run, in its own words
    seen: Seen | None = None  # in the queue, when it was looked at last
    missed: int = 0  # looks in a row at which it was not there
    asked_at: float | None = None  # when accounting was asked first why
    removed_at: float | None = None  # when its batch was first seen to be removed, by somebody
    beat: float = 0.0  # of the claim, and when it was first seen so
    beat_at: float = 0.0
    told: dict[str, float] = field(default_factory=dict)  # when trials of it were told to end, by their keys
    words: dict[str, str] = field(default_factory=dict)  # the last one that each of them was told
    running: dict[Job, Running] = field(default_factory=dict)

    @property
    def has_begun(self) -> bool:
        """Whether somebody runs it, or has run it."""
        if self.claim is None and not self.is_revoked:
            last = claims.latest(self.array.folder, self.number)
            if last is not None and claims.standing(claims.path_of(self.array.folder, self.number, last)).is_revoked:
                self.is_revoked = last == 0
                last = last - 1 if last else None  # the others cannot begin it, but the one before may run
            self.claim = last
        return self.claim is not None

    def revoke(self) -> bool:
        """Takes it back if nobody has begun it."""
        if not self.is_revoked:
            self.is_revoked = not self.has_begun and claims.revoke(self.array.folder, self.number)
        return self.is_revoked

    def fence(self) -> bool:
        """Lets no further copy of it begin; False: one has."""
        later = (self.claim or 0) + 1
        return claims.revoke(self.array.folder, self.number, later) or claims.standing(self.path(1)).is_revoked

    def has_later(self) -> bool:
        """Whether a further copy has begun it."""
        return self.path(1).exists() and not claims.standing(self.path(1)).is_revoked

    def path(self, later: int = 0) -> Path:
        """The file of its last claim, or of one that comes later."""
        return claims.path_of(self.array.folder, self.number, (self.claim or 0) + later)

    @property
    def log(self) -> Path:
        """What its shell said."""
        return self.array.folder / f"{self.number}.log"

    def last_words(self) -> str:
        """The last line of that."""
        return last_line(str(self.log))

    def last_said(self) -> str:
        """The end of that, as it stands."""
        return read_tail(str(self.log))

    def is_dead(self, now: float) -> bool:
        """Whether nobody runs it, or can any more; a copy that still may is fenced off."""
        if self.revoke():
            return True
        if self.claim is None or not self.fence():  # begun just now
            return False
        if claims.is_at_end(self.path()):
            return True
        beat = claims.beat_of(self.path())
        if beat != self.beat:
            self.beat, self.beat_at = beat, now
        return now >= self.beat_at + self.array.keys.lease
