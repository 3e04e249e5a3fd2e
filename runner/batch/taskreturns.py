"""What batch systems and tasks tell of how tasks go on, and the trials that come back from those that are over."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from runner.batch import batchfile
from runner.batch.verdicts import Verdict, Verdicts, fate_of
from runner.errors import RunnerError
from runner.executors.batch import TaskId, TaskState, Why
from runner.process import boot_seconds
from runner.recovery import Fate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from runner.batch.book import Book
    from runner.batch.desk import BatchDesk
    from runner.batch.news import News
    from runner.batch.tasks import Array, Task
    from runner.executors.batch import Gone, Seen
    from runner.model import Trial
    from runner.scheduler import Scheduler


class Owner(Protocol):
    """What becomes of trials that come back."""

    def returned(self, trial: Trial, batch: str, fate: Fate, resumes: int, now: float) -> None:
        """A trial's task of a batch is over; one that was cut off goes on, `resumes` times."""

    def refused(self, trial: Trial, text: str, log: Path | None = None) -> None:
        """A trial cannot be run, whatever is tried; `log` is what its task said, if that began."""


class BatchReturns:
    """Finds out which tasks are over, and gives back what they had."""

    def __init__(
        self,
        scheduler: Scheduler,
        news: News,
        book: Book,
        desks: Mapping[str, BatchDesk],
        owner: Owner,
        run_short: Callable[[OSError], None],
    ) -> None:
        """`run_short` hears of what could not be read or written; it is tried again at the next look."""
        self._news = news
        self._verdicts = Verdicts(scheduler, news)
        self._book = book
        self._desks = desks
        self._owner = owner
        self._run_short = run_short

    # --- what is told ---

    def catch_up(self) -> None:
        """Takes in what tasks have told since the queue was looked at."""
        for task in self._book.tasks():
            try:
                if self._verdicts.by_its_word(task) is Verdict.OVER:
                    self._settle(task, Fate())
            except OSError as error:
                self._bear(task, error, boot_seconds())

    def look(self, looked: Sequence[Array], seen: Sequence[Seen]) -> None:
        """Takes in what is in the queue, and what tasks have told; asks accounting for those that are gone."""
        self._book.has_news = True
        found = {(item.name, item.id): item for item in seen}
        now = boot_seconds()
        gone: dict[str, dict[TaskId, str]] = defaultdict(dict)
        for array in looked:
            assert array.job is not None
            name = array.intent.name
            for task in list(array.tasks.values()):
                task_id = TaskId(array.job, task.number)
                task.seen = found.get((name, task_id))
                task.missed = 0 if task.seen else task.missed + 1
                if task.seen and task.seen.state is not TaskState.RUNNING and not task.told and not task.running:
                    continue  # it waits, as most do
                if self._judge(task, now) is Verdict.GONE:
                    gone[array.intent.executor][task_id] = name
        for name, tasks in gone.items():
            since = min(array.intent.created for array in looked)
            self._desks[name].explain(tasks, since)

    def explained(self, gone: Sequence[Gone]) -> None:
        """Takes in what accounting says of tasks that are gone."""
        said = {(item.name, item.id): Fate(item.why, item.text) for item in gone}
        now = boot_seconds()
        for task in self._book.tasks():
            array = task.array
            if task.asked_at is None or array.job is None:
                continue
            executor = self._desks[array.intent.executor].executor
            found = fate_of(task, said.get((array.intent.name, TaskId(array.job, task.number))), executor, now)
            if found is not None:
                try:
                    self._settle(task, found)
                except OSError as error:
                    self._run_short(error)

    def refused(self, array: Array, text: str) -> None:
        """An array is never taken."""
        for task in list(array.tasks.values()):
            trials = self._news.trials(task)
            self._book.forget(task)
            for trial in trials:
                self._owner.refused(trial, text)

    def _judge(self, task: Task, now: float) -> Verdict:
        try:
            verdict = self._verdicts.of(task, now)
            if verdict is Verdict.OVER:
                self._settle(task, Fate())
        except OSError as error:
            self._bear(task, error, now)
            return Verdict.GOES_ON
        if verdict is Verdict.DISOBEYS:
            self._book.cancel(task)
        return verdict

    def _bear(self, task: Task, error: OSError, now: float) -> None:
        """What there is of a task could not be read: that is tried again, unless somebody has removed it."""
        if task.array.folder.is_dir():
            self._run_short(error)
            return
        # Whoever runs it ends when it sees that.
        task.removed_at = task.removed_at or now
        if now >= task.removed_at + task.array.keys.lease:
            self._settle(task, Fate())

    # --- coming back ---

    def _settle(self, task: Task, fate: Fate) -> None:
        """A task is over: its trials are as their records show them.

        Raises:
            OSError: the machine refused to write that down; what is left of it is settled later.
        """
        refusal = task.fault or _failed_script(task, fate)
        batchfile.settle(task.array.folder, task.number)
        for trial in self._news.trials(task):
            if self._book.task_of.get(trial.key) is task:
                self._bring_back(trial, task, fate, refusal)
        self._book.forget(task)

    def _bring_back(self, trial: Trial, task: Task, fate: Fate, refusal: str) -> None:
        del self._book.task_of[trial.key]
        log = task.log if refusal and not task.has_begun and task.log.exists() else None  # else its records tell
        try:
            if not refusal:
                try:
                    self._owner.returned(trial, task.array.intent.name, fate, task.array.keys.resumes, boot_seconds())
                except RunnerError as error:  # its records were damaged meanwhile
                    refusal, log = str(error), None
            if refusal:
                self._owner.refused(trial, refusal, log)
        except OSError:
            self._book.task_of[trial.key] = task
            raise


def _failed_script(task: Task, fate: Fate) -> str:
    """What is told of a task whose script came to its end without having run anything."""
    said = task.last_words()
    has_ended = fate.why is Why.ENDED or (fate.why is None and said)
    if task.has_begun or not has_ended or not task.array.folder.is_dir():  # somebody may have removed the batch
        return ""
    if said:
        return f"the script of its task failed: {said}"
    return f"its task ended before the trial began; do its hosts see {task.array.folder.parent}?"
