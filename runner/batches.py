"""The trials that batch systems have: what was submitted for them, what their tasks tell, and how they come back."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runner import batchfile
from runner.batchdesk import AGAIN_S, BatchDesk
from runner.batchnews import News
from runner.batchqueue import BatchQueue
from runner.batchtasks import Array, Task
from runner.batchverdicts import Verdict, Verdicts, fate_of
from runner.endings import Ending
from runner.errors import RunnerError
from runner.executors import registry
from runner.executors.batch import TaskId, TaskState, Why
from runner.model import JobState
from runner.process import boot_seconds
from runner.recovery import Fate
from runner.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from runner.endings import Running
    from runner.events import Event
    from runner.executors.batch import Gone, Seen
    from runner.intake import Intake
    from runner.model import Trial
    from runner.scheduler import Scheduler, Start


class Owner(Protocol):
    """What becomes of trials that come back."""

    def returned(self, trial: Trial, batch: str, fate: Fate, resumes: int, now: float) -> None:
        """A trial's task of a batch is over; one that was cut off goes on, `resumes` times."""

    def refused(self, trial: Trial, text: str, log: Path | None = None) -> None:
        """A trial cannot be run, whatever is tried; `log` is what its task said, if that began."""


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
        self._owner = owner
        self._say, self._wake = say, wake
        self._desks: dict[str, BatchDesk] = {}
        self._task_of: dict[str, Task] = {}  # by the key of a trial
        self._news = News(scheduler, intake, tell)
        self._verdicts = Verdicts(scheduler, self._news)
        self._queue = BatchQueue(scheduler, intake, self.holds)
        self._canceled: dict[str, set[int]] = defaultdict(set)  # by the name of an array
        self._output: Path | None = None
        self._shortage = ""  # why something could not be written
        self._write_at = 0.0  # when that is tried again
        self._has_news = False  # something that waits may be made into arrays

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
            self._enter(array)
            if array.job is None:
                desk.submit(array)
            else:
                desk.watch(array)

    def holds(self, key: str) -> bool:
        """Whether a trial is in a task that is not over."""
        return key in self._task_of

    def plan_of(self, key: str) -> Mapping[str, str]:
        """The stages of a trial that its task runs, each with the id of its plan."""
        part = next(part for part in self._task_of[key].parts if part.key == key)
        return {stage: plan for stage, (plan, *_) in part.stages.items()}

    def has_begun(self, key: str) -> bool:
        """Whether a trial's task has been begun."""
        return self._task_of[key].has_begun

    def running(self) -> Iterable[Running]:
        """The attempts under way, as far as their tasks have told."""
        return self._news.running()

    def running_of(self, key: str) -> list[Running]:
        """Those of a trial."""
        task = self._task_of.get(key)
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
                yield (
                    desk.name,
                    runs / (len(tasks) + due),
                    f"running: {counted(runs, 'task')}; waiting: {waits or 'none'}",
                )

    @property
    def is_idle(self) -> bool:
        """Whether no batch system has anything, or has still to hear something."""
        return not self._task_of and not self._queue.trials() and all(desk.is_idle for desk in self._desks.values())

    def plan_ids(self) -> set[str]:
        """The plans that tasks read."""
        parts = [part for task in self._tasks() for part in task.parts]
        return {plan for part in parts for plan, *_ in part.stages.values()} | {
            task.array.intent.plan for task in self._tasks()
        }

    def end_strays(self) -> None:
        """Ends the tasks of an earlier daemon for which nobody asks any more."""
        for task in self._tasks():
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
        self._has_news = True

    def withdraw(self, trial: Trial) -> bool:
        """Takes a trial back that nobody has begun, so that it waits again; those in its task, too."""
        if self._queue.remove(trial.key):
            self._give_back(trial)
            return True
        task = self._task_of.get(trial.key)
        return task is not None and self._withdraw(task)

    def withdraw_all(self, sweep: str | None = None) -> None:
        """Takes back what nobody has begun: of one sweep, or of all."""
        for trial in self._queue.trials():
            if sweep in {None, trial.sweep}:
                self.withdraw(trial)
        for task in self._tasks():
            if sweep is None or any(trial.sweep == sweep for trial in self._news.trials(task)):
                self._withdraw(task)

    def catch_up(self) -> None:
        """Takes in what tasks have told since the queue was looked at."""
        for task in self._tasks():
            try:
                if self._verdicts.by_its_word(task) is Verdict.OVER:
                    self._settle(task, Fate())
            except OSError as error:
                self._bear(task, error, boot_seconds())

    def begun(self) -> list[str]:
        """The trials whose tasks have been begun, whether or not an attempt of theirs has."""
        return [part.key for task in self._tasks() if task.has_begun for part in task.parts]

    def end(self, keys: Iterable[str], word: str) -> None:
        """Tells tasks that have begun to end trials, once; a `word` is an Ending's."""
        told: dict[Path, list[str]] = defaultdict(list)
        for key in keys:
            task = self._task_of.get(key)
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
        for task in self._tasks():
            self._canceled[task.array.intent.name].add(task.number)

    def _withdraw(self, task: Task) -> bool:
        if not task.revoke():
            return False
        self._canceled[task.array.intent.name].add(task.number)
        for trial in self._news.trials(task):
            self._give_back(trial)
        self._forget(task)
        return True

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
            if has_more and self._has_news and now >= self._write_at:
                self._write(desk)
            self._cancel(desk)
            times.append(desk.step(now, has_more))
            times.append(self._write_at if has_more and desk.max_tasks is not None and self._write_at > now else None)
        self._has_news = self._has_news and (self._write_at > now or self._is_learning())
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
                self._enter(array)
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
            numbers = self._canceled.pop(array.intent.name, None)
            if numbers is not None and array.job is not None:
                desk.cancel(array, numbers if array.tasks else None)
            elif numbers is not None:
                self._canceled[array.intent.name] = numbers
            if not array.tasks and not desk.may_have(array):
                self._close(array)

    def _enter(self, array: Array) -> None:
        settled = batchfile.settled(array.folder)
        for number, parts in enumerate(array.intent.tasks):
            task = Task(array, number, parts)
            if number in settled:
                continue
            if not task.has_begun and task.is_revoked:
                self._canceled[array.intent.name].add(number)  # maybe that was not come to
                continue
            array.tasks[number] = task
            self._task_of |= dict.fromkeys((part.key for part in parts), task)

    # --- what batch systems say ---

    def _desk(self, name: str) -> BatchDesk:
        if name not in self._desks:
            try:
                executor = registry.load(name)
            except ValueError as error:
                raise RunnerError(str(error)) from error
            self._desks[name] = BatchDesk(
                name, executor, self._wake, self._say, self._refused, self._look, self._explained
            )
        return self._desks[name]

    def _refused(self, array: Array, text: str) -> None:
        for task in list(array.tasks.values()):
            trials = self._news.trials(task)
            self._forget(task)
            for trial in trials:
                self._owner.refused(trial, text)
        self._close(array)

    def _look(self, looked: Sequence[Array], seen: Sequence[Seen]) -> None:
        """Takes in what is in the queue, and what tasks have told."""
        self._has_news = True
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

    def _judge(self, task: Task, now: float) -> Verdict:
        try:
            verdict = self._verdicts.of(task, now)
            if verdict is Verdict.OVER:
                self._settle(task, Fate())
        except OSError as error:
            self._bear(task, error, now)
            return Verdict.GOES_ON
        if verdict is Verdict.DISOBEYS:
            self._canceled[task.array.intent.name].add(task.number)
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

    def _explained(self, gone: Sequence[Gone]) -> None:
        said = {(item.name, item.id): Fate(item.why, item.text) for item in gone}
        now = boot_seconds()
        for task in self._tasks():
            array = task.array
            if task.asked_at is None or array.job is None:
                continue
            vanished = self._desks[array.intent.executor].executor.vanished
            found = fate_of(task, said.get((array.intent.name, TaskId(array.job, task.number))), vanished, now)
            if found is not None:
                try:
                    self._settle(task, found)
                except OSError as error:
                    self._run_short(error)

    # --- coming back ---

    def _settle(self, task: Task, fate: Fate) -> None:
        """A task is over: its trials are as their records show them.

        Raises:
            OSError: the machine refused to write that down; what is left of it is settled later.
        """
        refusal = task.fault or self._failed_script(task, fate)
        batchfile.settle(task.array.folder, task.number)
        for trial in self._news.trials(task):
            if self._task_of.get(trial.key) is task:
                self._bring_back(trial, task, fate, refusal)
        self._forget(task)

    @staticmethod
    def _failed_script(task: Task, fate: Fate) -> str:
        """What is told of a task whose script came to its end without having run anything."""
        said = task.last_words()
        has_ended = fate.why is Why.ENDED or (fate.why is None and said)
        if task.has_begun or not has_ended or not task.array.folder.is_dir():  # somebody may have removed the batch
            return ""
        if said:
            return f"the script of its task failed: {said}"
        return f"its task ended before the trial began; do its hosts see {task.array.folder.parent}?"

    def _bring_back(self, trial: Trial, task: Task, fate: Fate, refusal: str) -> None:
        del self._task_of[trial.key]
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
            self._task_of[trial.key] = task
            raise

    def _give_back(self, trial: Trial) -> None:
        states = self._scheduler.states(trial)
        waiting = {stage: JobState.PENDING if state is JobState.SUBMITTED else state for stage, state in states.items()}
        self._scheduler.hand_back(trial, waiting)

    def _forget(self, task: Task) -> None:
        self._has_news = True  # for those that wait for what it shows
        task.array.tasks.pop(task.number, None)
        self._news.forget(task)
        for part in task.parts:
            if self._task_of.get(part.key) is task:
                del self._task_of[part.key]

    def _close(self, array: Array) -> None:
        self._desks[array.intent.executor].drop(array)
        batchfile.delete(array.folder)

    def _tasks(self) -> list[Task]:
        return list({id(task): task for task in self._task_of.values()}.values())
