"""Which job starts next, and on which slot: decisions without I/O and without a clock."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.model import BLOCKING, FOLLOWS, Job, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.model import Slot, Trial

_AGAIN = frozenset({JobState.FAILED, JobState.TIMEOUT, JobState.CANCELED, JobState.INTERRUPTED, JobState.BLOCKED})


@dataclass(frozen=True)
class Start:
    """Start an attempt of `job` on `slot`."""

    job: Job
    slot: Slot


@dataclass(frozen=True)
class Terms:
    """What a stage asks of the scheduler; its starts are spread over `stagger_s`."""

    needs_gpu: bool = True
    stagger_s: float = 0.0


ANY_TERMS: Mapping[str, Terms] = {}


class _Entry:
    """A trial in the scheduler; its place in the queue is valid while the ticket is."""

    __slots__ = ("is_queued", "not_before", "sequence", "states", "terms", "ticket", "trial")

    def __init__(self, trial: Trial, states: dict[str, JobState], terms: Mapping[str, Terms], sequence: int) -> None:
        self.trial = trial
        self.states = states
        self.terms = terms
        self.sequence = sequence
        self.ticket = 0
        self.is_queued = False
        self.not_before = 0.0

    def due(self) -> str | None:
        """The first stage that waits."""
        return next((stage for stage, state in self.states.items() if state is JobState.PENDING), None)


class _Pool:
    """Slots of one kind, and the trials whose next stage waits for one of them."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}
        self.places: dict[str, int] = {}
        self.free: list[tuple[int, str]] = []  # a heap: the first free slot is taken first
        self.queue: list[tuple[tuple[int, int, int], int, _Entry]] = []

    def place(self, label: str) -> tuple[int, str]:
        return self.places[label], label


class Scheduler:
    """Trials by priority, then in the order in which they came; each to its end on one slot, unless `breadth` first.

    A failed stage blocks the later stages of its trial and nothing else. Times are any clock's, in seconds.
    """

    def __init__(self, slots: Sequence[Slot] = (), is_breadth_first: bool = False) -> None:
        self.is_breadth_first = is_breadth_first
        self.counts: Counter[tuple[str, str, JobState]] = Counter()  # by sweep, stage and state
        self._gpu, self._cpu = _Pool(), _Pool()
        self._entries: dict[str, _Entry] = {}
        self._held: dict[Job, str | None] = {}  # the label of the slot
        self._next: list[Start] = []
        self._delayed: list[tuple[float, int, int, _Entry]] = []
        self._parked: list[_Entry] = []
        self._paused: set[str] = set()
        self._is_paused = self._is_stopping = False
        self._last_start: dict[str, float] = {}
        self._stagger_until: float | None = None
        self._queued = 0
        self._sequence = 0
        self.set_slots(slots)

    # --- what there is ---

    def set_slots(self, slots: Sequence[Slot]) -> None:
        """The slots from now on; an attempt on one that is no more keeps it to its end."""
        taken = {label for label in self._held.values() if label is not None}
        waiting = [entry for entry in self._entries.values() if entry.is_queued]
        for pool, is_gpu in ((self._gpu, True), (self._cpu, False)):
            pool.slots = {slot.label: slot for slot in slots if (slot.gpus is not None) is is_gpu}
            pool.places = {label: place for place, label in enumerate(pool.slots)}
            pool.free = [(place, label) for label, place in pool.places.items() if label not in taken]
            pool.queue = []
        for entry in waiting:
            self._push(entry)

    def add(self, trial: Trial, states: Mapping[str, JobState], terms: Mapping[str, Terms] = ANY_TERMS) -> None:
        """Takes a trial in, with the state of each stage that is asked for, in their order.

        One that is known already is replaced; what of it runs goes on.
        """
        entry = self._entries.get(trial.key)
        if entry is None:
            self._sequence += 1
            entry = self._entries[trial.key] = _Entry(trial, {}, terms, self._sequence)
        self._dequeue(entry)
        self._count(entry, -1)
        running = {stage: state for stage, state in entry.states.items() if state is JobState.RUNNING}
        if not running:
            entry.trial = trial
        entry.terms = terms
        entry.states = {**states, **running}
        self._count(entry, +1)
        if not running:
            entry.not_before = 0.0
            self._enqueue(entry)

    def adopt(self, trial: Trial, stage: str, slot_label: str) -> None:
        """Takes in that a trial's `stage` runs already; it keeps its slot, unless another adopted one has it."""
        entry = self._entries[trial.key]
        self._dequeue(entry)
        self._move(entry, stage, JobState.RUNNING)
        is_taken = slot_label in self._held.values()
        for pool in (self._gpu, self._cpu):
            if slot_label in pool.slots and not is_taken:
                pool.free.remove(pool.place(slot_label))
                heapq.heapify(pool.free)
        self._held[Job(entry.trial, stage)] = None if is_taken else slot_label

    def drop(self, key: str) -> None:
        """Forgets a trial of which nothing runs."""
        entry = self._entries.pop(key)
        self._dequeue(entry)
        self._count(entry, -1)

    def trials(self) -> Iterable[Trial]:
        """Every trial that was taken in."""
        return (entry.trial for entry in self._entries.values())

    def trial(self, key: str) -> Trial | None:
        """The trial of this id."""
        entry = self._entries.get(key)
        return None if entry is None else entry.trial

    def running(self) -> Iterable[Job]:
        """The jobs that hold a slot."""
        return self._held.keys()

    def states(self, trial: Trial) -> Mapping[str, JobState]:
        """The state of each stage that was asked for."""
        return self._entries[trial.key].states

    def labels(self) -> list[str]:
        """The slots."""
        return [*self._gpu.slots, *self._cpu.slots]

    @property
    def is_stopping(self) -> bool:
        """Whether it was told that nothing more starts."""
        return self._is_stopping

    @property
    def is_done(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._held and not self._queued

    # --- a user's word ---

    def stop(self) -> None:
        """Lets nothing more start; what was decided and not yet told is taken back."""
        self._is_stopping = True
        self._take_back()

    def pause(self, sweep: str | None = None) -> None:
        """Lets nothing more of a sweep start, or nothing at all."""
        if sweep is None:
            self._is_paused = True
        else:
            self._paused.add(sweep)
        self._take_back()

    def resume(self) -> None:
        """Takes every pause back."""
        self._is_paused = False
        self._paused.clear()
        parked, self._parked = self._parked, []
        for entry in parked:
            if entry.is_queued:
                self._push(entry)

    @property
    def paused(self) -> list[str] | None:
        """The sweeps that are paused; an empty list: none; None: all."""
        return None if self._is_paused else sorted(self._paused)

    def cancel(self, trial: Trial) -> list[Job]:
        """Takes a trial's waiting jobs out; returns them."""
        entry = self._entries[trial.key]
        self._dequeue(entry)
        waiting = [stage for stage, state in entry.states.items() if state is JobState.PENDING]
        for stage in waiting:
            self._move(entry, stage, JobState.CANCELED)
        return [Job(entry.trial, stage) for stage in waiting]

    def again(self, trial: Trial) -> list[Job]:
        """Makes what failed, was canceled or interrupted due again, with all that it blocked; returns it."""
        entry = self._entries[trial.key]
        stages = [stage for stage, state in entry.states.items() if state in _AGAIN]
        for stage in stages:
            self._move(entry, stage, JobState.PENDING)
        if stages and not any(state is JobState.RUNNING for state in entry.states.values()):
            entry.not_before = 0.0
            self._dequeue(entry)
            self._enqueue(entry)
        return [Job(entry.trial, stage) for stage in stages]

    # --- decisions ---

    def decide(self, now: float = 0.0) -> list[Start]:
        """The starts that are due now; each is taken as done."""
        self._stagger_until = None
        if self._is_stopping or self._is_paused:
            return []
        starts, self._next = self._next, []
        while self._delayed and self._delayed[0][0] <= now:
            _, _, ticket, entry = heapq.heappop(self._delayed)
            if entry.ticket == ticket:
                entry.not_before = 0.0
                self._push(entry)
        for pool in (self._gpu, self._cpu):
            while pool.free and (head := self._head(pool, now)) is not None:
                self._dequeue(head)
                starts.append(self._start(head, pool, heapq.heappop(pool.free)[1], now))
        return starts

    def next_time(self) -> float | None:
        """When to decide again though nothing has happened; None: not before something does."""
        if self._is_stopping or self._is_paused:
            return None
        times = [self._delayed[0][0]] if self._delayed else []
        if self._stagger_until is not None:
            times.append(self._stagger_until)
        return min(times, default=None)

    def ended(self, job: Job, state: JobState, again_at: float | None = None, now: float = 0.0) -> list[Job]:
        """Notes the end of a running job; returns the jobs that it blocks. With `again_at` it is due again then."""
        entry = self._entries[job.trial.key]
        self._move(entry, job.stage, state)
        label = self._held.pop(job)
        blocked: list[Job] = []
        if again_at is not None:
            self._move(entry, job.stage, JobState.PENDING)
            entry.not_before = again_at
        elif state in BLOCKING:
            blocked = self._block(entry, job.stage)
        if not self._goes_on(entry, job, state):
            self._release(label)
        elif label is None or not self._keeps_slot(entry, label, state, now):
            self._release(label)
            self._enqueue(entry)
        else:
            self._next.append(self._start(entry, self._pool(entry), label, now))
        return blocked

    # --- inside ---

    def _goes_on(self, entry: _Entry, job: Job, state: JobState) -> bool:
        """Whether the trial has a stage to start after this one, or, where this one was adopted, before it."""
        due = entry.due()
        if due is None or any(other.trial.key == entry.trial.key for other in self._held):
            return False
        stages = list(entry.states)
        return state is JobState.COMPLETED or stages.index(due) <= stages.index(job.stage)

    def _keeps_slot(self, entry: _Entry, label: str, state: JobState, now: float) -> bool:
        if self._is_stopping or self._is_paused or entry.trial.sweep in self._paused or self.is_breadth_first:
            return False
        pool = self._pool(entry)
        return state is JobState.COMPLETED and label in pool.slots and self._stagger_end(entry, pool) <= now

    def _pool(self, entry: _Entry) -> _Pool:
        """Where the trial's next stage runs: what needs a GPU waits for one, if there is any."""
        terms = entry.terms.get(entry.due() or "", Terms())
        return self._gpu if self._gpu.slots and (terms.needs_gpu or not self._cpu.slots) else self._cpu

    def _head(self, pool: _Pool, now: float) -> _Entry | None:
        """The trial that comes first; None when none may start now."""
        while pool.queue:
            _, ticket, entry = pool.queue[0]
            if entry.ticket == ticket and entry.trial.sweep not in self._paused:
                until = self._stagger_end(entry, pool)
                if until <= now:
                    return entry
                self._stagger_until = until if self._stagger_until is None else min(until, self._stagger_until)
                return None
            heapq.heappop(pool.queue)
            if entry.ticket == ticket:
                self._parked.append(entry)
        return None

    def _stagger_end(self, entry: _Entry, pool: _Pool) -> float:
        stage = entry.due() or ""
        spread = entry.terms.get(stage, Terms()).stagger_s
        if not spread or stage not in self._last_start:
            return float("-inf")
        return self._last_start[stage] + spread / max(1, len(pool.slots))

    def _enqueue(self, entry: _Entry) -> None:
        if entry.due() is not None:
            entry.is_queued = True
            self._queued += 1
            self._push(entry)

    def _push(self, entry: _Entry) -> None:
        entry.ticket += 1
        if entry.not_before > 0:
            heapq.heappush(self._delayed, (entry.not_before, entry.sequence, entry.ticket, entry))
            return
        heapq.heappush(self._pool(entry).queue, (self._rank(entry), entry.ticket, entry))

    def _dequeue(self, entry: _Entry) -> None:
        if entry.is_queued:
            entry.is_queued = False
            entry.ticket += 1
            self._queued -= 1

    def _rank(self, entry: _Entry) -> tuple[int, int, int]:
        """The order of the queue: what has begun comes first, or, breadth first, the earlier stage."""
        position = list(entry.states).index(entry.due() or "")
        if not self.is_breadth_first:
            position = 0 if any(state is not JobState.PENDING for state in entry.states.values()) else 1
        return -entry.trial.priority, position, entry.sequence

    def _start(self, entry: _Entry, pool: _Pool, label: str, now: float) -> Start:
        stage = entry.due()
        assert stage is not None
        job = Job(entry.trial, stage)
        self._move(entry, stage, JobState.RUNNING)
        self._held[job] = label
        self._last_start[stage] = now
        return Start(job, pool.slots[label])

    def _take_back(self) -> None:
        for start in reversed(self._next):
            entry = self._entries[start.job.trial.key]
            self._count(entry, -1)
            entry.states[start.job.stage] = JobState.PENDING
            self._count(entry, +1)
            self._release(self._held.pop(start.job))
            self._enqueue(entry)
        self._next.clear()

    def _release(self, label: str | None) -> None:
        for pool in (self._gpu, self._cpu):
            if label is not None and label in pool.slots:
                heapq.heappush(pool.free, pool.place(label))

    def _block(self, entry: _Entry, stage: str) -> list[Job]:
        stages = list(entry.states)
        later = stages[stages.index(stage) + 1 :]
        blocked = [item for item in later if entry.states[item] is JobState.PENDING]
        for item in blocked:
            self._move(entry, item, JobState.BLOCKED)
        return [Job(entry.trial, item) for item in blocked]

    def _move(self, entry: _Entry, stage: str, state: JobState) -> None:
        before = entry.states[stage]
        assert state in FOLLOWS[before], f"{stage}: {before} to {state}"
        entry.states[stage] = state
        sweep = entry.trial.sweep
        self.counts[sweep, stage, before] -= 1
        self.counts[sweep, stage, state] += 1

    def _count(self, entry: _Entry, sign: int) -> None:
        for stage, state in entry.states.items():
            self.counts[entry.trial.sweep, stage, state] += sign
