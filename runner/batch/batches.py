"""The trials that batch systems are to run: submitted, taken back, told to end."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from runner.batch import batchfile
from runner.batch.book import Book
from runner.batch.desk import AGAIN_S, BatchDesk
from runner.batch.news import News
from runner.batch.queue import BatchQueue
from runner.batch.taskreturns import BatchReturns
from runner.batch.tasks import Array
from runner.errors import RunnerError
from runner.executors import registry
from runner.executors.batch import TaskState
from runner.model import JobState
from runner.process import boot_seconds
from runner.service.endings import Ending
from runner.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from runner.batch.taskreturns import Owner
    from runner.batch.tasks import Task
    from runner.events import Event
    from runner.model import Trial
    from runner.scheduler import Scheduler, Start
    from runner.service.endings import Running
    from runner.service.intake import Intake


class Batches:
    """All that one daemon has submitted."""

    def __init__(
        self,
        scheduler: Scheduler,
        intake: Intake,
        owner: Owner,
        tell: Callable[[Event], None],
        say: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        """`wake` has the daemon's loop go round, from any thread."""
        self._scheduler = scheduler
        self._intake = intake
        self._say, self._wake = say, wake
        self._desks: dict[str, BatchDesk] = {}
        self._news = News(scheduler, intake, tell)
        self._book = Book(self._news)
        self._queue = BatchQueue(scheduler, intake, self.holds)
        self._returns = BatchReturns(scheduler, self._news, self._book, self._desks, owner, self._run_short)
        self._output: Path | None = None
        self._shortage = ""  # why something could not be written
        self._write_at = 0.0  # when that is tried again

    # --- what is there ---

    def restore(self, output: Path) -> None:
        """Takes up what an earlier daemon has submitted, or was about to."""
        self._output = output
        batchfile.clear(output)
        for folder in batchfile.folders(output):
            intent = batchfile.read(folder)
            try:
                desk = self._desk(intent.executor)
                keys = desk.executor.keys.model_validate(intent.told)
            except (ValueError, RunnerError) as error:  # its package is no more, or of another version
                raise batchfile.DamagedBatchError.of(folder, error) from error
            array = Array(folder, intent, keys, batchfile.job_of(folder))
            self._book.enter(array)
            if array.job is None:
                desk.submit(array)
            else:
                desk.watch(array)

    def holds(self, key: str) -> bool:
        """Whether a trial is in a task that is not over."""
        return key in self._book.task_of

    def plan_of(self, key: str) -> Mapping[str, str]:
        """The stages of a trial that its task runs, each with the id of its plan."""
        part = next(part for part in self._book.task_of[key].parts if part.key == key)
        return {stage: plan for stage, (plan, *_) in part.stages.items()}

    def has_begun(self, key: str) -> bool:
        """Whether a trial's task has been begun."""
        return self._book.task_of[key].has_begun

    def running(self) -> Iterable[Running]:
        """The attempts under way, as far as their tasks have told."""
        return self._news.running()

    def running_of(self, key: str) -> list[Running]:
        """Those of a trial."""
        task = self._book.task_of.get(key)
        return [] if task is None else [item for item in task.running.values() if item.job.trial.key == key]

    def standing(self) -> Iterator[tuple[str, float, str]]:
        """Of each batch system the name, the share of its tasks that run, and a sentence."""
        for desk in self._desks.values():
            tasks = [task for array in [*desk.arrays, *desk.waiting] for task in array.tasks.values()]
            due = self._queue.count(desk.name)
            if tasks or due:
                seen = [task.seen for task in tasks]
                runs = sum(item is not None and item.state is TaskState.RUNNING for item in seen)
                reasons = Counter(
                    item.reason or item.state for item in seen if item and item.state is not TaskState.RUNNING
                )
                reasons["not submitted yet"] += due + sum(len(array.tasks) for array in desk.waiting)
                waits = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common() if count)
                text = f"running: {counted(runs, 'task')}; waiting: {waits or 'none'}"
                yield desk.name, runs / (len(tasks) + due), f"{text}. {desk.trouble}".rstrip(". ")

    @property
    def is_idle(self) -> bool:
        """Whether no batch system has anything, or has still to hear something."""
        has_trials = self._book.task_of or self._queue.trials()
        return not has_trials and all(desk.is_idle for desk in self._desks.values())

    def plan_ids(self) -> set[str]:
        """The plans that tasks read."""
        tasks = self._book.tasks()
        stages = [stages for task in tasks for part in task.parts for stages in part.stages.values()]
        return {plan for plan, *_ in stages} | {task.array.intent.plan for task in tasks}

    def end_strays(self) -> None:
        """Ends the tasks of an earlier daemon for which nobody asks any more."""
        for task in self._book.tasks():
            if not self._news.trials(task) and not self._withdraw(task):
                self.end([part.key for part in task.parts], Ending.STOP.value)

    # --- what is asked for ---

    def take(self, start: Start, _now: float) -> None:
        """Has a trial run that the scheduler gives away; it is submitted with others at the next step.

        Raises:
            OSError: what it reads of other trials could not be written down.
            RunnerError: its executor is not there any more.
        """
        plan = self._intake.origin(start.job.trial).plan_of[start.job.stage]
        self._output = Path(plan.output)
        self._desk(plan.header.options[start.job.stage].executor)
        self._queue.take(start)
        self._book.has_news = True

    def withdraw(self, trial: Trial) -> bool:
        """Takes a trial back that nobody has begun, so that it waits again; those in its task, too."""
        if self._queue.remove(trial.key):
            self._give_back(trial)
            return True
        task = self._book.task_of.get(trial.key)
        return task is not None and self._withdraw(task)

    def withdraw_all(self, sweep: str | None = None) -> None:
        """Takes back what nobody has begun: of one sweep, or of all."""
        for trial in self._queue.trials():
            if sweep in {None, trial.sweep}:
                self.withdraw(trial)
        for task in self._book.tasks():
            if sweep is None or any(trial.sweep == sweep for trial in self._news.trials(task)):
                self._withdraw(task)

    def catch_up(self) -> None:
        """Takes in what tasks have told since the queue was looked at."""
        self._returns.catch_up()

    def begun(self) -> list[str]:
        """The trials whose tasks have been begun, whether or not an attempt of theirs has."""
        return [part.key for task in self._book.tasks() if task.has_begun for part in task.parts]

    def end(self, keys: Iterable[str], word: str) -> None:
        """Tells tasks that have begun to end trials, once; a `word` is an Ending's."""
        told: dict[Path, list[str]] = defaultdict(list)
        for key in keys:
            task = self._book.task_of.get(key)
            if task is not None and task.has_begun and task.words.get(key) != word:
                told[task.array.folder].append(key)
                task.words[key] = word
                task.told.setdefault(key, boot_seconds())
        for folder, members in told.items():
            try:
                batchfile.tell(folder, word, members)
            except OSError as error:  # after the patience for their ends the batch system is told
                self._run_short(error)

    def kill(self) -> None:
        """Ends all tasks at once."""
        self.end(self.begun(), batchfile.KILL)
        for task in self._book.tasks():
            self._book.cancel(task)

    def _withdraw(self, task: Task) -> bool:
        if not task.revoke():
            return False
        self._book.cancel(task)
        self._take_back(task)
        return True

    def _take_back(self, task: Task) -> None:
        for trial in self._news.trials(task):
            self._give_back(trial)
        self._book.forget(task)

    def _give_back(self, trial: Trial) -> None:
        states = self._scheduler.states(trial)
        waiting = {stage: JobState.PENDING if state is JobState.SUBMITTED else state for stage, state in states.items()}
        self._scheduler.hand_back(trial, waiting)

    # --- the loop ---

    def settle(self) -> None:
        """Takes in what batch systems have answered; trials may come back."""
        for desk in list(self._desks.values()):
            desk.settle()

    def step(self, now: float) -> float | None:
        """Does what is due; returns when it must be called again, None: when something happens."""
        times = []
        for desk in list(self._desks.values()):
            has_more = self._queue.count(desk.name) > 0
            if has_more and self._book.has_news and now >= self._write_at:
                self._write(desk)
            self._cancel(desk)
            times.append(desk.step(now, has_more))
            times.append(self._write_at if has_more and desk.max_tasks is not None and self._write_at > now else None)
        self._book.has_news = self._book.has_news and (self._write_at > now or self._is_learning())
        return min((time for time in times if time is not None), default=None)

    def _is_learning(self) -> bool:
        """Whether something waits of which it is not known how large an array may be."""
        return any(desk.max_tasks is None and self._queue.count(desk.name) for desk in self._desks.values())

    def _write(self, desk: BatchDesk) -> None:
        """Makes arrays of what waits, as far as it is known how large they may be."""
        if desk.max_tasks is None or self._output is None:
            return
        try:
            for array in self._queue.arrays(desk.name, desk.executor.keys, desk.max_tasks, self._output):
                self._book.enter(array)
                desk.submit(array)
            self._shortage = ""
        except OSError as error:
            self._run_short(error)

    def _run_short(self, error: OSError) -> None:
        """The machine refused to write; what was to be written is tried again."""
        self._write_at = boot_seconds() + AGAIN_S
        text = f"{error.filename or self._output}: {error.strerror}"
        if text != self._shortage:
            self._shortage = text
            self._say(f"{text}. It is tried again; what runs goes on.")

    def _cancel(self, desk: BatchDesk) -> None:
        for array in [*desk.arrays, *desk.waiting]:
            numbers = None if array.job is None else self._book.canceled.pop(array.intent.name, None)
            if numbers is not None:
                desk.cancel(array, numbers if array.tasks else None)
            if not array.tasks and not desk.may_have(array):
                self._close(array)

    # --- batch systems ---

    def _desk(self, name: str) -> BatchDesk:
        if name not in self._desks:
            try:
                executor = registry.load(name)
            except ValueError as error:
                raise RunnerError(str(error)) from error
            self._desks[name] = BatchDesk(
                name, executor, self._wake, self._say, self._refused, self._halve, self._returns.look,
                self._returns.explained,
            )  # fmt: skip
        return self._desks[name]

    def _refused(self, array: Array, text: str) -> None:
        self._returns.refused(array, text)
        self._close(array)

    def _halve(self, array: Array) -> None:
        """Submits an array in two parts instead: there is no room for all of it now."""
        tasks = list(array.tasks.values())
        self._close(array)  # first: no daemon may find a trial in two batches
        middle = -(-len(tasks) // 2)
        halves = []
        for part in (tasks[:middle], tasks[middle:]):
            try:
                halves.append(array.with_tasks(part))
            except OSError as error:
                for task in part:
                    self._take_back(task)
                self._run_short(error)
        for half in halves:
            self._book.enter(half)
        self._desks[array.intent.executor].submit_next(halves)

    def _close(self, array: Array) -> None:
        self._desks[array.intent.executor].drop(array)
        batchfile.delete(array.folder)
