"""Which trials are in which tasks of batches, and which of the tasks are to be canceled."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from runner.batch import batchfile
from runner.batch.tasks import Task

if TYPE_CHECKING:
    from runner.batch.news import News
    from runner.batch.tasks import Array


class Book:
    """The tasks of one daemon that are not over."""

    def __init__(self, news: News) -> None:
        self._news = news
        self.task_of: dict[str, Task] = {}  # by the keys of their trials
        self.canceled: dict[str, set[int]] = defaultdict(set)  # the numbers of tasks, by the name of their array
        self.has_news = False  # something that waits may be made into arrays

    def tasks(self) -> list[Task]:
        """All of them."""
        return list({id(task): task for task in self.task_of.values()}.values())

    def enter(self, array: Array) -> None:
        """Takes in the tasks of an array; some of an earlier daemon's may be over, or taken back."""
        settled = batchfile.settled(array.folder)
        for number, parts in enumerate(array.intent.tasks):
            task = Task(array, number, parts)
            if number in settled:
                continue
            if not task.has_begun and task.is_revoked:
                self.cancel(task)  # maybe that was not come to
                continue
            array.tasks[number] = task
            self.task_of |= dict.fromkeys((part.key for part in parts), task)

    def cancel(self, task: Task) -> None:
        """A task is to be canceled."""
        self.canceled[task.array.intent.name].add(task.number)

    def forget(self, task: Task) -> None:
        """A task is over, or was taken back."""
        self.has_news = True  # for those that wait for what it shows
        task.array.tasks.pop(task.number, None)
        self._news.forget(task)
        for part in task.parts:
            if self.task_of.get(part.key) is task:
                del self.task_of[part.key]
