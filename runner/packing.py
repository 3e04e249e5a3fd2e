"""How many attempts go onto one GPU, from what earlier ones needed: decisions without I/O and without a clock.

A class is a stage with the values of the parameters named in `vram_by`: its attempts are taken to need equal memory.
Everything is counted for each card alone: an attempt never gets memory that lies in pieces on several cards.
"""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence

WHOLE = Fraction(1)
_NOTHING = Fraction(0)
_HALF = Fraction(1, 2)
_MARGIN = Fraction(1, 10)
_MIN_MARGIN_MIB = 256  # contexts of libraries that are loaded late
_AFTER_OOM = Fraction(5, 4)
# The driver keeps some for itself, and allocators need a little room.
_USABLE = Fraction(19, 20)
# Packing one more is slower where the sum is less by more than this part, and chance explains it with less than that.
_LOSS, _DOUBT = 0.02, 0.001
_MIN_FREEDOM = 2  # samples beyond one for each level
_NO_LEVEL = sys.maxsize
# The beginnings of what an attempt needs: the rest is counted from its start, and may come with the last evaluation.
_APPEARED = Fraction(1, 10)
STEADY_S = 300.0  # of work without a larger peak: what an attempt needs is seen before its end
_GROWN = 1.01  # allocators creep; what is less than the margin by far is no news


@dataclass(frozen=True)
class Sample:
    """What one past attempt of a class showed."""

    peak_mib: int  # on the card where it needed most
    level: int = 1  # the attempts on that card, itself included, for most of its time
    was_oom: bool = False
    rate: float | None = None  # work per second, in any unit that is the same for the class
    card_mib: int | None = None  # what the card has


@dataclass(frozen=True)
class Estimate:
    """What the next attempt of a class needs of each of its cards; `max_level` where more together were slower."""

    mib: int
    max_level: int | None = None


def estimate(samples: Sequence[Sample]) -> Estimate | None:
    """The need of a class from its past attempts in the order of their ends; None: not known, so it runs alone.

    An attempt that ran out of memory shows only that it needs more than it got. When that happened beside others the
    estimate is raised, and the class is not known again until an attempt has ended well.
    """
    done = [sample for sample in samples if not sample.was_oom]
    if not done or samples[-1].was_oom:
        return None
    peak_mib = max(sample.peak_mib for sample in samples)
    mib = peak_mib + max(_MIN_MARGIN_MIB, int(peak_mib * _MARGIN))
    raises = sum(sample.was_oom and sample.level > 1 for sample in samples)
    return Estimate(int(mib * _AFTER_OOM**raises), best_level(done))


def best_level(samples: Sequence[Sample]) -> int | None:
    """How many of a class at most run on one card; None while more together were not surely seen to be slower.

    The sum of their rates decides, not the rate of each: that of a level is compared with that of the best one below
    it by a t-test of the logs, with the spread within all levels. Trials of a class may be of unequal length, and the
    short ones end first: what one or two of them show is no evidence.
    """
    logs: dict[int, list[float]] = {}
    for sample in samples:
        if sample.rate:
            logs.setdefault(sample.level, []).append(math.log(sample.rate))
    means = {level: fmean(values) for level, values in logs.items()}
    freedom = sum(map(len, logs.values())) - len(logs)
    if freedom < _MIN_FREEDOM:
        return None
    squares = sum((value - means[level]) ** 2 for level, values in logs.items() for value in values)
    best = min(logs)
    for level in sorted(logs):
        error = math.sqrt(squares / freedom * (1 / len(logs[best]) + 1 / len(logs[level])))
        loss = math.log(best) + means[best] - math.log(level) - means[level]
        if loss > max(_LOSS, _quantile(freedom) * error):
            return best
        best = level if loss < 0 else best
    return None


def _quantile(freedom: int) -> float:
    """About that of Student's t for _DOUBT (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(1 - _DOUBT)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


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


def place(demands: Iterable[Demand], cards: Sequence[Card], own: Fraction = _NOTHING) -> list[Placement]:
    """What starts now, in the order of the queue, where this daemon has `own` GPUs in all already.

    The first job that has to wait keeps the emptiest cards that could serve it, so that smaller ones behind it do not
    hold it up for ever; these go on elsewhere. A GPU that does nothing is worth more than room for a large job, as long
    as there is one for each that waits; after that, what shares goes where the least is left over, and an empty card to
    a job that cannot share one with its like, so that no card has to be emptied for each of them.
    """
    account = _Account(own)
    state = [_State(card, card.free, account) for card in cards]
    queue = iter(demands)
    empty = sum(not card.running for card in cards)
    first = list(itertools.islice(queue, empty + 1))
    is_tight = len(first) > empty
    placements = _large_first(queue, first, state) if is_tight and empty else []
    placed = {placement.key for placement in placements}
    is_kept = False
    waiting: set[Hashable] = set()  # what waits lets its like wait too: the cards only get fuller
    for demand in itertools.chain(first, queue):
        if demand.key in placed:
            continue
        if all(one.is_kept or one.free <= 0 for one in state) and is_kept:
            break
        if demand.wish in waiting:
            continue
        able = [(one, demand.share_of(one.card)) for one in state if not demand.is_refused(one.card)]
        able.sort(key=lambda pair: -pair[0].free)
        fitting = [(one, share) for one, share in able if one.fits(demand, share)]
        if is_tight and demand.share is None:
            fitting.sort(key=lambda pair: pair[0].free)
        chosen = fitting[: demand.gpus]
        if len(chosen) == demand.gpus:
            placements.append(Placement(demand.key, {one.card.uuid: share for one, share in chosen}))
            for one, share in chosen:
                one.take(demand, share)
            continue
        waiting.add(demand.wish)
        if not is_kept and len(able) >= demand.gpus:
            is_kept = True
            for one, _ in able[: demand.gpus]:
                one.is_kept = True
    return placements


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


def is_settling(age_s: float, seen_mib: int | None, expected_mib: int, limit_s: float = 30.0) -> bool:
    """Whether the memory of an attempt is still to begin to appear, so that the next one on its card waits.

    `seen_mib`: what it uses now, None where the driver does not tell. After `limit_s` it is not waited for any more:
    a program may begin with something else.
    """
    if age_s >= limit_s:
        return False
    return seen_mib is None or seen_mib < expected_mib * _APPEARED


class Growth:
    """How the memory of an attempt has grown, look by look; all times on one clock, in seconds."""

    def __init__(self, began_s: float) -> None:
        self._began_s = self._grew_s = self._seen_s = began_s
        self._peak_mib = 0
        self._worked_s = 0.0  # since it grew last

    def note(self, now_s: float, peak_mib: int, is_busy: bool) -> bool:
        """Takes in a look; returns whether it became steady with it.

        It is steady once its GPU has been busy for five minutes without a larger peak, and for as long as it took to
        come to that. Time in which the GPU does nothing tells nothing: a program may have taken hold of it early and
        still be preparing its data.
        """
        was_steady = self._is_steady
        if peak_mib > self._peak_mib * _GROWN:
            self._peak_mib, self._grew_s, self._worked_s = peak_mib, now_s, 0.0
        elif is_busy:
            self._worked_s += now_s - self._seen_s
        self._seen_s = now_s
        return self._is_steady and not was_steady

    @property
    def _is_steady(self) -> bool:
        return self._peak_mib > 0 and self._worked_s >= max(STEADY_S, self._grew_s - self._began_s)


def after_oom(
    was_alone: bool, card_mib: int | None, cards_mib: Collection[int | None], count: int = 1
) -> tuple[bool, int]:
    """What follows when an attempt ran out of memory: whether it is run again, and above which size of card.

    Beside others: again, alone. Alone: on larger cards, where there are as many as it needs; otherwise it failed.
    """
    if not was_alone:
        return True, 0
    if card_mib is None:
        return False, 0
    return sum(size is not None and size > card_mib for size in cards_mib) >= count, card_mib


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
        self._count = len(card.running)
        self._max_level = min((one.max_level for one in card.running if one.max_level is not None), default=_NO_LEVEL)
        self._is_settling = card.is_settling

    def fits(self, demand: Demand, share: Fraction) -> bool:
        """Whether one more may start here now."""
        if self.is_kept or self._is_left or share > self.free or (self._is_settling and demand.share is None):
            return False
        return self._count < min(self._max_level, demand.max_level)

    @property
    def _is_left(self) -> bool:
        return self.card.left_above is not None and self._account.own >= self.card.left_above

    def take(self, demand: Demand, share: Fraction) -> None:
        """Starts it."""
        self.free -= share
        self._account.own += share * self.card.size
        self._count += 1
        self._max_level = min(self._max_level, demand.max_level)
        # Its memory is to appear before the next one of learned manners comes.
        self._is_settling = self._is_settling or demand.share is None
