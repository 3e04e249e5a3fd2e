"""A machine that refuses to write: what has ended is recorded later, and nothing starts until then."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.model import Job, Outcome
    from runner.service.endings import Running
    from runner.service.ledger import Ledger

HOLD_S = 5.0  # between two tries
# What a machine says when it is short of something that may come back.
_SHORTAGES = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.EIO}


def is_shortage(error: OSError) -> bool:
    """Whether what the machine lacks may come back."""
    return error.errno in _SHORTAGES


def refusal(error: OSError, path: str) -> str:
    """What the machine refused, and where; `path` where it does not say."""
    return f"{error.filename or path}: {error.strerror}"


class Shortage:
    """Records how attempts have ended, in their order, as soon as the machine allows."""

    def __init__(self, ledger: Ledger, say: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._say = say
        self._ends: list[tuple[Running, Outcome, list[Job]]] = []
        self._until = 0.0
        self._refusal = ""

    @property
    def has_ends(self) -> bool:
        """Whether an end is not on record yet."""
        return bool(self._ends)

    def lasts(self, now: float) -> bool:
        """Whether nothing may start."""
        return bool(self._ends) or now < self._until

    def why(self, now: float) -> str:
        """What the machine has refused; empty where something may start."""
        return self._refusal if self.lasts(now) else ""

    def next_time(self, now: float) -> float | None:
        """When it may be over; None: there is none."""
        return self._until if self.lasts(now) else None

    def hold(self, text: str, now: float) -> None:
        """The machine has refused something: nothing starts for a while."""
        if now >= self._until + 2 * HOLD_S:
            self._say(f"{text}. Nothing starts until this is over; what runs goes on.")
        self._until = now + HOLD_S
        self._refusal = text

    def record(self, item: Running, outcome: Outcome, blocked: list[Job], now: float) -> None:
        """Records an end and what it blocks, now or when that is possible."""
        self._ends.append((item, outcome, blocked))
        self._write(now)

    def try_again(self, now: float) -> None:
        """Records what is left, if it is time."""
        if now >= self._until:
            self._write(now)

    def _write(self, now: float) -> None:
        while self._ends:
            item, outcome, blocked = self._ends[0]
            directory = item.job.trial.directory
            try:
                self._ledger.close(item.job, item.attempt, outcome, blocked)
            except OSError as error:
                if os.path.isdir(directory):  # noqa: PTH112
                    self.hold(refusal(error, directory), now)
                    return
            except RunnerError as error:  # the end itself is on record
                self._say(str(error))
            self._ends.pop(0)
