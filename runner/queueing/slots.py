"""The slots of this machine: which of the trials in line take them now; without a clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.model import LOCAL, Slot
from runner.queueing.line import Queue
from runner.queueing.pools import CpuPool, GpuPool, fixed_cards
from runner.queueing.stagger import Stagger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.gpus.fairness import Wish
    from runner.gpus.learning import Learning
    from runner.gpus.placing import Card, Demand
    from runner.queueing.entry import Entry
    from runner.queueing.line import Line

_WINDOW = 1000  # so many waiting trials are looked at for one that fits on what a GPU has left


class Slots:
    """GPUs and CPU cores: each trial takes what its next stage needs, when its stagger allows."""

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        self._gpus, self._cpus = GpuPool(), CpuPool()
        self._stagger = Stagger()

    def set_slots(self, slots: Sequence[Slot], has_gpus: bool) -> None:
        """The slots from now on; with `has_gpus` the GPUs are told by `set_cards`, otherwise they are among these."""
        self._cpus.set_slots([slot for slot in slots if slot.gpus is None])
        cards = fixed_cards(slots)
        if not has_gpus:
            self._gpus.set_cards(cards, bool(cards))
        elif not self._gpus.exists:
            self._gpus.set_cards([], exists=True)

    def set_cards(self, cards: Sequence[Card]) -> None:
        """The GPUs that may be used now."""
        self._gpus.set_cards(cards, exists=True)

    @property
    def labels(self) -> list[str]:
        """All of them."""
        return [*self._gpus.labels, *self._cpus.labels]

    def queue_of(self, entry: Entry) -> Queue:
        """Where a trial's next stage waits: what needs a GPU for one, if there is any."""
        terms = entry.due_terms()
        if terms.executor != LOCAL:
            return Queue.BATCH
        return Queue.GPU if self._gpus.exists and (terms.gpus > 0 or not len(self._cpus)) else Queue.CPU

    @property
    def next_time(self) -> float | None:
        """When the next one of those that were held back to spread their starts may start."""
        return self._stagger.until

    def fill(self, line: Line, now: float) -> list[tuple[Entry, Slot]]:
        """Takes all that starts now out of the line, each with its slot; what another executor runs has no share."""
        self._stagger.until = None
        filled = self._fill_gpus(line, now)
        while not self._cpus.is_full and (head := line.head(Queue.CPU)) and self._is_due(head, now):
            filled.append(self._start(line, head, self._cpus.take(), now))
        while head := line.head(Queue.BATCH):
            filled.append(self._start(line, head, Slot(head.due_terms().executor), now))
        return filled

    def gpu_wish(self, line: Line, now: float) -> Wish | None:
        """What the first trial in line for a GPU wants; None: there is none that may start now and some time can."""
        head = line.head(Queue.GPU)
        return None if head is None or self._stagger_end(head) > now else self._gpus.wish(self._demand(head))

    def go_on(self, entry: Entry, slot: Slot, now: float) -> bool:
        """Lets a trial's next stage start on the slot that the trial has; False: it does not fit, or not yet."""
        if self._stagger_end(entry) > now:
            return False
        queue = self.queue_of(entry)
        if queue is Queue.GPU:
            fits = bool(slot.shares) and self._gpus.keeps(slot, self._demand(entry))
        else:
            fits = queue is Queue.CPU and slot.label in self._cpus
        if fits:
            self._stagger.note(entry.due() or "", now)
        return fits

    def needed(self, slot: Slot, demand: Demand) -> Slot | None:
        """The slot without what it has beyond what is known to be needed; None: it has no more."""
        return self._gpus.needed(slot, demand)

    def shrink(self, slot: Slot) -> None:
        """Less of a slot is taken from now on."""
        self._gpus.shrink(slot)

    def adopt(self, slot: Slot) -> Slot | None:
        """Takes what an attempt has already; None: another adopted one has it."""
        if slot.shares:
            return self._gpus.adopt(slot)
        return slot if self._cpus.adopt(slot.label) else None

    def release(self, slot: Slot | None) -> None:
        """Gives a slot back, if there is one to give."""
        if slot is not None:
            (self._gpus if slot.shares else self._cpus).release(slot)

    def _fill_gpus(self, line: Line, now: float) -> list[tuple[Entry, Slot]]:
        if self._gpus.is_full:
            return []
        staggered: set[str] = set()
        seen: dict[object, Entry] = {}

        def is_due(entry: Entry) -> bool:
            stage = entry.due() or ""
            if stage in staggered or not self._is_due(entry, now):
                return False
            if entry.due_terms().stagger_s:  # one at a time
                staggered.add(stage)
            return True

        def demand(entry: Entry) -> Demand:
            wanted = self._demand(entry)
            seen[wanted.key] = entry
            return wanted

        heads = line.from_head(Queue.GPU, is_due, _WINDOW)
        placed = self._gpus.place(map(demand, heads))
        heads.close()
        filled = [self._start(line, seen[placement.key], slot, now) for placement, slot in placed]
        if staggered and filled and (head := line.head(Queue.GPU)) is not None:
            self._is_due(head, now)  # notes when the next one is
        return filled

    def _start(self, line: Line, entry: Entry, slot: Slot, now: float) -> tuple[Entry, Slot]:
        line.leave(entry)
        self._stagger.note(entry.due() or "", now)
        return entry, slot

    def _demand(self, entry: Entry) -> Demand:
        return self._learning.demand(entry.trial, entry.due() or "", entry.due_terms())

    def _is_due(self, entry: Entry, now: float) -> bool:
        """Whether the starts of its stage are spread far enough; otherwise notes when they are."""
        until = self._stagger_end(entry)
        if until > now:
            self._stagger.hold(until)
        return until <= now

    def _stagger_end(self, entry: Entry) -> float:
        count = len(self._gpus) if self.queue_of(entry) is Queue.GPU else len(self._cpus)
        return self._stagger.end(entry.due() or "", entry.due_terms().stagger_s, count)
