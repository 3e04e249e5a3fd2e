"""What follows an end: files go, a sweep that only fails pauses, pruned trials go on, others wait no longer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runner.events import Event, Kind
from runner.keep import remove_files
from runner.model import BLOCKING, Job, JobState
from runner.queueing.failfast import FailFast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.halving import Rule
    from runner.model import Trial
    from runner.scheduler import Scheduler
    from runner.service.intake import Intake
    from runner.service.pruning import Pruning


class Aftermath:
    """What the end of an attempt means to its trial, its sweep and the trials beside it."""

    def __init__(
        self,
        scheduler: Scheduler,
        intake: Intake,
        pruning: Pruning,
        tell: Callable[[Event], None],
        pause: Callable[[str, str], None],
    ) -> None:
        """`pause` is told which sweep must pause, and in which words."""
        self.fail_fast = FailFast()
        self._scheduler = scheduler
        self._intake = intake
        self._pruning = pruning
        self._tell = tell
        self._pause = pause

    def returned(self, trial: Trial, cause: str | None) -> None:
        """A trial that another executor had has come to its end, as far as nobody asks anew."""
        origin = self._intake.origin(trial)
        self.ended(trial, cause, {stage: origin.options(stage).prune for stage in self._scheduler.states(trial)})

    def ended(self, trial: Trial, cause: str | None, rules: Mapping[str, Rule | None], is_again: bool = False) -> None:
        """Stages of a trial have ended, each pruned by its rule; `cause` is that of a failure.

        With `is_again` what has ended is due again by itself.
        """
        if not is_again:
            self._conclude(trial, cause)
        if self._intake.is_left_out(trial):
            self._intake.forget(trial)
        else:
            # Before the others hear of the end: with what is revived, more is to come.
            for stage, rule in rules.items():
                if rule is not None:
                    self.revive(Job(trial, stage), rule)
        self._intake.pipeline.ended(trial)

    def revive(self, job: Job, rule: Rule) -> None:
        """Makes the pruned trials due again that have not fallen behind after all, after news of a job."""
        for trial in self._pruning.revived(job, rule):
            for due in self._scheduler.again(trial):
                self._tell(Event(Kind.WAIT, due, time.time()))
            self._intake.pipeline.reopen(trial)

    def _conclude(self, trial: Trial, cause: str | None) -> None:
        states = self._scheduler.states(trial)
        is_complete = all(state is JobState.COMPLETED for state in states.values())
        if is_complete:
            for stage in states:
                remove_files(trial.directory, self._intake.origin(trial).options(stage).keep)
        if is_complete or not BLOCKING.isdisjoint(states.values()):
            cause = None if is_complete else cause
            if self.fail_fast.must_pause(trial.sweep, cause):
                why = f"its first {self.fail_fast.limit} trials all failed ({cause})"
                self._pause(trial.sweep, f"Paused {trial.sweep}: {why}; `run resume` goes on, `run status` shows more.")
