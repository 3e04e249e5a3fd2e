"""Trials that other executors are to run, until they are made into arrays."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

from runner.batch import arrays, batchfile
from runner.batch.packs import Packs
from runner.batch.tasks import Array

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from runner.batch.arrays import Due
    from runner.batch.batchfile import Part
    from runner.executors.batch import BatchKeys
    from runner.model import Trial
    from runner.scheduler import Scheduler, Start
    from runner.service.intake import Intake


class BatchQueue:
    """What waits to be submitted."""

    def __init__(self, scheduler: Scheduler, intake: Intake, holds: Callable[[str], bool]) -> None:
        """`holds` says whether a trial, by its key, is in a task."""
        self._scheduler = scheduler
        self._intake = intake
        self._due: dict[str, dict[str, Due]] = defaultdict(dict)  # by executor, and by the key of the trial
        self._packs = Packs(holds)

    def take(self, start: Start) -> None:
        """Takes a trial in that the scheduler gives away.

        Raises:
            OSError: what it reads of other trials could not be written down.
        """
        trial, stage = start.job
        origin = self._intake.origin(trial)
        self._intake.pipeline.prepare(trial)
        options = {name: origin.options(name) for name in origin.plan_of}
        states = self._scheduler.states(trial)
        due = arrays.due(trial, stage, states, options, origin.plan_of[stage].header.plan_id)
        self._due[due.executor][trial.key] = due

    def remove(self, key: str) -> bool:
        """Takes a trial out again; False: it is not there."""
        return any(items.pop(key, None) is not None for items in self._due.values())

    def trials(self) -> list[Trial]:
        """The trials that wait."""
        return [due.trial for items in self._due.values() for due in items.values()]

    def count(self, executor: str) -> int:
        """How many wait for an executor."""
        return len(self._due[executor])

    def arrays(self, executor: str, keys_of: type[BatchKeys], most: int, output: Path) -> Iterator[Array]:
        """Makes arrays of what waits for an executor, of at most so many tasks; their intents are on disk.

        With `pack: auto` some wait on, for what one of them shows.

        Raises:
            OSError: an intent could not be written; what it was for waits on.
        """
        for group in arrays.together(list(self._due[executor].values())):
            keys = keys_of.model_validate(group[0].told)
            if keys.pack != "auto" or group[0].gpus == 0:
                yield from self._make(group, keys, 1 if keys.pack == "auto" else keys.pack, most, output)
                continue
            for members, pack in self._packs.sort(group, output):
                if pack is not None:
                    yield from self._make(members, keys, pack, most, output)

    def _make(self, items: Sequence[Due], keys: BatchKeys, pack: int, most: int, output: Path) -> Iterator[Array]:
        first = items[0]
        header = self._intake.origin(first.trial).plan_of[first.stages[0]].header
        for tasks in arrays.batches(items, pack, most):
            name = batchfile.new_name()
            parts = tuple(tuple(self._part(due) for due in task) for task in tasks)
            intent = batchfile.Intent(
                name, first.executor, first.told, first.plan, header.cwd, first.gpus, first.cpus * pack, parts
            )
            folder = batchfile.directory_of(output) / name
            batchfile.write(folder, intent)
            for part in chain.from_iterable(parts):
                self.remove(part.key)
            yield Array(folder, intent, keys)

    def _part(self, due: Due) -> Part:
        origin = self._intake.origin(due.trial)
        plans = {stage: origin.plan_of[stage] for stage in due.stages}
        stages = {stage: (plan.header.plan_id, *plan.place_of(due.trial)) for stage, plan in plans.items()}
        inputs = self._intake.pipeline.inputs(due.trial, plans[due.stages[0]].header.cwd)
        return batchfile.Part(due.trial.key, stages, origin.ask, inputs)
