"""What has become of a task: by what it has told, by the queue, and by what accounting says of it."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from runner.executors.batch import Why
from runner.model import IN_HAND, JobState
from runner.recovery import Fate

if TYPE_CHECKING:
    from runner.batch.news import News
    from runner.batch.tasks import Task
    from runner.executors.batch import BatchExecutor
    from runner.scheduler import Scheduler

LAG_S = 20.0  # so long accounting may say nothing yet of a task that is gone
_OPEN = IN_HAND | {JobState.PENDING}
_QUEUE_LOOKS = 2  # so often in a row a task must be missing before it counts as gone


class Verdict(Enum):
    """What is to be done about a task."""

    GOES_ON = auto()
    OVER = auto()  # by its own word, and nobody can begin it anew
    GONE = auto()  # and did not say why
    DISOBEYS = auto()  # it was told to end, and had time to


class Verdicts:
    """Judges the tasks of one daemon."""

    def __init__(self, scheduler: Scheduler, news: News) -> None:
        self._scheduler = scheduler
        self._news = news

    def by_its_word(self, task: Task) -> Verdict:
        """Whether a task says that it is over.

        Raises:
            OSError: what it says cannot be read.
        """
        self._news.read(task)
        # Batch systems begin anew what they preempt, also what has ended in the meantime. Why they ended a task is
        # asked when it is gone from the queue, unless it was told to end anyway.
        is_over = task.is_over and (task.told or not task.was_ended) and task.fence()
        return Verdict.OVER if is_over else Verdict.GOES_ON

    def of(self, task: Task, now: float) -> Verdict:
        """What a look at the queue has shown, in which the task was looked for.

        Raises:
            OSError: what it says cannot be read.
        """
        if self.by_its_word(task) is Verdict.OVER:
            return Verdict.OVER
        if task.is_over and not task.was_ended:
            return Verdict.GOES_ON
        if task.missed >= _QUEUE_LOOKS and (task.is_over or task.is_dead(now)):
            task.asked_at = task.asked_at or now
            return Verdict.GONE
        return Verdict.DISOBEYS if self._is_told_in_vain(task, now) else Verdict.GOES_ON

    def _is_told_in_vain(self, task: Task, now: float) -> bool:
        """Whether all trials of a task that are not at their end should have been by now."""
        grace_s = max((item.options.grace_s for item in task.running.values()), default=0.0)
        told_before = now - grace_s - task.array.keys.lease
        if not task.told or max(task.told.values()) >= told_before:
            return False
        left = (trial.key for trial in self._news.trials(task) if _OPEN & set(self._scheduler.states(trial).values()))
        return all(key in task.told for key in left)


def fate_of(task: Task, said: Fate | None, executor: BatchExecutor, now: float) -> Fate | None:
    """Why a task is gone, by what accounting has `said` if anything; None: it may say something yet.

    Where that is no reason, what the batch system wrote into the task's log tells one.
    """
    assert task.asked_at is not None
    told = None if said is None else said.why
    if told not in {None, Why.UNNAMED, Why.ENDED}:
        return said
    if told is not Why.ENDED and now < task.asked_at + LAG_S:
        return None
    why = executor.told_in(task.last_said())
    # Slurm also writes that a task is canceled when it only warns it of its time limit.
    if why is not None and not (why is Why.CANCELED and task.has_begun):
        return Fate(why)
    if told is Why.ENDED:
        return said
    if task.has_begun or task.last_words():
        return Fate()
    return Fate(executor.vanished if told is None else Why.CANCELED)
