"""When the user is told: the first failure, the end of a sweep, a pause that the runner made by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.events import Event, Kind
from runner.model import JobState
from runner.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.scheduler import Scheduler

_OVER = frozenset({Kind.DONE, Kind.FAIL, Kind.BLOCK, Kind.CANCEL, Kind.PRUNE, Kind.INTERRUPT})
_OPEN = frozenset({JobState.PENDING, JobState.RUNNING})


class Notices:
    """Watches the events of a daemon; `notify` gets the event's name, the sweep and a line."""

    def __init__(self, scheduler: Scheduler, notify: Callable[[str, str, str], None]) -> None:
        self._scheduler = scheduler
        self._notify = notify
        self._has_failed: set[str] = set()

    def hear(self, event: Event) -> None:
        """Takes an event in, after the scheduler has."""
        sweep = event.job.trial.sweep
        if event.kind is Kind.FAIL and event.log and sweep not in self._has_failed:
            self._has_failed.add(sweep)
            why = event.line or event.cause
            self._notify("first-failure", sweep, f"{sweep}: {event.job.stage} of {event.job.trial.name} failed: {why}")
        if event.kind in _OVER and event.log and not self._is_open(sweep):
            self._has_failed.discard(sweep)
            self._notify("sweep-ended", sweep, f"{sweep}: {self._sum(sweep)}")

    def paused(self, sweep: str, message: str) -> None:
        """The runner has paused a sweep by itself."""
        self._notify("paused", sweep, message)

    def _is_open(self, sweep: str) -> bool:
        counts = self._scheduler.counts
        return any(count > 0 for (name, _, state), count in counts.items() if name == sweep and state in _OPEN)

    def _sum(self, sweep: str) -> str:
        total: dict[JobState, int] = {}
        for (name, _, state), count in self._scheduler.counts.items():
            if name == sweep and count > 0:
                total[state] = total.get(state, 0) + count
        return ", ".join(f"{counted(count, 'job')} {state.value}" for state, count in total.items())
