"""Which job starts next, and on which slot: decisions without I/O and without a clock."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.model import FOLLOWS, Job, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.model import Slot, Trial


@dataclass(frozen=True)
class Start:
    """Start an attempt of `job` on `slot`."""

    job: Job
    slot: Slot


class Scheduler:
    """Trials in the order in which they came, each to its end on one slot.

    A failed stage blocks the later stages of its trial and nothing else.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._free = list(range(len(slots)))  # a heap: the lowest free slot is taken first
        self._waiting: deque[Trial] = deque()
        self._states: dict[int, dict[str, JobState]] = {}
        self._next: list[Start] = []
        self._held: dict[Job, int | None] = {}
        self._is_stopping = False

    def add(self, trial: Trial, states: Mapping[str, JobState]) -> None:
        """Takes a trial in, with the state of each stage that is asked for, in their order."""
        self._states[trial.index] = dict(states)
        if self._due(trial) is not None:
            self._waiting.append(trial)

    def adopt(self, trial: Trial, stage: str, slot_label: str) -> None:
        """Takes in a trial whose `stage` runs already; it keeps its slot, if there is still one of that label."""
        if trial in self._waiting:  # two of its stages may run, started by different earlier runs
            self._waiting.remove(trial)
        place = next((index for index in self._free if self._slots[index].label == slot_label), None)
        if place is not None:
            self._free.remove(place)
            heapq.heapify(self._free)
        self._move(Job(trial, stage), JobState.RUNNING)
        self._held[Job(trial, stage)] = place

    def stop(self) -> None:
        """Lets nothing more start; what was decided and not yet told is taken back."""
        self._is_stopping = True
        for start in reversed(self._next):
            self._states[start.job.trial.index][start.job.stage] = JobState.PENDING
            self._release(self._held.pop(start.job))
            self._waiting.appendleft(start.job.trial)
        self._next.clear()

    def decide(self) -> list[Start]:
        """The starts that are due now; each is taken as done."""
        if self._is_stopping:
            return []
        starts, self._next = self._next, []
        while self._free and self._waiting:
            trial = self._waiting.popleft()
            starts.append(self._start(trial, heapq.heappop(self._free)))
        return starts

    def ended(self, job: Job, state: JobState) -> list[Job]:
        """Notes the end of a running job; returns the jobs that it blocks."""
        self._move(job, state)
        place = self._held.pop(job)
        # What was interrupted is due again, and so is all that comes after it.
        blocked = self._block(job) if state is JobState.FAILED else []
        if not self._goes_on(job, state):
            self._release(place)
        elif place is None or self._is_stopping or state is not JobState.COMPLETED:
            self._release(place)
            self._waiting.appendleft(job.trial)
        else:
            self._next.append(self._start(job.trial, place))
        return blocked

    def _goes_on(self, job: Job, state: JobState) -> bool:
        """Whether the trial has a stage to start after this one, or, where this one was adopted, before it."""
        due = self._due(job.trial)
        if due is None or any(other.trial is job.trial for other in self._held):
            return False
        stages = list(self._states[job.trial.index])
        return state is JobState.COMPLETED or stages.index(due) < stages.index(job.stage)

    def running(self) -> Iterable[Job]:
        """The jobs that hold a slot."""
        return self._held.keys()

    def states(self, trial: Trial) -> Mapping[str, JobState]:
        """The state of each stage that was asked for."""
        return self._states[trial.index]

    def _due(self, trial: Trial) -> str | None:
        states = self._states[trial.index].items()
        return next((stage for stage, state in states if state is JobState.PENDING), None)

    def _start(self, trial: Trial, place: int) -> Start:
        stage = self._due(trial)
        assert stage is not None
        job = Job(trial, stage)
        self._move(job, JobState.RUNNING)
        self._held[job] = place
        return Start(job, self._slots[place])

    def _release(self, place: int | None) -> None:
        if place is not None:
            heapq.heappush(self._free, place)

    def _block(self, job: Job) -> list[Job]:
        stages = list(self._states[job.trial.index])
        later = [Job(job.trial, stage) for stage in stages[stages.index(job.stage) + 1 :]]
        blocked = [item for item in later if self._states[job.trial.index][item.stage] is JobState.PENDING]
        for item in blocked:
            self._move(item, JobState.BLOCKED)
        return blocked

    def _move(self, job: Job, state: JobState) -> None:
        states = self._states[job.trial.index]
        assert state in FOLLOWS[states[job.stage]], f"{job.stage}: {states[job.stage]} to {state}"
        states[job.stage] = state
