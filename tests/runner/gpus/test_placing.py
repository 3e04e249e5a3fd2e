"""Which jobs start on which GPUs."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.gpus.packing import Estimate
from runner.gpus.placing import NOBODY, WHOLE, Card, Demand, Running, Turn, place

QUARTER, THIRD, HALF = Fraction(1, 4), Fraction(1, 3), Fraction(1, 2)
A, B, C = (Card(uuid, 24_000) for uuid in "ABC")


def learned(key: object, mib: int, **other: object) -> Demand:
    return Demand(key, share=None, need=Estimate(mib), **other)  # type: ignore[arg-type]


def where(demands: list[Demand], *cards: Card) -> dict[object, str]:
    """The cards of each job that starts, in one string."""
    return {placement.key: "".join(sorted(placement.shares)) for placement in place(demands, cards)[0]}


def busy(card: Card, *shares: Fraction, **changes: object) -> Card:
    return replace(card, running=tuple(Running(share) for share in shares), **changes)  # type: ignore[arg-type]


def test_each_job_gets_a_gpu_of_its_own_as_long_as_there_are_some() -> None:
    assert where([learned(1, 2_000), learned(2, 2_000), learned(3, 2_000)], A, B, C) == {1: "A", 2: "B", 3: "C"}


def test_a_class_that_is_not_known_runs_alone() -> None:
    unknown = [Demand(key, share=None) for key in (1, 2, 3)]
    assert where(unknown, A, B) == {1: "A", 2: "B"}
    assert where(unknown, busy(A, THIRD)) == {}
    assert where([Demand(1, share=None), learned(2, 100)], A) == {1: "A"}


@pytest.mark.parametrize("per_gpu", [1, 2, 3, 5])
def test_a_part_by_hand_is_taken_as_it_is(per_gpu: int) -> None:
    jobs = [Demand(key, share=Fraction(1, per_gpu)) for key in range(12)]
    assert len(where(jobs, A, B)) == 2 * per_gpu


def test_learned_memory_is_counted_on_each_card_alone() -> None:
    half_used = [busy(card, Fraction(1, 2)) for card in (A, B)]
    assert where([learned(1, 12_000)], *half_used) == {}  # 24,000 are free, on no single card
    assert where([learned(1, 11_000)], *half_used) == {1: "A"}


def test_some_memory_is_left_to_the_driver() -> None:
    assert where([learned(1, 12_000)], busy(A, Fraction(1, 2))) == {}


def test_what_needs_more_than_a_card_has_gets_it_alone() -> None:
    assert where([learned(1, 30_000)], A) == {1: "A"}
    assert where([learned(1, 30_000)], busy(A, Fraction(1, 100))) == {}


def test_the_next_learned_one_waits_until_the_memory_of_the_last_has_appeared() -> None:
    settling = busy(A, THIRD, is_settling=True)
    assert where([learned(1, 2_000)], settling) == {}
    assert where([learned(1, 2_000)], settling, B) == {1: "B"}
    assert where([learned(1, 2_000), learned(2, 2_000)], A) == {1: "A"}
    assert where([Demand(1, share=THIRD)], settling) == {1: "A"}


def test_more_than_were_good_together_are_not_packed() -> None:
    pair = Demand(1, share=None, need=Estimate(1_000, max_level=2))
    assert where([pair], busy(A, Fraction(1, 10))) == {1: "A"}
    assert where([pair], busy(A, Fraction(1, 10), Fraction(1, 10))) == {}
    alone = replace(A, running=(Running(Fraction(1, 10), max_level=1),))
    assert where([learned(1, 1_000)], alone) == {}


def test_several_gpus_are_given_at_once() -> None:
    assert where([Demand(1, gpus=2)], A) == {}
    assert where([Demand(1, gpus=2)], A, busy(B, THIRD), C) == {1: "AC"}
    (placement,), _ = place([Demand(1, gpus=2, share=THIRD)], [A, B])
    assert placement.shares == {"A": THIRD, "B": THIRD}


def test_what_ran_out_of_memory_alone_goes_to_a_larger_card() -> None:
    large = Card("L", 48_000)
    assert where([Demand(1, min_total_mib=24_000)], A, B, large) == {1: "L"}
    assert where([Demand(1, min_total_mib=24_000), Demand(2)], A, B) == {2: "A"}


def test_a_large_job_keeps_the_emptiest_cards() -> None:
    cards = [busy(A, THIRD), busy(B, THIRD, THIRD), C]
    jobs = [Demand("large", gpus=2), *(Demand(key, share=THIRD) for key in range(4))]
    assert where(jobs, *cards) == {0: "B"}


def test_the_first_that_waits_lets_others_go_before_it_while_one_like_it_may_end() -> None:
    half, quarters = Demand("half", share=HALF), [Demand(key, share=QUARTER) for key in range(9)]
    cards = [busy(A, HALF, QUARTER), busy(B, QUARTER, QUARTER, QUARTER)]
    placements, turn = place([half, *quarters], cards)
    assert ([one.key for one in placements], turn) == ([0, 1], Turn("half", 2))
    # As many have gone before it as run there: the emptiest card is kept.
    placements, turn = place([half, *quarters], cards, turn=Turn("half", 5))
    assert ([(one.key, set(one.shares)) for one in placements], turn) == ([(0, {"B"})], Turn("half", 6))
    placements, turn = place([half, *quarters], [*cards, busy(C, HALF, QUARTER)], turn=Turn("half", 6))
    assert ([one.key for one in placements], turn.overtaken) == ([0, 1, 2], 9)
    assert place([half, *quarters], cards, turn=Turn("another", 5))[1] == Turn("half", 2)
    assert place([half], [A], turn=Turn("half", 5))[1] == NOBODY


def test_cards_are_kept_at_once_where_no_single_end_makes_room() -> None:
    whole, quarter = Demand("whole"), Demand("quarter", share=QUARTER)
    assert place([whole, quarter], [busy(A, QUARTER, QUARTER)])[0] == []
    assert where([whole, quarter], busy(A, QUARTER, QUARTER), busy(B, WHOLE)) == {"quarter": "A"}
    assert where([Demand("pair", gpus=2), quarter], busy(A, WHOLE), B) == {}


def test_nothing_of_lower_priority_goes_before_the_first_that_waits() -> None:
    half, low = Demand("half", share=HALF, priority=1), Demand("low", share=QUARTER)
    assert place([half, low], [busy(A, HALF, QUARTER)])[0] == []
    assert where([replace(half, priority=0), low], busy(A, HALF, QUARTER)) == {"low": "A"}


def test_a_job_that_no_cards_here_can_serve_keeps_none() -> None:
    jobs = [Demand("large", gpus=3), Demand(1), Demand(2)]
    assert where(jobs, A, B) == {1: "A", 2: "B"}


# --- whatever the queue ---


@dataclass(frozen=True)
class Work:
    """A job of a simulated queue."""

    demand: Demand
    takes_s: int


DEMANDS = st.builds(
    Demand,
    key=st.just(0),
    gpus=st.sampled_from([1, 1, 1, 2]),
    share=st.sampled_from([WHOLE, None, None, None, Fraction(1, 2), THIRD]),
    need=st.one_of(st.none(), st.builds(Estimate, st.integers(100, 30_000), st.sampled_from([None, None, 1, 2, 3]))),
)
WORK = st.lists(st.builds(Work, DEMANDS, st.integers(1, 20)), min_size=1, max_size=25)
SIZES = st.lists(st.sampled_from([8_000, 24_000, 80_000]), min_size=2, max_size=4)


def simulate(queue: list[Work], cards: list[Card]) -> tuple[dict[object, int], dict[object, int]]:
    """Runs a queue to its end; when each job started and ended, after a check of every card at every moment."""
    waiting = {number: replace(work.demand, key=number) for number, work in enumerate(queue)}
    on: dict[str, dict[object, Running]] = {card.uuid: {} for card in cards}
    ends: list[tuple[int, int]] = []
    started: dict[object, int] = {}
    ended: dict[object, int] = {}
    now_s, turn = 0, NOBODY
    while waiting or ends:
        while True:
            present = [replace(card, running=tuple(on[card.uuid].values())) for card in cards]
            placements, turn = place(list(waiting.values()), present, turn=turn)
            for placement in placements:
                demand = waiting.pop(placement.key)  # type: ignore[call-overload]
                for uuid, share in placement.shares.items():
                    on[uuid][placement.key] = Running(
                        share, demand.need.max_level if demand.share is None and demand.need else None
                    )
                started[placement.key] = now_s
                heapq.heappush(ends, (now_s + queue[placement.key].takes_s, placement.key))  # type: ignore
            check(on, cards, queue)
            if not placements:  # the memory of the ones before has appeared
                break
        assert ends, f"nothing runs and {waiting} wait"
        now_s, key = heapq.heappop(ends)
        ended[key] = now_s
        for running in on.values():
            running.pop(key, None)
    return started, ended


def check(on: dict[str, dict[object, Running]], cards: list[Card], queue: list[Work]) -> None:
    """No card is over its memory by the estimates, nor shared by what must be alone."""
    for card in cards:
        assert card.total_mib is not None
        demands = [queue[key].demand for key in on[card.uuid]]  # type: ignore[call-overload]
        assert sum(running.share for running in on[card.uuid].values()) <= 1
        if len(demands) > 1:
            assert WHOLE not in [demand.share for demand in demands]
            assert all(demand.share is not None or demand.need is not None for demand in demands)
            needs = [demand.need.mib for demand in demands if demand.share is None and demand.need]
            assert sum(needs) <= card.total_mib
            levels = [need.max_level for demand in demands if demand.share is None and (need := demand.need)]
            assert len(demands) <= min((level for level in levels if level), default=len(demands))


@given(WORK, SIZES)
def test_no_card_is_ever_over_its_memory_and_every_job_runs(queue: list[Work], sizes: list[int]) -> None:
    cards = [Card(str(number), size) for number, size in enumerate(sizes)]
    started, ended = simulate(queue, cards)
    assert set(started) == set(ended) == set(range(len(queue)))


@given(st.lists(st.integers(1, 9), min_size=20, max_size=40), st.integers(0, 5), st.integers(2, 4))
def test_a_job_of_two_gpus_is_not_starved_by_a_stream_of_small_ones(
    lengths: list[int], place_in_queue: int, card_count: int
) -> None:
    small = [Work(Demand(0, share=None, need=Estimate(7_000)), length) for length in lengths]
    queue = [*small[:place_in_queue], Work(Demand(0, gpus=2), 5), *small[place_in_queue:]]
    started, ended = simulate(queue, [Card(str(number), 24_000) for number in range(card_count)])
    # Of what stands behind it only that may start before it which found its cards before they were to be kept.
    running_at_first = [ended[key] for key in range(len(queue)) if started[key] == 0 and key != place_in_queue]
    assert started[place_in_queue] <= max(running_at_first, default=0)


@given(
    st.lists(st.tuples(st.sampled_from([5_000, 5_000, 11_000]), st.integers(1, 9)), min_size=20, max_size=60),
    st.integers(1, 3),
)
def test_the_first_that_waits_has_its_place_when_about_three_times_as_long_as_a_job_takes_is_over(
    jobs: list[tuple[int, int]], card_count: int
) -> None:
    queue = [Work(Demand(0, share=None, need=Estimate(mib)), length) for mib, length in jobs]
    started, _ = simulate(queue, [Card(str(number), 24_000) for number in range(card_count)])
    for number in range(len(queue)):
        all_before_have_begun_s = max((started[key] for key in range(number)), default=0)
        # As many as run go before it in the time in which these end, at most twice that; then a card is emptied.
        assert started[number] <= all_before_have_begun_s + 3 * 9


def test_where_more_waits_than_there_are_empty_cards_what_is_shared_is_filled_first() -> None:
    half = busy(A, Fraction(1, 2))
    assert where([learned(1, 5_000)], half, B) == {1: "B"}  # a GPU for each
    assert where([learned(1, 5_000), learned(2, 5_000)], half, B)[1] == "A"
    large = learned(3, 20_000)
    assert where([learned(1, 5_000), large, learned(2, 5_000)], half, B) == {1: "A", 3: "B"}


def test_an_empty_card_goes_to_a_job_that_needs_all_of_it_before_it_fills_up_again() -> None:
    small, large = learned(1, 5_000), [learned(key, 20_000) for key in (2, 3, 4)]
    half = busy(A, Fraction(1, 2))
    assert where([small, *large], half, B) == {2: "B", 1: "A"}
    # Not more than half of the cards, and nothing that has a lower priority than the head.
    assert where([small, learned(5, 5_000), *large], A, B, C) == {2: "A", 3: "B", 1: "C"}
    low = [replace(one, priority=-1) for one in large]
    assert 1 in where([small, learned(5, 5_000), *low], A, B, C)
    assert where([small, *low], half, B)[1] == "A"
