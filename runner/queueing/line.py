"""The line of trials that wait for a slot: their order, delays and pauses; without a clock."""

from __future__ import annotations

import heapq
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from runner.model import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from runner.queueing.entry import Entry


class Queue(Enum):
    """What the trials of a queue wait for."""

    GPU = "gpu"
    CPU = "cpu"
    BATCH = "batch"  # nothing: another executor takes all


_Place: TypeAlias = "tuple[tuple[int, int, int], int, Entry]"  # rank, ticket


class Line:
    """A queue for each kind of place; beside them what is delayed, and what belongs to a paused sweep."""

    def __init__(self, queue_of: Callable[[Entry], Queue]) -> None:
        """`queue_of` says in which queue an entry waits."""
        self.is_breadth_first = False
        self.paused: set[str] = set()  # sweeps
        self._queue_of = queue_of
        self._queues: dict[Queue, list[_Place]] = {queue: [] for queue in Queue}
        self._delayed: list[tuple[float, int, int, Entry]] = []
        self._parked: list[Entry] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def has(self, queue: Queue) -> bool:
        """Whether something may be in a queue."""
        return bool(self._queues[queue])

    @property
    def next_time(self) -> float | None:
        """When the next delay is over."""
        return self._delayed[0][0] if self._delayed else None

    def join(self, entry: Entry) -> None:
        """Puts an entry in its place, if it has a stage that waits."""
        if entry.due() is not None:
            entry.is_queued = True
            self._count += 1
            self._push(entry)

    def leave(self, entry: Entry) -> None:
        """Takes an entry out."""
        if entry.is_queued:
            entry.is_queued = False
            entry.ticket += 1
            self._count -= 1

    def sort_anew(self, entries: Iterator[Entry]) -> None:
        """Puts all entries that wait into the queues as they belong now."""
        self._queues = {queue: [] for queue in Queue}
        for entry in entries:
            if entry.is_queued:
                self._push(entry)

    def resume(self) -> None:
        """No sweep is paused any more."""
        self.paused.clear()
        parked, self._parked = self._parked, []
        for entry in parked:
            if entry.is_queued:
                self._push(entry)

    def wake(self, now: float) -> None:
        """Puts those whose delay is over into their queues."""
        while self._delayed and self._delayed[0][0] <= now:
            _, _, ticket, entry = heapq.heappop(self._delayed)
            if entry.ticket == ticket:
                entry.not_before = 0.0
                self._push(entry)

    def head(self, kind: Queue) -> Entry | None:
        """The entry that comes first; what is paused is set aside."""
        queue = self._queues[kind]
        while queue:
            _, ticket, entry = queue[0]
            if entry.ticket == ticket and entry.trial.sweep not in self.paused:
                return entry
            heapq.heappop(queue)
            if entry.ticket == ticket:
                self._parked.append(entry)
        return None

    def from_head(self, kind: Queue, is_due: Callable[[Entry], bool], count: int) -> Generator[Entry]:
        """The first `count` entries, as far as the one before which `is_due` says no; all stay where they are."""
        queue = self._queues[kind]
        seen: list[_Place] = []
        try:
            while len(seen) < count and (entry := self.head(kind)) is not None and is_due(entry):
                seen.append(heapq.heappop(queue))
                yield entry
        finally:
            for place in seen:
                heapq.heappush(queue, place)

    def _push(self, entry: Entry) -> None:
        entry.ticket += 1
        if entry.not_before > 0:
            heapq.heappush(self._delayed, (entry.not_before, entry.sequence, entry.ticket, entry))
        else:
            heapq.heappush(self._queues[self._queue_of(entry)], (self._rank(entry), entry.ticket, entry))

    def _rank(self, entry: Entry) -> tuple[int, int, int]:
        """What has begun comes first, or, breadth first, the earlier stage."""
        position = list(entry.states).index(entry.due() or "")
        if not self.is_breadth_first:
            position = 0 if any(state is not JobState.PENDING for state in entry.states.values()) else 1
        return -entry.trial.priority, position, entry.sequence
