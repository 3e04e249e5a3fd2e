"""What tasks of batches tell while they run, and the attempts that are under way in them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.batch import claims
from runner.events import STATE_AFTER, Event, Kind
from runner.model import JobState, Slot
from runner.process import boot_seconds
from runner.service.endings import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runner.batch.tasks import Task
    from runner.model import Trial
    from runner.scheduler import Scheduler
    from runner.service.intake import Intake


class News:
    """Reads the claims of tasks, and tells on what is new in them."""

    def __init__(self, scheduler: Scheduler, intake: Intake, tell: Callable[[Event], None]) -> None:
        self._scheduler = scheduler
        self._intake = intake
        self._tell = tell
        self._live: dict[Task, None] = {}  # those that have told of an attempt

    def running(self) -> Iterable[Running]:
        """The attempts under way, as far as their tasks have told."""
        return (item for task in self._live for item in task.running.values())

    def forget(self, task: Task) -> None:
        """A task is over, or was taken back."""
        self._live.pop(task, None)

    def trials(self, task: Task) -> list[Trial]:
        """The trials of a task that somebody asks for."""
        found = (self._scheduler.trial(part.key) for part in task.parts)
        return [trial for trial in found if trial is not None]

    def read(self, task: Task) -> None:
        """Tells what has happened in a task since it was read last.

        Raises:
            OSError: its claim cannot be read.
        """
        if not task.has_begun:
            return
        while True:
            standing = claims.standing(task.path())
            for line in standing.lines[task.lines :]:
                self._relay(task, line)
            task.lines = len(standing.lines)
            if not task.has_later():
                task.is_over, task.fault = standing.is_over, standing.fault
                task.was_ended = standing.was_ended
                return
            task.claim, task.lines = (task.claim or 0) + 1, 0
            task.running.clear()

    def _relay(self, task: Task, line: list[object]) -> None:
        known = {trial.key: trial for trial in self.trials(task)}
        try:
            event = Event.from_wire(line, known)
        except ValueError:  # damaged: what came of the attempt, its records say
            return
        if event is None or event.kind in {Kind.SKIP, Kind.DROP}:
            return
        if event.kind is Kind.INTERRUPT:  # whether it goes on is known, and told, when its task is over
            task.running.pop(event.job, None)
            return
        trial, stage = event.job
        took_too_long = event.kind is Kind.FAIL and event.cause == JobState.TIMEOUT
        self._scheduler.report(trial, stage, JobState.TIMEOUT if took_too_long else STATE_AFTER[event.kind])
        if event.kind in {Kind.START, Kind.ADOPT}:
            began = boot_seconds() - (time.time() - event.time)
            self._live[task] = None
            task.running[event.job] = Running(
                event.job, -1, event.attempt, Slot(event.slot), event.time, began, event.log,
                replace(self._intake.origin(trial).options(stage), timeout_s=None, stall_s=None),
            )  # fmt: skip
        else:
            task.running.pop(event.job, None)
        self._tell(event)
