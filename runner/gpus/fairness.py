"""Who comes first where several daemons want the same GPUs: decisions without I/O and without a clock.

A daemon that frees a GPU would always be the first to take it again, and another one would wait until its queue is
empty. So each leaves GPUs to those who wait with less than it has.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_ANYTHING = Fraction(1, 10**9)


@dataclass(frozen=True)
class Wish:
    """What the first job that a daemon has in line waits for: a share of each of some cards, whichever of these."""

    count: int
    share: Fraction
    cards: frozenset[str]  # UUIDs; of GPUs that are only given together: all, with commas

    @property
    def amount(self) -> Fraction:
        """How many GPUs it is in all."""
        return self.count * self.share * max((card.count(",") + 1 for card in self.cards), default=1)


@dataclass(frozen=True)
class Waiter:
    """A daemon with such a job that got nothing since then, on a clock that all daemons share."""

    uid: int
    pid: int
    since_s: float
    wish: Wish


@dataclass(frozen=True)
class Holding:
    """A lease: what one attempt of a daemon has."""

    uid: int
    pid: int  # the daemon's
    shares: Mapping[str, Fraction]  # by UUID


@dataclass(frozen=True)
class Precedence:
    """Somebody comes first on a GPU while this daemon has at least `above` GPUs in all."""

    waiter: Waiter
    above: Fraction


def precedences(
    uid: int, pid: int, since_s: float, holdings: Iterable[Holding], waiters: Iterable[Waiter]
) -> dict[str, Precedence]:
    """Who comes before a daemon that got nothing itself since then, by the UUID of the GPU.

    Users are equal, and so are the daemons of one user. Nobody has to leave a GPU to a job for which he cannot make
    room himself, also not with what he may keep: it would only lie idle.
    """
    held = list(holdings)
    by_user: defaultdict[int, Fraction] = defaultdict(Fraction)
    by_daemon: defaultdict[tuple[int, int], Fraction] = defaultdict(Fraction)
    for item in held:
        amount = sum(item.shares.values(), Fraction(0))
        by_user[item.uid] += amount
        by_daemon[item.uid, item.pid] += amount
    taken = _Taken((uid, pid), held)
    found: dict[str, Precedence] = {}
    for waiter in sorted(waiters, key=lambda waiter: (waiter.since_s, waiter.pid)):
        if (waiter.uid, waiter.pid) == (uid, pid):
            continue
        is_same_user = waiter.uid == uid
        theirs = by_daemon[waiter.uid, waiter.pid] if is_same_user else by_user[waiter.uid]
        beside = Fraction(0) if is_same_user else by_user[uid] - by_daemon[uid, pid]
        is_earlier = (waiter.since_s, waiter.pid) < (since_s, pid)
        above = _least(waiter.wish, theirs, is_earlier) - beside
        for gpu in _gpus(_to_leave(waiter.wish, above, taken, found)):
            if gpu not in found or above < found[gpu].above:
                found[gpu] = Precedence(waiter, above)
    return found


def _least(wish: Wish, theirs: Fraction, is_earlier: bool) -> Fraction:
    """With how much we leave the next GPU to somebody who has `theirs`.

    Who has nothing comes before who has something; otherwise nobody is to have less than one to whom he leaves.
    """
    if theirs:
        return theirs + wish.amount
    return Fraction(0) if is_earlier else _ANYTHING


class _Taken:
    """What there is of each GPU for others than one daemon, and what that has of it."""

    def __init__(self, me: tuple[int, int], held: Iterable[Holding]) -> None:
        self.room: defaultdict[str, Fraction] = defaultdict(lambda: Fraction(1))  # without its attempts
        self.own: defaultdict[str, Fraction] = defaultdict(Fraction)
        self.largest: defaultdict[str, Fraction] = defaultdict(Fraction)  # of its attempts
        for item in held:
            for gpu, share in item.shares.items():
                if (item.uid, item.pid) == me:
                    self.own[gpu] += share
                    self.largest[gpu] = max(self.largest[gpu], share)
                else:
                    self.room[gpu] -= share

    def free(self, gpu: str) -> Fraction:
        """What nobody has."""
        return self.room[gpu] - self.own[gpu]


def _to_leave(wish: Wish, above: Fraction, taken: _Taken, left: Collection[str]) -> list[str]:
    """The cards that are left to somebody: all where he begins once the next attempt ends; otherwise the emptiest.

    Where several attempts must end before he begins, all the other cards would idle meanwhile. None where there is no
    room for him once enough of this daemon's attempts have ended; it goes on with `above`. `left`: the GPUs that are
    left already to those who came before him.
    """
    able = [card for card in sorted(wish.cards) if all(taken.room[gpu] >= wish.share for gpu in _gpus([card]))]
    if len(able) < wish.count or _most(wish, above, taken) < wish.amount:
        return []
    soon = [card for card in able if all(taken.free(gpu) + taken.largest[gpu] >= wish.share for gpu in _gpus([card]))]
    if len(soon) >= wish.count:
        return soon
    able.sort(key=lambda card: -min(map(taken.free, _gpus([card]))))
    able.sort(key=lambda card: not _gpus([card]).isdisjoint(left))
    return able[: wish.count]


def _most(wish: Wish, above: Fraction, taken: _Taken) -> Fraction:
    """How many GPUs of those that are wished for can be left in all, of which this daemon may keep some."""
    gpus = _gpus(wish.cards)
    elsewhere = sum((share for gpu, share in taken.own.items() if gpu not in gpus), Fraction(0))
    kept = Fraction(0) if above <= _ANYTHING else max(above - elsewhere, Fraction(0))
    return sum((taken.room[gpu] for gpu in gpus), -kept)


def _gpus(cards: Iterable[str]) -> set[str]:
    return {gpu for card in cards for gpu in card.split(",")}
