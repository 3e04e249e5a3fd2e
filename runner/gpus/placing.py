"""Which jobs start on which GPUs: decisions without I/O and without a clock.

Everything is counted for each card alone: an attempt never gets memory that lies in pieces on several cards.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    from runner.gpus.packing import Estimate

WHOLE = Fraction(1)
_NOTHING = Fraction(0)
_HALF = Fraction(1, 2)
# The driver keeps some for itself, and allocators need a little room.
_USABLE = Fraction(19, 20)
_NO_LEVEL = sys.maxsize


@dataclass(frozen=True)
class Running:
    """An attempt on a card, or a share that somebody else leased."""

    share: Fraction
    max_level: int | None = None


@dataclass(frozen=True)
class Card:
    """A GPU on which attempts may start now, or several that are only given together."""

    uuid: str  # of several: all, with commas
    total_mib: int | None  # what attempts may use together: without what a screen has of it
    running: tuple[Running, ...] = ()
    is_settling: bool = False  # the memory of the last one that started is still to appear
    label: str = ""  # its index, for people
    visible: str = ""  # what CUDA_VISIBLE_DEVICES says
    parts: int = 1  # into so many the user has divided it
    left_above: Fraction | None = None  # with so many GPUs in all, this daemon leaves it to another one

    @property
    def size(self) -> int:
        """How many GPUs it is."""
        return self.uuid.count(",") + 1

    @property
    def free(self) -> Fraction:
        """The part that nobody has."""
        return WHOLE - sum((running.share for running in self.running), Fraction(0))


@dataclass(frozen=True)
class Demand:
    """A job that waits, and what it wants of each of its cards.

    `share` is set where it is known without learning: a whole GPU, or a part of `per_gpu`. Otherwise `need` decides,
    and None there means that it is not known yet.
    """

    key: Hashable
    gpus: int = 1
    share: Fraction | None = WHOLE
    need: Estimate | None = None
    min_total_mib: int = 0  # above this: it ran out of memory alone on a card of this size
    priority: int = 0

    def is_refused(self, card: Card) -> bool:
        """Whether a card cannot serve it."""
        return bool(self.min_total_mib) and (card.total_mib is None or card.total_mib <= self.min_total_mib)

    def share_of(self, card: Card) -> Fraction:
        """What it takes of a card that can serve it."""
        if self.share is not None:
            return min(self.share, Fraction(1, card.parts))
        if self.need is None or card.total_mib is None:
            return WHOLE
        part = Fraction(self.need.mib) / (card.total_mib * _USABLE)
        return min(part, WHOLE)  # what never fits beside others gets its card alone

    def is_large(self, state: Sequence[_State]) -> bool:
        """Whether it is known that no card has room for two of its like."""
        is_learned = self.share is None and self.need is not None and self.gpus == 1
        return is_learned and all(self.share_of(one.card) > _HALF for one in state if not self.is_refused(one.card))

    @property
    def max_level(self) -> int:
        """How many may share a card with it, itself included."""
        level = self.need.max_level if self.share is None and self.need else None
        return _NO_LEVEL if level is None else level

    @property
    def wish(self) -> Hashable:
        """All of it but whose it is."""
        return self.gpus, self.share, self.need, self.min_total_mib


@dataclass(frozen=True)
class Placement:
    """A job that starts now, with its share of each card, by UUID."""

    key: Hashable
    shares: Mapping[str, Fraction]


@dataclass(frozen=True)
class Turn:
    """The first job that waits, and how many of those behind it have gone before it."""

    key: Hashable = None
    overtaken: int = 0


NOBODY = Turn()


def place(
    demands: Iterable[Demand], cards: Sequence[Card], own: Fraction = _NOTHING, turn: Turn = NOBODY
) -> tuple[list[Placement], Turn]:
    """What starts now, in the order of the queue, where this daemon has `own` GPUs already; and whose turn it is next.

    The first job that has to wait lets others go before it while it may soon have the place that one like it leaves;
    then it keeps the emptiest cards that could serve it, so that smaller ones behind it do not hold it up for ever;
    these go on elsewhere. A GPU that does nothing is worth more than room for a large job, as long as there is one for
    each that waits; after that, what shares goes where the least is left over, and an empty card to a job that cannot
    share one with its like, so that no card has to be emptied for each of them.
    """
    account = _Account(own)
    state = [_State(card, card.free, account) for card in cards]
    queue = iter(demands)
    empty = sum(not card.running for card in cards)
    first = list(itertools.islice(queue, empty + 1))
    is_tight = len(first) > empty
    placements = _large_first(queue, first, state) if is_tight and empty else []
    placed = {placement.key for placement in placements}
    head: _Head | None = None
    waiting: set[Hashable] = set()  # what waits lets its like wait too: the cards only get fuller
    for demand in itertools.chain(first, queue):
        if demand.key in placed:
            continue
        if head is not None and all(one.is_kept or one.free <= 0 for one in state):
            break
        if demand.wish in waiting:
            continue
        if head is not None:
            head.meet(demand)
        able = [(one, demand.share_of(one.card)) for one in state if not demand.is_refused(one.card)]
        chosen = _chosen(demand, able, is_tight)
        if chosen:
            placements.append(Placement(demand.key, {one.card.uuid: share for one, share in chosen}))
            for one, share in chosen:
                one.take(demand, share)
            if head is not None:
                head.overtaken += 1
            continue
        waiting.add(demand.wish)
        if head is None and len(able) >= demand.gpus:
            head = _Head(demand, able, turn.overtaken if turn.key == demand.key else 0)
    return placements, NOBODY if head is None else Turn(head.demand.key, head.overtaken)


def _chosen(demand: Demand, able: list[tuple[_State, Fraction]], is_tight: bool) -> list[tuple[_State, Fraction]]:
    """The cards on which a job starts now, of those that could serve it; none where they are too few."""
    fitting = [(one, share) for one, share in able if one.fits(demand, share)]
    is_filling = is_tight and demand.share is None
    fitting.sort(key=lambda pair: pair[0].free if is_filling else -pair[0].free)
    return fitting[: demand.gpus] if len(fitting) >= demand.gpus else []


class _Head:
    """The first job that waits, while one round of placing goes on."""

    def __init__(self, demand: Demand, able: list[tuple[_State, Fraction]], overtaken: int) -> None:
        self.demand, self.overtaken = demand, overtaken
        self._able = able

    def meet(self, other: Demand) -> None:
        """Another one would go before it: without patience it keeps cards."""
        if not self._is_patient or other.priority < self.demand.priority:
            for one, _ in sorted(self._able, key=lambda pair: -pair[0].free)[: self.demand.gpus]:
                one.is_kept = True

    @property
    def _is_patient(self) -> bool:
        """Whether the end of one attempt would make room, and fewer have gone before it than run where it may.

        So it waits for about as long as one of them takes before any card idles for it.
        """
        is_soon = any(one.free + one.largest >= share for one, share in self._able)
        return self.demand.gpus == 1 and is_soon and self.overtaken < sum(one.count for one, _ in self._able)


def _large_first(queue: Iterator[Demand], first: list[Demand], state: Sequence[_State]) -> list[Placement]:
    """Gives empty cards to the first large jobs of the same priority as the head, to half of the cards at most.

    What it has to look at of the queue is added to `first`.
    """
    first += queue
    large = [demand for demand in first if demand.priority == first[0].priority and demand.is_large(state)]
    held = sum(any(running.share > _HALF for running in one.card.running) for one in state)
    room = min((len(state) + 1) // 2 - held, len(large))
    placements: list[Placement] = []
    for one in state:
        if room <= len(placements):
            break
        demand = large[len(placements)]
        share = demand.share_of(one.card)
        if not one.card.running and one.fits(demand, share):
            one.take(demand, share)
            placements.append(Placement(demand.key, {one.card.uuid: share}))
    return placements


@dataclass
class _Account:
    """What this daemon has of all GPUs while one round of placing goes on."""

    own: Fraction


class _State:
    """A card while one round of placing goes on."""

    def __init__(self, card: Card, free: Fraction, account: _Account) -> None:
        self.card = card
        self.free = free
        self._account = account
        self.is_kept = False
        self.largest = max((one.share for one in card.running), default=_NOTHING)  # of what runs here
        self.count = len(card.running)
        self._max_level = min((one.max_level for one in card.running if one.max_level is not None), default=_NO_LEVEL)
        self._is_settling = card.is_settling

    def fits(self, demand: Demand, share: Fraction) -> bool:
        """Whether one more may start here now."""
        if self.is_kept or self._is_left or share > self.free or (self._is_settling and demand.share is None):
            return False
        return self.count < min(self._max_level, demand.max_level)

    @property
    def _is_left(self) -> bool:
        return self.card.left_above is not None and self._account.own >= self.card.left_above

    def take(self, demand: Demand, share: Fraction) -> None:
        """Starts it."""
        self.free -= share
        self.largest = max(self.largest, share)
        self._account.own += share * self.card.size
        self.count += 1
        self._max_level = min(self._max_level, demand.max_level)
        # Its memory is to appear before the next one of learned manners comes.
        self._is_settling = self._is_settling or demand.share is None
