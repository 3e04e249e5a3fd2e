"""Several daemons that want the same GPUs."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import InitVar, dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.gpus.fairness import Holding, Precedence, Waiter, Wish, precedences
from runner.gpus.placing import NOBODY, Card, Demand, Running, Turn, place

ANN, BOB = 1000, 1001
CARDS = ("A", "B", "C", "D")
ONE = Wish(1, Fraction(1), frozenset(CARDS))


def whole(uid: int, pid: int, *cards: str) -> list[Holding]:
    return [Holding(uid, pid, {card: Fraction(1)}) for card in cards]


def above(uid: int, pid: int, held: list[Holding], *waiters: Waiter) -> dict[str, Fraction]:
    """With how many GPUs a daemon that waits since 0 leaves which GPU to somebody."""
    found = precedences(uid, pid, 0.0, held, waiters)
    return {card: precedence.above for card, precedence in found.items()}


def test_gpus_are_left_until_both_have_as_many() -> None:
    bob = Waiter(BOB, 2, 5.0, ONE)
    held = whole(ANN, 1, "A", "B", "C")
    assert all(0 < share < Fraction(1, 100) for share in above(ANN, 1, held, bob).values())  # he has nothing
    assert above(ANN, 1, [*held, *whole(BOB, 2, "D")], bob) == dict.fromkeys("ABC", 2)  # nobody can leave D but he
    assert above(ANN, 1, [*whole(ANN, 1, "A", "B"), *whole(BOB, 2, "D", "C")], bob) == {}


def test_users_are_equal_however_many_daemons_they_have() -> None:
    held = [*whole(ANN, 1, "A", "B"), *whole(ANN, 2, "C"), *whole(BOB, 3, "D")]
    bob = Waiter(BOB, 3, 5.0, ONE)
    assert above(ANN, 2, held, bob) == {"C": 0}  # Ann's other daemon has two
    assert above(ANN, 1, held, bob) == dict.fromkeys("AB", 1)
    assert above(ANN, 1, held[:-1], Waiter(ANN, 2, 5.0, ONE)) == dict.fromkeys("ABD", 2)
    assert above(BOB, 3, held, Waiter(ANN, 2, 5.0, ONE)) == {}


def test_of_two_who_have_nothing_the_earlier_one_comes_first() -> None:
    assert above(ANN, 1, [], Waiter(BOB, 2, -5.0, ONE)) == dict.fromkeys(CARDS, 0)
    assert all(above(ANN, 1, [], Waiter(BOB, 2, 5.0, ONE)).values())


def test_of_several_who_wait_the_one_with_the_least_counts() -> None:
    held = [*whole(ANN, 1, "A", "B", "E"), *whole(BOB, 2, "C"), *whole(1002, 3, "D")]
    bob, eve = (
        Waiter(BOB, 2, 5.0, Wish(1, Fraction(1), frozenset("ABCDE"))),
        Waiter(1002, 3, 5.0, Wish(1, Fraction(1, 2), frozenset("AB"))),
    )
    expected = {"E": Precedence(bob, Fraction(2))} | dict.fromkeys("AB", Precedence(eve, Fraction(3, 2)))
    assert precedences(ANN, 1, 0.0, held, [bob, eve]) == precedences(ANN, 1, 0.0, held, [eve, bob]) == expected


@pytest.mark.parametrize(("eves", "is_left"), [((), True), (("D",), True), (("C", "D"), False)])
def test_nothing_is_kept_idle_for_a_job_that_needs_more_than_we_could_leave(
    eves: tuple[str, ...], is_left: bool
) -> None:
    held = [*whole(ANN, 1, "A", "B"), *whole(1002, 3, *eves)]
    three = Wish(3, Fraction(1), frozenset(CARDS))
    assert bool(above(ANN, 1, held, Waiter(BOB, 2, 5.0, three))) is is_left


def test_nothing_is_kept_idle_for_a_job_that_would_have_more_with_it_than_who_left_it() -> None:
    cards = "ABCDEFGH"
    held = [*whole(ANN, 1, *cards[:-1]), *whole(BOB, 2, cards[-1])]
    waiters = {count: Waiter(BOB, 2, 5.0, Wish(count, Fraction(1), frozenset(cards))) for count in (3, 4)}
    assert above(ANN, 1, held, waiters[3]) == dict.fromkeys(cards[:-1], 4)  # then each has four
    assert above(ANN, 1, held, waiters[4]) == {}  # he would have five
    assert above(ANN, 1, held[:-1], waiters[4]).keys() == set(cards)  # he has nothing


def test_gpus_that_are_only_given_together_are_left_together() -> None:
    pairs = Wish(1, Fraction(1), frozenset({"A,B", "C,D"}))
    held = [*whole(ANN, 1, "B", "C"), *whole(1002, 3, "A")]
    assert above(ANN, 1, held, Waiter(BOB, 2, 5.0, pairs)).keys() == set("CD")
    assert above(ANN, 1, held[:-1], Waiter(BOB, 2, 5.0, pairs)).keys() == set("ABCD")
    assert above(ANN, 1, [*held, *whole(1002, 3, "D")], Waiter(BOB, 2, 5.0, pairs)) == {}
    assert above(ANN, 1, [*held, *whole(BOB, 2, "E")], Waiter(BOB, 2, 5.0, pairs)) == {}  # 1 and 2 are above her 2


def test_where_several_must_end_first_no_more_cards_are_left_than_are_needed() -> None:
    third = Fraction(1, 3)
    counts = {"A": 3, "B": 2, "C": 3, "D": 3}
    held = [Holding(ANN, 1, {card: third}) for card, count in counts.items() for _ in range(count)]
    bob, eve = Waiter(BOB, 2, -5.0, ONE), Waiter(1002, 3, -4.0, ONE)
    assert above(ANN, 1, held, bob).keys() == {"B"}
    assert above(ANN, 1, held, bob, eve).keys() == {"A", "B"}
    assert above(ANN, 1, [one for one in held if "B" not in one.shares], bob).keys() == {"B"}  # he has it at once
    assert above(ANN, 1, held, Waiter(BOB, 2, -5.0, Wish(1, third, frozenset(CARDS)))).keys() == set(CARDS)
    assert above(ANN, 1, held, Waiter(BOB, 2, -5.0, Wish(2, Fraction(1), frozenset(CARDS)))).keys() == {"A", "B"}


@dataclass
class Daemon:
    """What one daemon has in line: each job needs some GPUs and a part of each, and takes a while."""

    uid: int
    pid: int
    asked: InitVar[list[tuple[int, Fraction, int]]]
    since_s: float = math.inf
    waits: Waiter | None = None
    turn: Turn = NOBODY
    line: dict[int, tuple[int, Fraction, int]] = field(default_factory=dict)
    running: list[tuple[int, Holding]] = field(default_factory=list)  # with the end

    def __post_init__(self, asked: list[tuple[int, Fraction, int]]) -> None:
        self.line = dict(enumerate(asked))


class Machine:
    """Daemons that look one after the other, each at what the others said when they looked last."""

    def __init__(self, daemons: list[Daemon], cards: tuple[str, ...], seed: int = 0) -> None:
        self.daemons, self.cards = daemons, cards
        self.now = 0
        self._draw = random.Random(seed)

    def tick(self) -> None:
        """What is due ends, and each daemon looks."""
        self.now += 1
        for daemon in self.daemons:
            daemon.running = [(end, one) for end, one in daemon.running if end > self.now]
        for daemon in self._draw.sample(self.daemons, len(self.daemons)):
            self._look(daemon)
            held = [one for other in self.daemons for _, one in other.running]
            used = Counter[str]()
            for one in held:
                used.update(one.shares)
            assert max(used.values(), default=0) <= 1

    def _look(self, daemon: Daemon) -> None:
        if not daemon.line:
            daemon.since_s, daemon.waits = math.inf, None
            return
        daemon.since_s = min(daemon.since_s, self.now)
        gpus, share, _ = next(iter(daemon.line.values()))
        daemon.waits = Waiter(daemon.uid, daemon.pid, daemon.since_s, Wish(gpus, share, frozenset(self.cards)))
        held = [one for other in self.daemons for _, one in other.running]
        waiters = [other.waits for other in self.daemons if other.waits is not None and other is not daemon]
        left = precedences(daemon.uid, daemon.pid, daemon.since_s, held, waiters)
        own = sum((sum(one.shares.values(), Fraction(0)) for _, one in daemon.running), Fraction(0))
        cards = [
            Card(
                uuid,
                24_000,
                tuple(Running(one.shares[uuid]) for one in held if uuid in one.shares),
                left_above=left[uuid].above if uuid in left else None,
            )
            for uuid in self.cards
        ]
        demands = [Demand(number, gpus, share) for number, (gpus, share, _) in daemon.line.items()]
        placed, daemon.turn = place(demands, cards, own, daemon.turn)
        for placement in placed:
            length = daemon.line.pop(placement.key)[2]  # type: ignore[call-overload]
            daemon.running.append((self.now + length, Holding(daemon.uid, daemon.pid, placement.shares)))
            daemon.since_s = math.inf


def test_who_comes_late_soon_has_as_much_and_keeps_it() -> None:
    ann = Daemon(ANN, 1, [(1, Fraction(1), 5 + number % 7) for number in range(400)])
    machine = Machine([ann], CARDS)
    for _ in range(20):
        machine.tick()
    bob = Daemon(BOB, 2, [(1, Fraction(1), 9)] * 400)
    machine.daemons.append(bob)
    for _ in range(15):
        machine.tick()
    for _ in range(200):
        machine.tick()
        assert (len(ann.running), len(bob.running)) == (2, 2)


def test_a_job_of_two_gpus_is_not_starved_by_somebody_elses_small_ones() -> None:
    ann = Daemon(ANN, 1, [(1, Fraction(1, 4), 3 + number % 5) for number in range(2000)])
    bob = Daemon(BOB, 2, [(2, Fraction(1), 5)] * 3)
    machine = Machine([ann], CARDS[:2])
    machine.tick()
    machine.daemons.append(bob)
    for _ in range(80):
        machine.tick()
    assert not bob.line
    assert ann.line


JOBS = st.lists(
    st.tuples(st.sampled_from([1, 1, 1, 2]), st.sampled_from([Fraction(1), Fraction(1, 2), Fraction(1, 4)]),
              st.integers(1, 9)), min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=60)
@given(
    lines=st.lists(st.tuples(st.sampled_from([ANN, BOB]), JOBS), min_size=1, max_size=4),
    cards=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_everything_runs_and_never_is_all_idle_while_something_waits(
    lines: list[tuple[int, list[tuple[int, Fraction, int]]]], cards: int, seed: int
) -> None:
    daemons = [Daemon(uid, pid, list(jobs)) for pid, (uid, jobs) in enumerate(lines, start=1)]
    machine = Machine(daemons, CARDS[:cards], seed)
    idle = 0
    for _ in itertools.count():
        if not any(daemon.line for daemon in daemons):
            break
        machine.tick()
        idle = 0 if any(daemon.running for daemon in daemons) else idle + 1
        assert idle <= 2
    assert all(end <= machine.now + 9 for daemon in daemons for end, _ in daemon.running)
