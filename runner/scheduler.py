"""Which job starts next, and on which slot: decisions without I/O and without a clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.learning import Learning
from runner.line import Entry, Line, Queue
from runner.model import BLOCKING, FOLLOWS, IN_HAND, LOCAL, Job, JobState, Slot, Terms
from runner.pools import CpuPool, GpuPool, fixed_cards
from runner.stagger import Stagger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.model import Trial
    from runner.packing import Card, Demand

_AGAIN = frozenset(
    {
        JobState.FAILED,
        JobState.TIMEOUT,
        JobState.PRUNED,
        JobState.CANCELED,
        JobState.INTERRUPTED,
        JobState.BLOCKED,
    }
)


@dataclass(frozen=True)
class Start:
    """Start an attempt of `job` on `slot`; one without a share of this machine is for another executor."""

    job: Job
    slot: Slot


ANY_TERMS: Mapping[str, Terms] = {}
_WINDOW = 1000  # so many waiting trials are looked at for one that fits on what a GPU has left


class Scheduler:
    """Trials by priority, then in the order in which they came; each to its end on one slot, unless `breadth` first.

    A failed stage blocks the later stages of its trial and nothing else. Times are any clock's, in seconds.
    """

    def __init__(self, slots: Sequence[Slot] = (), is_breadth_first: bool = False) -> None:
        self.counts: Counter[tuple[str, str, JobState]] = Counter()  # by sweep, stage and state
        self.learning = Learning()
        self._gpus, self._cpus = GpuPool(), CpuPool()
        self._line = Line(self._queue_of)
        self._line.is_breadth_first = is_breadth_first
        self._entries: dict[str, Entry] = {}
        self._held: dict[Job, Slot | None] = {}
        self._next: list[Start] = []
        self._is_paused = self._is_stopping = False
        self._stagger = Stagger()
        self._withheld: set[str] = set()  # trials that wait for others, by key
        self._away: dict[str, Job] = {}  # what another executor has, by the trial's key
        self._sequence = 0
        self.set_slots(slots)

    @property
    def is_breadth_first(self) -> bool:
        """Whether the first stages of all trials come before the second ones."""
        return self._line.is_breadth_first

    @is_breadth_first.setter
    def is_breadth_first(self, value: bool) -> None:
        self._line.is_breadth_first = value

    # --- what there is ---

    def set_slots(self, slots: Sequence[Slot], has_gpus: bool = False) -> None:
        """The slots from now on; an attempt on one that is no more keeps it to its end.

        With `has_gpus` the GPUs are told by `set_cards`; otherwise they are those of the slots.
        """
        taken = {slot.label for slot in self._held.values() if slot is not None}
        self._cpus.set_slots([slot for slot in slots if slot.gpus is None], taken)
        cards = fixed_cards(slots)
        if not has_gpus:
            self._gpus.set_cards(cards, bool(cards))
        elif not self._gpus.exists:
            self._gpus.set_cards([], exists=True)
        self._line.sort_anew(iter(self._entries.values()))

    def set_cards(self, cards: Sequence[Card]) -> None:
        """The GPUs that may be used now, as they were just seen."""
        self._gpus.set_cards(cards, exists=True)

    def add(
        self,
        trial: Trial,
        states: Mapping[str, JobState],
        terms: Mapping[str, Terms] = ANY_TERMS,
        is_withheld: bool = False,
    ) -> None:
        """Takes a trial in, with the state of each stage that is asked for, in their order.

        One that is known already is replaced; what of it runs goes on. One that is withheld does not start until it is
        added anew.
        """
        entry = self._entries.get(trial.key)
        if entry is None:
            self._sequence += 1
            entry = self._entries[trial.key] = Entry(trial, {}, terms, self._sequence)
        self._line.leave(entry)
        self._withheld.discard(trial.key)
        self._count(entry, -1)
        running = {stage: state for stage, state in entry.states.items() if state in IN_HAND}
        is_in_hand = bool(running) or trial.key in self._away
        if not is_in_hand:
            entry.trial = trial
        entry.terms = terms
        entry.states = {**states, **running}
        self._count(entry, +1)
        if not is_in_hand:
            entry.not_before = 0.0
            if is_withheld:
                self._withheld.add(trial.key)
            else:
                self._line.join(entry)

    def adopt(self, trial: Trial, stage: str, slot: Slot) -> None:
        """Takes in that a trial's `stage` runs already; it keeps its slot, unless another adopted one has it."""
        entry = self._entries[trial.key]
        self._line.leave(entry)
        self._move(entry, stage, JobState.RUNNING)
        taken = {held.label for held in self._held.values() if held is not None}
        kept: Slot | None = None
        if slot.shares:
            kept = self._gpus.adopt(slot)
        elif slot.label not in taken:
            self._cpus.adopt(slot.label)
            kept = slot
        self._held[Job(entry.trial, stage)] = kept

    def hold(self, trial: Trial, slot: Slot) -> None:
        """Takes in that another executor has a trial already."""
        entry = self._entries[trial.key]
        self._line.leave(entry)
        stage = entry.due()
        if stage is not None:
            self._move(entry, stage, JobState.SUBMITTED)
        job = self._away[trial.key] = Job(entry.trial, stage or next(iter(entry.states)))
        self._held[job] = slot

    def report(self, trial: Trial, stage: str, state: JobState) -> None:
        """Notes what another executor has come to with a stage of a trial that it has."""
        entry = self._entries[trial.key]
        changed = {stage: state}
        if state is JobState.RUNNING:  # the stages before it are complete; it was submitted with one of them
            changed |= {other: JobState.PENDING for other, known in entry.states.items() if known is JobState.SUBMITTED}
            changed[stage] = state
        self._count(entry, -1)
        entry.states = entry.states | changed
        self._count(entry, +1)

    def hand_back(
        self, trial: Trial, states: Mapping[str, JobState], again_at: float = 0.0, is_due: bool = True
    ) -> None:
        """Takes a trial back that another executor had, as its records show it; what waits of it `is_due` again."""
        entry = self._entries[trial.key]
        job = self._away.pop(trial.key, None)
        if job is not None:
            del self._held[job]
        self._line.leave(entry)
        self._count(entry, -1)
        entry.states = dict(states)
        self._count(entry, +1)
        entry.not_before = again_at
        if is_due:
            self._line.join(entry)

    def drop(self, key: str) -> None:
        """Forgets a trial of which nothing runs."""
        entry = self._entries.pop(key)
        self._line.leave(entry)
        self._withheld.discard(key)
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
        return [*self._gpus.labels, *self._cpus.labels]

    @property
    def waits_for_gpu(self) -> bool:
        """Whether something waits for a GPU."""
        return self._line.has(Queue.GPU)

    @property
    def waits_for_cpu(self) -> bool:
        """Whether something waits for a CPU slot."""
        return self._line.has(Queue.CPU)

    @property
    def is_stopping(self) -> bool:
        """Whether it was told that nothing more starts."""
        return self._is_stopping

    @property
    def is_done(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._held and not self._line and not self._withheld

    def is_idle(self, key: str) -> bool:
        """Whether nothing of a trial runs, and nothing of it will start by itself."""
        entry = self._entries[key]
        is_waiting = entry.is_queued or key in self._withheld or key in self._away
        return not is_waiting and not IN_HAND.intersection(entry.states.values())

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
            self._line.paused.add(sweep)
        self._take_back()

    def resume(self) -> None:
        """Takes every pause back."""
        self._is_paused = False
        self._line.resume()

    @property
    def paused(self) -> list[str] | None:
        """The sweeps that are paused; an empty list: none; None: all."""
        return None if self._is_paused else sorted(self._line.paused)

    def cancel(self, trial: Trial) -> list[Job]:
        """Takes a trial's waiting jobs out; returns them."""
        entry = self._entries[trial.key]
        self._line.leave(entry)
        self._withheld.discard(trial.key)
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
        is_held = trial.key in self._withheld or trial.key in self._away
        is_held = is_held or not IN_HAND.isdisjoint(entry.states.values())
        if stages and not is_held:
            entry.not_before = 0.0
            self._line.leave(entry)
            self._line.join(entry)
        return [Job(entry.trial, stage) for stage in stages]

    # --- decisions ---

    def decide(self, now: float = 0.0) -> list[Start]:
        """The starts that are due now; each is taken as done."""
        self._stagger.until = None
        if self._is_stopping or self._is_paused:
            return []
        starts, self._next = self._next, []
        self._line.wake(now)
        starts += self._decide_gpus(now)
        while not self._cpus.is_full and (head := self._line.head(Queue.CPU)) and self._is_due(head, now):
            self._line.leave(head)
            starts.append(self._start(head, self._cpus.take(), now))
        while head := self._line.head(Queue.BATCH):
            self._line.leave(head)
            starts.append(self._start(head, Slot(head.due_terms().executor), now, JobState.SUBMITTED))
            self._away[head.trial.key] = starts[-1].job
        return starts

    def _decide_gpus(self, now: float) -> list[Start]:
        if self._gpus.is_full:
            return []
        staggered: set[str] = set()

        def is_due(entry: Entry) -> bool:
            stage = entry.due() or ""
            if stage in staggered or not self._is_due(entry, now):
                return False
            if entry.due_terms().stagger_s:  # one at a time
                staggered.add(stage)
            return True

        heads = self._line.from_head(Queue.GPU, is_due, _WINDOW)
        placed = self._gpus.place(map(self._demand, heads))
        heads.close()
        starts = []
        for placement, slot in placed:
            entry = self._entries[str(placement.key)]
            self._line.leave(entry)
            starts.append(self._start(entry, slot, now))
        if staggered and starts and (head := self._line.head(Queue.GPU)) is not None:
            self._is_due(head, now)  # notes when the next one is
        return starts

    def refuse(self, start: Start) -> None:
        """Takes a start back whose slot turned out to be taken."""
        entry = self._entries[start.job.trial.key]
        self._count(entry, -1)
        entry.states[start.job.stage] = JobState.PENDING
        self._count(entry, +1)
        self._release(self._held.pop(start.job))
        self._line.join(entry)

    def next_time(self) -> float | None:
        """When to decide again though nothing has happened; None: not before something does."""
        if self._is_stopping or self._is_paused:
            return None
        times = [time for time in (self._line.next_time, self._stagger.until) if time is not None]
        return min(times, default=None)

    def ended(self, job: Job, state: JobState, again_at: float | None = None, now: float = 0.0) -> list[Job]:
        """Notes the end of a running job; returns the jobs that it blocks. With `again_at` it is due again then.

        A pruned job's later stages are pruned with it, and returned too.
        """
        entry = self._entries[job.trial.key]
        self._move(entry, job.stage, state)
        slot = self._held.pop(job)
        self._away.pop(job.trial.key, None)
        blocked: list[Job] = []
        if again_at is not None:
            self._move(entry, job.stage, JobState.PENDING)
            entry.not_before = again_at
        elif state in BLOCKING:
            blocked = self._block(entry, job.stage, JobState.BLOCKED)
        elif state is JobState.PRUNED:
            blocked = self._block(entry, job.stage, JobState.PRUNED)
        if not self._goes_on(entry, job, state):
            self._release(slot)
        elif slot is None or not self._keeps_slot(entry, slot, state, now):
            self._release(slot)
            self._line.join(entry)
        else:
            self._next.append(self._start(entry, slot, now))
        return blocked

    # --- inside ---

    def _goes_on(self, entry: Entry, job: Job, state: JobState) -> bool:
        """Whether the trial has a stage to start after this one, or, where this one was adopted, before it."""
        due = entry.due()
        if due is None or any(other.trial.key == entry.trial.key for other in self._held):
            return False
        stages = list(entry.states)
        return state is JobState.COMPLETED or stages.index(due) <= stages.index(job.stage)

    def _keeps_slot(self, entry: Entry, slot: Slot, state: JobState, now: float) -> bool:
        if self._is_stopping or self._is_paused or entry.trial.sweep in self._line.paused or self.is_breadth_first:
            return False
        if state is not JobState.COMPLETED or self._stagger_end(entry) > now:
            return False
        queue = self._queue_of(entry)
        if queue is Queue.GPU:
            return bool(slot.shares) and self._gpus.keeps(slot, self._demand(entry))
        return queue is Queue.CPU and slot.label in self._cpus

    def _queue_of(self, entry: Entry) -> Queue:
        """Where the trial's next stage runs: what needs a GPU waits for one, if there is any."""
        terms = entry.due_terms()
        if terms.executor != LOCAL:
            return Queue.BATCH
        return Queue.GPU if self._gpus.exists and (terms.gpus > 0 or not len(self._cpus)) else Queue.CPU

    def _demand(self, entry: Entry) -> Demand:
        return self.learning.demand(entry.trial, entry.due() or "", entry.due_terms())

    def _is_due(self, entry: Entry, now: float) -> bool:
        """Whether the starts of its stage are spread far enough; otherwise notes when they are."""
        until = self._stagger_end(entry)
        if until > now:
            self._stagger.hold(until)
        return until <= now

    def _stagger_end(self, entry: Entry) -> float:
        count = len(self._gpus) if self._queue_of(entry) is Queue.GPU else len(self._cpus)
        return self._stagger.end(entry.due() or "", entry.due_terms().stagger_s, count)

    def _start(self, entry: Entry, slot: Slot, now: float, state: JobState = JobState.RUNNING) -> Start:
        stage = entry.due()
        assert stage is not None
        job = Job(entry.trial, stage)
        self._move(entry, stage, state)
        self._held[job] = slot
        self._stagger.note(stage, now)
        return Start(job, slot)

    def _take_back(self) -> None:
        for start in reversed(self._next):
            self.refuse(start)
        self._next.clear()

    def _release(self, slot: Slot | None) -> None:
        if slot is not None:
            (self._gpus if slot.shares else self._cpus).release(slot)

    def _block(self, entry: Entry, stage: str, state: JobState) -> list[Job]:
        stages = list(entry.states)
        later = stages[stages.index(stage) + 1 :]
        blocked = [item for item in later if entry.states[item] is JobState.PENDING]
        for item in blocked:
            self._move(entry, item, state)
        return [Job(entry.trial, item) for item in blocked]

    def _move(self, entry: Entry, stage: str, state: JobState) -> None:
        before = entry.states[stage]
        assert state in FOLLOWS[before], f"{stage}: {before} to {state}"
        entry.states[stage] = state
        sweep = entry.trial.sweep
        self.counts[sweep, stage, before] -= 1
        self.counts[sweep, stage, state] += 1

    def _count(self, entry: Entry, sign: int) -> None:
        for stage, state in entry.states.items():
            self.counts[entry.trial.sweep, stage, state] += sign
