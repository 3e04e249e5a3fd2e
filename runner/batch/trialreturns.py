"""Trials that come back from another executor: as their records show them, due again where they were cut off."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from runner import records
from runner.errors import RunnerError
from runner.events import Event, Kind
from runner.executors.batch import Why
from runner.model import BLOCKING, IN_HAND, Job, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from runner.model import Trial
    from runner.recovery import Fate
    from runner.scheduler import Scheduler
    from runner.service.intake import Intake

KIND_OF_END: Mapping[JobState, Kind] = {
    JobState.COMPLETED: Kind.DONE,
    JobState.FAILED: Kind.FAIL,
    JobState.TIMEOUT: Kind.FAIL,
    JobState.INTERRUPTED: Kind.INTERRUPT,
    JobState.CANCELED: Kind.CANCEL,
    JobState.PRUNED: Kind.PRUNE,
    JobState.BLOCKED: Kind.BLOCK,
    JobState.PENDING: Kind.WAIT,
}
VANISHED_AGAIN_S = 10.0  # before a trial is submitted again whose task was gone before it began


class Returns:
    """Gives the scheduler back what other executors had."""

    def __init__(
        self,
        scheduler: Scheduler,
        intake: Intake,
        tell: Callable[[Event], None],
        after: Callable[[Trial, str | None], None],
        note_failure: Callable[[Job, str, Path, Iterable[Job]], None],
    ) -> None:
        """`after` hears of each trial of which nothing more starts by itself, with the cause of a failure;
        `note_failure` records one that came before the trial's own command."""
        self._scheduler = scheduler
        self._intake = intake
        self._tell = tell
        self._after = after
        self._note_failure = note_failure
        self._vanished: Counter[str] = Counter()  # how often a trial's task was gone before it began
        self.canceled: list[str] = []  # by somebody at the batch system: the keys of the trials

    def returned(self, trial: Trial, batch: str, fate: Fate, resumes: int, now: float) -> None:
        """A trial's task of a batch is over; one that was cut off goes on, `resumes` times."""
        before = dict(self._scheduler.states(trial))
        found = self._intake.examine_again(replace(trial, stages=tuple(before)), batch, fate)
        states, again_at = dict(found.states), 0.0
        due = next((stage for stage, state in states.items() if state is JobState.PENDING), None)
        if found.batch == batch:
            self._vanished.pop(trial.key, None)
        elif due is not None:
            self._vanished[trial.key] += 1
            again_at = now + VANISHED_AGAIN_S
        is_due = True
        if due is not None and fate.why is Why.CANCELED:
            _end(states, due, JobState.CANCELED)
            self.canceled.append(trial.key)
        elif due is not None and max(found.resumed.get(due, 0), self._vanished[trial.key]) > resumes:
            states[due], is_due = JobState.INTERRUPTED, False
        self._take(trial, before, states, again_at, is_due)

    def refused(self, trial: Trial, text: str, log: Path | None = None) -> None:
        """A trial cannot be run, whatever is tried; `log` is what its task said, if that began.

        Raises:
            OSError: the machine refused to record that; nothing has changed.
        """
        before = dict(self._scheduler.states(trial))
        states = dict(before)
        open_states = IN_HAND | {JobState.PENDING}
        stage = next((stage for stage, state in states.items() if state in open_states), None)
        if stage is not None:
            _end(states, stage, JobState.FAILED)
            if log is not None:
                blocked = [item for item, state in states.items() if state is JobState.BLOCKED is not before[item]]
                try:
                    self._note_failure(Job(trial, stage), text, log, [Job(trial, item) for item in blocked])
                except RunnerError as error:  # its records were damaged meanwhile
                    log, text = None, f"{text}; {error}"
        self._take(trial, before, states, 0.0, True, "" if log else text)

    def _take(
        self,
        trial: Trial,
        before: Mapping[str, JobState],
        states: Mapping[str, JobState],
        again_at: float,
        is_due: bool,
        text: str = "",
    ) -> None:
        self._scheduler.hand_back(trial, states, again_at, is_due)
        refusal = "exit" if text else ""
        for stage, state in states.items():
            was = JobState.PENDING if before[stage] in IN_HAND else before[stage]
            if state is was and not (state is JobState.PENDING and before[stage] is JobState.RUNNING):
                continue
            kind = KIND_OF_END[state]
            if kind is Kind.WAIT and self._scheduler.is_stopping:  # it goes on, but not by itself
                kind = Kind.INTERRUPT
            last = None if text else records.read_attempts(trial.directory).last(stage)
            job, now = Job(trial, stage), time.time()
            if last is None or last.end is None:
                self._tell(Event(kind, job, now, cause=refusal, line=text))
                continue
            end = last.end
            self._tell(
                Event(
                    kind, job, now, "", end["seconds"], end["exit_code"], end["attempt"],
                    f"{trial.directory}/{last.start['log']}", end.get("cause") or "", end.get("line") or "",
                )
            )  # fmt: skip
        if not is_due or not any(state is JobState.PENDING for state in states.values()):
            self._after(trial, refusal or _cause(trial, states))  # its task may have told of the failure itself


def _end(states: dict[str, JobState], stage: str, state: JobState) -> None:
    """A stage ends so, and blocks those after it."""
    stages = list(states)
    states[stage] = state
    if state in BLOCKING:
        later = stages[stages.index(stage) + 1 :]
        states |= {other: JobState.BLOCKED for other in later if states[other] is JobState.PENDING}


def _cause(trial: Trial, states: Mapping[str, JobState]) -> str | None:
    """Why a trial failed, if it did."""
    failed = next((stage for stage, state in states.items() if state in BLOCKING), None)
    end = None if failed is None else _last_end(trial, failed)
    return None if end is None else end.get("cause")


def _last_end(trial: Trial, stage: str) -> records.Record | None:
    """How the last attempt of a stage ended."""
    last = records.read_attempts(trial.directory).last(stage)
    return None if last is None else last.end
