"""The time limit of a search's round: what has not ended by then is ended, and the round is decided without it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from runner import records
from runner.model import JobState
from runner.process import boot_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.model import Trial
    from runner.scheduler import Scheduler
    from runner.service.intake import Intake


class RoundLimits:
    """Knows when the rounds began, by the records of their first attempts, so that a restart changes nothing."""

    def __init__(self, scheduler: Scheduler, intake: Intake) -> None:
        self._scheduler = scheduler
        self._intake = intake
        self._began: dict[str, float] = {}  # by the decision's key, on the clock that nobody sets

    def overdue(self) -> Iterator[tuple[Trial, list[Trial]]]:
        """The decisions whose rounds have reached their limit, and what of these has not ended."""
        for key, unit in list(self._intake.pipeline.limited.items()):
            assert unit.needs is not None
            assert unit.needs.limit_s is not None
            members = self._intake.pipeline.open_members(unit)
            began = self._began.get(key)
            if began is None:
                began = self._beginning(unit)
            if not members or began is None:
                continue
            self._began[key] = began
            if boot_seconds() >= began + unit.needs.limit_s:
                del self._intake.pipeline.limited[key]
                yield unit, members

    def _beginning(self, unit: Trial) -> float | None:
        assert unit.needs is not None
        known = [trial for key in unit.needs.members if (trial := self._scheduler.trial(key)) is not None]
        first = min((at for trial in known for at in self._starts(trial)), default=None)
        return None if first is None else boot_seconds() - max(0.0, time.time() - first)

    def _starts(self, trial: Trial) -> Iterable[float]:
        """When the attempts of a trial began, since the epoch, that were made for this search, not an earlier one."""
        if set(self._scheduler.states(trial).values()) == {JobState.PENDING}:
            return
        ask = self._intake.origin(trial).ask
        for attempt in records.read_attempts(trial.directory).attempts:
            if attempt.start.get("ask") == ask:
                yield datetime.fromisoformat(attempt.start["started"]).timestamp()
