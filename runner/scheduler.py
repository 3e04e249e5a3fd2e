"""Which job starts next, and on which slot: decisions without I/O and without a clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.gpus.learning import Learning
from runner.model import AGAIN, BLOCKING, IN_HAND, LOCAL, Job, JobState, Slot, Terms
from runner.queueing.entry import Counts, Entry
from runner.queueing.line import Line, Queue
from runner.queueing.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.gpus.fairness import Wish
    from runner.gpus.placing import Card
    from runner.model import Trial


@dataclass(frozen=True)
class Start:
    """Start an attempt of `job` on `slot`; one without a share of this machine is for another executor."""

    job: Job
    slot: Slot


ANY_TERMS: Mapping[str, Terms] = {}


class Scheduler:
    """Trials by priority, then in the order in which they came; each to its end on one slot, unless `breadth` first.

    A failed stage blocks the later stages of its trial and nothing else. Times are any clock's, in seconds.
    """

    def __init__(self, slots: Sequence[Slot] = (), is_breadth_first: bool = False) -> None:
        self.counts: Counts = Counter()
        self.learning = Learning()
        self._slots = Slots(self.learning)
        self._line = Line(self._slots.queue_of)
        self._line.is_breadth_first = is_breadth_first
        self._entries: dict[str, Entry] = {}
        self._held: dict[Job, Slot | None] = {}
        self._next: list[Start] = []
        self._is_paused = self._is_stopping = False
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
        self._slots.set_slots(slots, has_gpus)
        self._line.sort_anew(iter(self._entries.values()))

    def set_cards(self, cards: Sequence[Card]) -> None:
        """The GPUs that may be used now, as they were just seen."""
        self._slots.set_cards(cards)

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
            entry = self._entries[trial.key] = Entry(trial, terms, self._sequence, self.counts)
        self._line.leave(entry)
        self._withheld.discard(trial.key)
        running = {stage: state for stage, state in entry.states.items() if state in IN_HAND}
        is_in_hand = bool(running) or trial.key in self._away
        entry.terms = terms
        entry.put({**states, **running}, entry.trial if is_in_hand else trial)
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
        entry.move(stage, JobState.RUNNING)
        self._held[Job(entry.trial, stage)] = self._slots.adopt(slot)

    def hold(self, trial: Trial, slot: Slot) -> None:
        """Takes in that another executor has a trial already."""
        entry = self._entries[trial.key]
        self._line.leave(entry)
        stage = entry.due()
        if stage is not None:
            entry.move(stage, JobState.SUBMITTED)
        job = self._away[trial.key] = Job(entry.trial, stage or next(iter(entry.states)))
        self._held[job] = slot

    def report(self, trial: Trial, stage: str, state: JobState) -> None:
        """Notes what another executor has come to with a stage of a trial that it has."""
        entry = self._entries[trial.key]
        changed = {stage: state}
        if state is JobState.RUNNING:  # the stages before it are complete; it was submitted with one of them
            changed |= {other: JobState.PENDING for other, known in entry.states.items() if known is JobState.SUBMITTED}
            changed[stage] = state
        entry.put(entry.states | changed)

    def hand_back(
        self, trial: Trial, states: Mapping[str, JobState], again_at: float = 0.0, is_due: bool = True
    ) -> None:
        """Takes a trial back that another executor had, as its records show it; what waits of it `is_due` again."""
        entry = self._entries[trial.key]
        job = self._away.pop(trial.key, None)
        if job is not None:
            del self._held[job]
        self._line.leave(entry)
        entry.put(states)
        entry.not_before = again_at
        if is_due:
            self._line.join(entry)

    def drop(self, key: str) -> None:
        """Forgets a trial of which nothing runs."""
        entry = self._entries.pop(key)
        self._line.leave(entry)
        self._withheld.discard(key)
        entry.put({})

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
        return self._slots.labels

    @property
    def waits_for_gpu(self) -> bool:
        """Whether something waits for a GPU."""
        return self._line.has(Queue.GPU)

    def gpu_wish(self, now: float) -> Wish | None:
        """What the first job waits for that wants a GPU and may start; None: there is none."""
        return None if self._is_stopping or self._is_paused else self._slots.gpu_wish(self._line, now)

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
        return entry.move_all({JobState.PENDING}, JobState.CANCELED)

    def again(self, trial: Trial) -> list[Job]:
        """Makes what failed, was canceled or interrupted due again, with all that it blocked; returns it."""
        entry = self._entries[trial.key]
        jobs = entry.move_all(AGAIN, JobState.PENDING)
        is_held = trial.key in self._withheld or trial.key in self._away
        is_held = is_held or not IN_HAND.isdisjoint(entry.states.values())
        if jobs and not is_held:
            entry.not_before = 0.0
            self._line.leave(entry)
            self._line.join(entry)
        return jobs

    # --- decisions ---

    def decide(self, now: float = 0.0) -> list[Start]:
        """The starts that are due now; each is taken as done."""
        if self._is_stopping or self._is_paused:
            return []
        starts, self._next = self._next, []
        self._line.wake(now)
        starts += [self._start(entry, slot) for entry, slot in self._slots.fill(self._line, now)]
        return starts

    def needed(self, job: Job) -> Slot | None:
        """A running job's slot without what it has beyond what its kind is known by now to need; None: it has less."""
        slot = self._held.get(job)
        if slot is None:
            return None
        demand = self.learning.demand(job.trial, job.stage, self._entries[job.trial.key].terms_of(job.stage))
        return self._slots.needed(slot, demand)

    def shrink(self, job: Job, slot: Slot) -> None:
        """A running job has no more than this of its slot from now on."""
        self._held[job] = slot
        self._slots.shrink(slot)

    def refuse(self, start: Start) -> None:
        """Takes a start back whose slot turned out to be taken."""
        entry = self._entries[start.job.trial.key]
        entry.take_back(start.job.stage)
        self._slots.release(self._held.pop(start.job))
        self._line.join(entry)

    def next_time(self) -> float | None:
        """When to decide again though nothing has happened; None: not before something does."""
        if self._is_stopping or self._is_paused:
            return None
        times = [time for time in (self._line.next_time, self._slots.next_time) if time is not None]
        return min(times, default=None)

    def ended(self, job: Job, state: JobState, again_at: float | None = None, now: float = 0.0) -> list[Job]:
        """Notes the end of a running job; returns the jobs that it blocks. With `again_at` it is due again then.

        A pruned job's later stages are pruned with it, and returned too.
        """
        entry = self._entries[job.trial.key]
        entry.move(job.stage, state)
        slot = self._held.pop(job)
        self._away.pop(job.trial.key, None)
        blocked: list[Job] = []
        if again_at is not None:
            entry.move(job.stage, JobState.PENDING)
            entry.not_before = again_at
        elif state in BLOCKING:
            blocked = entry.move_all({JobState.PENDING}, JobState.BLOCKED, after=job.stage)
        elif state is JobState.PRUNED:
            blocked = entry.move_all({JobState.PENDING}, JobState.PRUNED, after=job.stage)
        if not self._goes_on(entry, job, state):
            self._slots.release(slot)
        elif slot is None or not self._keeps_slot(entry, slot, state, now):
            self._slots.release(slot)
            self._line.join(entry)
        else:
            self._next.append(self._start(entry, slot))
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
        return state is JobState.COMPLETED and self._slots.go_on(entry, slot, now)

    def _start(self, entry: Entry, slot: Slot) -> Start:
        stage = entry.due()
        assert stage is not None
        job = Job(entry.trial, stage)
        is_away = entry.due_terms().executor != LOCAL
        entry.move(stage, JobState.SUBMITTED if is_away else JobState.RUNNING)
        self._held[job] = slot
        if is_away:
            self._away[entry.trial.key] = job
        return Start(job, slot)

    def _take_back(self) -> None:
        for start in reversed(self._next):
            self.refuse(start)
        self._next.clear()
