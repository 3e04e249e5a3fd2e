"""How far a run is, from its events: counts, what runs, what failed, and the time left."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.events import STATE_AFTER, Event, Kind
from runner.model import Job, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.model import Trial


@dataclass
class Progress:
    """Fed with every event of a run; `jobs` counts the jobs of each stage that were asked for."""

    jobs: Counter[str]
    slots: int
    running: dict[Job, Event] = field(default_factory=dict)
    ended: dict[Job, Kind] = field(default_factory=dict)  # what each job has come to that is over
    failed: dict[Job, Event] = field(default_factory=dict)
    last: int = 0  # the highest number of a trial of later rounds
    _over: Counter[str] = field(default_factory=Counter)
    _seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _done: Counter[str] = field(default_factory=Counter)

    def handle(self, event: Event) -> bool:
        """Takes an event in; returns False for one that only repeats what is known."""
        job, state = event.job, STATE_AFTER[event.kind]
        if state is JobState.RUNNING:
            known = self.running.get(job)
            self.running[job] = event
            self._take_back(job)
            return known is None or known.attempt != event.attempt
        self.running.pop(job, None)
        if state is JobState.PENDING:
            self._take_back(job)
            return True
        if job in self.ended and STATE_AFTER[self.ended[job]] is state:
            return False
        self._take_back(job)
        self.ended[job] = event.kind
        self._over[job.stage] += 1
        if event.kind is Kind.DONE:
            self._seconds[job.stage] += event.seconds
            self._done[job.stage] += 1
        elif event.kind is Kind.FAIL:
            self.failed[job] = event
        return True

    def join(self, trials: Iterable[Trial]) -> None:
        """A search goes on with these trials."""
        for trial in trials:
            self.last = max(self.last, trial.index + 1)
            self.jobs.update(trial.stages)

    def _take_back(self, job: Job) -> None:
        """The job is due again, or runs again."""
        if job in self.ended:
            del self.ended[job]
            self.failed.pop(job, None)
            self._over[job.stage] -= 1

    @property
    def failures(self) -> list[Event]:
        """How each job failed that stays so."""
        return list(self.failed.values())

    def count(self, kind: Kind) -> int:
        """How many jobs have come to this."""
        return sum(1 for item in self.ended.values() if item is kind)

    def state(self, job: Job) -> JobState:
        """What a job has come to."""
        if job in self.running:
            return JobState.RUNNING
        return STATE_AFTER[self.ended[job]] if job in self.ended else JobState.PENDING

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to any job by itself."""
        return self.over >= self.total and not self.running

    @property
    def total(self) -> int:
        """All jobs that were asked for."""
        return sum(self.jobs.values())

    @property
    def over(self) -> int:
        """The jobs to which nothing more happens in this run."""
        return len(self.ended)

    def time_left_s(self, now: float) -> float | None:
        """The work left, by each stage's mean duration, shared among the slots; None before anything is known."""
        means = {stage: self._seconds[stage] / count for stage, count in self._done.items()}
        if not means:
            return None
        # A stage that has not ended once yet counts like the others on average.
        typical = sum(means.values()) / len(means)
        running = Counter(job.stage for job in self.running)
        waiting = sum(
            max(0, count - self._over[stage] - running[stage]) * means.get(stage, typical)
            for stage, count in self.jobs.items()
        )
        rests = [max(0.0, means.get(job.stage, typical) - (now - event.time)) for job, event in self.running.items()]
        return max((waiting + sum(rests)) / max(1, self.slots or len(self.running)), max(rests, default=0.0))


def duration(seconds: float) -> str:
    """Seconds for people: 0.42 s, 12.3 s, 4 min 05 s, 3 h 20 min."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    return f"{seconds:.1f} s" if seconds < 59.95 else whole_duration(seconds)


def whole_duration(seconds: float) -> str:
    """The same without parts of a second, for what changes under the reader's eyes."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
