"""Which attempts end early because their trial has fallen behind, and which pruned trials go on after all."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.halving import Rule, at_rungs, stands
from runner.metricsfile import rows
from runner.model import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.model import Job, Trial
    from runner.scheduler import Scheduler

_OUT = frozenset({JobState.FAILED, JobState.TIMEOUT, JobState.CANCELED, JobState.BLOCKED})
_COMING = (JobState.PENDING, JobState.SUBMITTED, JobState.RUNNING)


@dataclass
class _Group:
    """The trials of one sweep that are compared in one stage: what each has reached, and its file when it was read."""

    rule: Rule
    reached: dict[str, list[float]] = field(default_factory=dict)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    judged: dict[str, int] = field(default_factory=dict)  # the rungs at which a trial was let go on or stopped
    is_warned: bool = False  # that a trial lacks the metric


class Pruning:
    """Looks at the metrics of running attempts. It remembers nothing that the trials' files do not hold."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._groups: dict[tuple[str, str], _Group] = {}

    def has_news(self, job: Job, rule: Rule) -> bool:
        """Whether a running job has come to another rung since this was asked last."""
        group = self._group(job, rule)
        self._read(group, job.trial)
        count = len(group.reached.get(job.trial.key, ()))
        before = group.judged.get(job.trial.key, 0)
        group.judged[job.trial.key] = count  # fewer than before, where it began anew
        return count > before

    def is_behind(self, job: Job, rule: Rule) -> bool:
        """Whether a running job stops at the rung to which it came."""
        return not self._stands(self._group(job, rule), job)[job.trial.key]

    def has_nothing_of(self, job: Job, rule: Rule) -> bool:
        """Whether a job ended without a value of the metric, whose name may be a slip; told once for all of a sweep."""
        group = self._group(job, rule)
        if group.is_warned or rows(f"{job.trial.directory}/metrics.csv", rule.metric):
            return False
        group.is_warned = True
        return True

    def revived(self, job: Job, rule: Rule) -> list[Trial]:
        """After news of a job, or its end: the pruned trials beside it that go on after all."""
        group = self._group(job, rule)
        self._read(group, job.trial)
        going = self._stands(group, job)
        found = []
        for key, goes_on in going.items():
            trial = self._scheduler.trial(key)
            if goes_on and trial is not None and self._scheduler.states(trial)[job.stage] is JobState.PRUNED:
                found.append(trial)
        return found

    def _group(self, job: Job, rule: Rule) -> _Group:
        group = self._groups.get((job.trial.sweep, job.stage))
        if group is None or group.rule != rule:
            group = self._groups[job.trial.sweep, job.stage] = _Group(rule)
            for trial in self._members(job):
                self._read(group, trial)
        return group

    def _members(self, job: Job) -> Iterable[Trial]:
        trials = self._scheduler.trials()
        return [
            trial for trial in trials if trial.sweep == job.trial.sweep and job.stage in self._scheduler.states(trial)
        ]

    def _stands(self, group: _Group, job: Job) -> dict[str, bool]:
        """Where each trial stands, those left out that cannot go on."""
        reached: dict[str, list[float]] = {}
        for key, values in group.reached.items():
            trial = self._scheduler.trial(key)
            if values and trial is not None and self._scheduler.states(trial).get(job.stage) not in _OUT:
                reached[key] = values
        counts = self._scheduler.counts
        coming = sum(counts[job.trial.sweep, job.stage, state] for state in _COMING)
        runs = self._scheduler.states(job.trial)[job.stage] is JobState.RUNNING
        return stands(group.rule, reached, is_last=coming - runs <= 0)

    @staticmethod
    def _read(group: _Group, trial: Trial) -> None:
        """Reads a trial's metrics if they have grown."""
        path = f"{trial.directory}/metrics.csv"
        try:
            found = os.stat(path)  # noqa: PTH116 - called every half second for each attempt
        except OSError:  # not written yet
            return
        if group.seen.get(trial.key) == (found.st_mtime_ns, found.st_size):
            return
        group.seen[trial.key] = found.st_mtime_ns, found.st_size
        group.reached[trial.key] = at_rungs(group.rule, rows(path, group.rule.metric))
