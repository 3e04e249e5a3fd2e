"""One batch system: what is submitted to it and canceled, and what it says, each command beside the daemon's loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.batch import batchfile
from runner.batch.script import batch_of
from runner.errors import RunnerError
from runner.executors.batch import FullError, UnreachableError
from runner.process import boot_seconds
from runner.service.errands import Errands
from runner.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from concurrent.futures import Future

    from runner.batch.tasks import Array
    from runner.executors.batch import BatchExecutor, Gone, Seen, TaskId

AGAIN_S = 30.0  # at most, before a batch system that did not answer, or takes nothing now, is asked again
_FIRST_AGAIN_S = 4.0  # the first time; doubled each time after it


@dataclass
class _Trouble:
    """What a batch system does not do at present: what it said, and when it is asked again."""

    over: str  # what is said when it does it again
    text: str = ""
    again_at: float = 0.0
    wait_s: float = _FIRST_AGAIN_S

    def put_off(self) -> None:
        """It is tried again, each time later."""
        self.again_at = boot_seconds() + self.wait_s
        self.wait_s = min(2 * self.wait_s, AGAIN_S)

    def hurry(self) -> None:
        """It is tried again at once, for the first time."""
        self.again_at, self.wait_s = 0.0, _FIRST_AGAIN_S


class BatchDesk:
    """Talks to one batch system. What comes of it is told to the functions given, on the loop's thread."""

    def __init__(
        self,
        name: str,
        executor: BatchExecutor,
        wake: Callable[[], None],
        say: Callable[[str], None],
        refused: Callable[[Array, str], None],
        too_large: Callable[[Array], None],
        seen: Callable[[Sequence[Array], Sequence[Seen]], None],
        gone: Callable[[Sequence[Gone]], None],
    ) -> None:
        """`refused` hears of an array that is never taken, `too_large` of one for which there is no room now, `seen` of
        the queue, `gone` of what accounting says."""
        self.name = name
        self.executor = executor
        self.arrays: list[Array] = []
        self.waiting: list[Array] = []  # to be submitted
        self.max_tasks: int | None = None
        self._errands = Errands(wake)
        self._say = say
        self._refused, self._too_large, self._seen, self._gone = refused, too_large, seen, gone
        self._look_at = 0.0
        self._taking: dict[str, _Trouble] = {}  # by what is told: a full queue takes none, and others may
        self._answering = _Trouble("answers again")
        self._is_asking = False
        self._cancels = 0  # under way
        self.submitting: Array | None = None

    # --- the loop ---

    def settle(self) -> None:
        """Does what follows from the answers that have come."""
        self._errands.settle()

    def step(self, now: float, has_more: bool) -> float | None:
        """Does what is due; returns when it must be called again, None: when something is done or asked for.

        `has_more`: what is to be submitted waits until it is known how large an array may be.
        """
        if self._is_asking:
            return None
        submit_at = min((self._trouble_of(array).again_at for array in self.waiting), default=None)
        learn_at = self._answering.again_at if has_more and self.max_tasks is None else None
        look_at = max(self._look_at, self._answering.again_at) if self.arrays else None
        if learn_at is not None and now >= learn_at:
            self._ask(self.executor.max_tasks, self._learn, self._answering)
        elif submit_at is not None and now >= submit_at:
            array = self.submitting = min(self.waiting, key=lambda array: self._trouble_of(array).again_at)
            self._ask(lambda: self._submit(array), lambda job: self._submitted(array, job), self._trouble_of(array))
        elif look_at is not None and now >= look_at:
            looked = list(self.arrays)
            self._ask(self.executor.queue, lambda seen: self._see(looked, seen), self._answering)
        else:
            return min((time for time in (submit_at, learn_at, look_at) if time is not None), default=None)
        return None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be submitted or being canceled."""
        return self.submitting is None and not self.waiting and not self._cancels

    @property
    def trouble(self) -> str:
        """What the batch system does not do at present, in its own words."""
        waited_for = (self._answering, *map(self._trouble_of, self.waiting))
        return next((item.text for item in waited_for if item.text), "")

    def may_have(self, array: Array) -> bool:
        """Whether the batch system may have an array whose job is not known, because its answer was lost."""
        return array is self.submitting or (array.job is None and batchfile.was_tried(array.folder))

    def submit(self, array: Array) -> None:
        """Has an array submitted whose intent is on disk, unless the batch system has it already."""
        self.waiting.append(array)

    def submit_next(self, arrays: Sequence[Array]) -> None:
        """Has arrays submitted before the others."""
        self.waiting[:0] = arrays

    def watch(self, array: Array) -> None:
        """Takes in an array that was submitted before."""
        self.arrays.append(array)

    def drop(self, array: Array) -> None:
        """The array is over, or taken back before it was submitted."""
        for kept in (self.arrays, self.waiting):
            if array in kept:
                kept.remove(array)

    def cancel(self, array: Array, numbers: Collection[int] | None) -> None:
        """Ends tasks of an array, all that it has without `numbers`."""
        job = array.job
        if job is not None:
            self._cancels += 1
            self._errands.do(lambda: self.executor.cancel(job, numbers), self._canceled)

    def explain(self, tasks: Mapping[TaskId, str], since: float) -> None:
        """Asks accounting why tasks are gone, by their ids and names."""
        names = set(tasks.values())
        self._ask(lambda: self.executor.gone(list(tasks), names, since), self._gone, self._answering)

    # --- inside ---

    def _trouble_of(self, array: Array) -> _Trouble:
        """Arrays of which the same is told are taken, or not, alike."""
        return self._taking.setdefault(repr(sorted(array.intent.told.items())), _Trouble("takes jobs again"))

    def _ask(self, work: Callable[[], object], then: Callable[..., None], trouble: _Trouble) -> None:
        """Has a command run; one that fails is told once, and what is open is asked for later."""
        self._is_asking = True

        def done(future: Future[object]) -> None:
            self._is_asking = False
            self.submitting = None
            error = future.exception()
            if error is not None:
                self._fail(trouble, error)
                return
            then(future.result())
            if trouble.text and not isinstance(future.result(), RunnerError):
                self._recover(trouble)

        self._errands.do(work, done)

    def _fail(self, trouble: _Trouble, error: BaseException) -> None:
        """Also an error of the executor's own is no reason to leave those alone that run."""
        text = str(error) if isinstance(error, RunnerError) else f"{type(error).__name__}: {error}"
        trouble.put_off()
        if text != trouble.text:
            trouble.text = text
            self._say(f"{self.name}: {text.rstrip('.')}. It is asked again; what runs goes on.")

    def _recover(self, trouble: _Trouble) -> None:
        """It works again, and is said to when nothing waits for it: a full queue takes a few, and is full again."""
        trouble.hurry()
        if all(self._trouble_of(array) is not trouble for array in self.waiting):
            trouble.text = ""
            self._say(f"{self.name} {trouble.over}.")

    def _canceled(self, future: Future[None]) -> None:
        self._cancels -= 1
        error = future.exception()
        if error is not None:  # tasks that were taken back end by themselves when they begin
            self._fail(self._answering, error)

    def _learn(self, most: int) -> None:
        self.max_tasks = most

    def _submit(self, array: Array) -> str | RunnerError:
        """On the errands' thread: the job of an array, or why there will never be one, or not as it is."""
        try:
            return self._job_of(array)
        except UnreachableError as error:
            if isinstance(error, FullError) and len(array.tasks) > 1:
                return error
            raise
        except RunnerError as error:
            return error

    def _job_of(self, array: Array) -> str:
        """Submits an array, unless an earlier try did, also one of an earlier daemon."""
        folder, intent = array.folder, array.intent
        job = None
        if batchfile.was_tried(folder):
            if batchfile.is_submitting(folder):
                raise UnreachableError(f"{intent.name} is still being submitted by an earlier daemon's command.")
            job = self.executor.find([intent.name], intent.created).get(intent.name)
        if job is None and not array.tasks:
            raise RunnerError(f"{intent.name}: nobody asks for it any more.")
        if job is None:
            batch = batch_of(folder, intent, array.keys)
            if batch.gpus is None:
                batch = replace(batch, gpus=int(self.executor.has_gpus(array.keys)))
            script = self.executor.script(batch)
            batchfile.keep_script(folder, script)
            with batchfile.submitting(folder) as descriptor:
                job = self.executor.submit(batch, script, descriptor)
        batchfile.note_job(folder, job)
        return job

    def _submitted(self, array: Array, job: str | RunnerError) -> None:
        if isinstance(job, FullError):
            self._too_large(array)
            return
        self.waiting.remove(array)
        if isinstance(job, RunnerError):
            self._refused(array, str(job))
            return
        array.job = job
        self.arrays.append(array)
        self._say(f"Submitted to {self.name}: job {job}, {counted(len(array.intent.tasks), 'task')}.")

    def _see(self, looked: Sequence[Array], seen: Sequence[Seen]) -> None:
        self._look_at = boot_seconds() + min((array.keys.poll for array in self.arrays), default=0.0)
        self._seen([array for array in looked if array in self.arrays], seen)
