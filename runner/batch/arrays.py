"""Which trials are submitted together: decisions without I/O."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.model import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runner.model import Trial
    from runner.options import StageOptions


@dataclass(frozen=True)
class Due:
    """A trial that another executor is to run: its stages that go into one task, and what they need together.

    `plan` is the one whose environment the task has; `gpus` None: one, where there are any.
    """

    trial: Trial
    stages: tuple[str, ...]
    plan: str
    executor: str
    told: Mapping[str, Any]
    gpus: int | None
    cpus: int


def due(
    trial: Trial, first: str, states: Mapping[str, JobState], options: Mapping[str, StageOptions], plan: str
) -> Due:
    """What goes into one task: the stages from `first` on that wait, as far as they are run alike."""
    stages = list(states)
    own = options[first]
    found = [first]
    for stage in stages[stages.index(first) + 1 :]:
        if states[stage] is not JobState.PENDING:
            break
        if (options[stage].executor, options[stage].batch) != (own.executor, own.batch):
            break
        found.append(stage)
    gpus = [options[stage].gpus for stage in found]
    most = max((count for count in gpus if count is not None), default=0)
    cpus = max(options[stage].cpus or 1 for stage in found)
    return Due(trial, tuple(found), plan, own.executor, own.batch, None if None in gpus and most < 1 else most, cpus)


def together(items: Iterable[Due]) -> Iterator[list[Due]]:
    """The trials that may share a batch, in the order in which they came."""
    groups: dict[tuple[Any, ...], list[Due]] = defaultdict(list)
    for item in items:
        told = json.dumps(item.told, sort_keys=True)
        groups[item.executor, told, item.plan, item.gpus, item.cpus].append(item)
    return iter(groups.values())


def batches(items: Sequence[Due], pack: int, most: int) -> Iterator[list[list[Due]]]:
    """Cuts trials into tasks of `pack` trials, and these into batches of at most `most` tasks, of about one size."""
    tasks = [list(items[start : start + pack]) for start in range(0, len(items), pack)]
    count = -(-len(tasks) // most)
    for number in range(count):
        start, end = number * len(tasks) // count, (number + 1) * len(tasks) // count
        yield tasks[start:end]
