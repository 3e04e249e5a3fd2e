"""How many attempts go onto a GPU."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.packing import (
    STEADY_S,
    WHOLE,
    Card,
    Demand,
    Estimate,
    Growth,
    Running,
    Sample,
    after_oom,
    best_level,
    estimate,
    is_settling,
    place,
)

THIRD = Fraction(1, 3)
A, B, C = (Card(uuid, 24_000) for uuid in "ABC")


def learned(key: object, mib: int, **other: object) -> Demand:
    return Demand(key, share=None, need=Estimate(mib), **other)  # type: ignore[arg-type]


def where(demands: list[Demand], *cards: Card) -> dict[object, str]:
    """The cards of each job that starts, in one string."""
    return {placement.key: "".join(sorted(placement.shares)) for placement in place(demands, cards)}


def busy(card: Card, *shares: Fraction, **changes: object) -> Card:
    return replace(card, running=tuple(Running(share) for share in shares), **changes)  # type: ignore[arg-type]


# --- what a class needs ---


def test_a_class_without_a_past_is_not_known() -> None:
    assert estimate([]) is None


@pytest.mark.parametrize(("peak", "expected"), [(0, 256), (1000, 1256), (10_000, 11_000)])
def test_the_peak_gets_a_margin(peak: int, expected: int) -> None:
    assert estimate([Sample(peak)]) == Estimate(expected)


def test_the_highest_peak_counts() -> None:
    assert estimate([Sample(9_000), Sample(10_000), Sample(4_000)]) == Estimate(11_000)


def test_after_running_out_of_memory_the_class_is_not_known_until_one_ended_well() -> None:
    assert estimate([Sample(4_000), Sample(5_000, level=3, was_oom=True)]) is None
    assert estimate([Sample(5_000, was_oom=True)]) is None


def test_running_out_of_memory_beside_others_raises_the_estimate() -> None:
    before = [Sample(4_000, level=3)]
    crash = Sample(4_500, level=3, was_oom=True)
    once = estimate([*before, crash, Sample(4_200)])
    twice = estimate([*before, crash, Sample(4_200), crash, Sample(4_300)])
    alone = estimate([*before, replace(crash, level=1), Sample(4_200)])
    assert once is not None
    assert twice is not None
    assert alone == Estimate(4_500 + 450)
    assert alone.mib < once.mib < twice.mib


def rated(level: int, *rates: float) -> list[Sample]:
    return [Sample(5_000, level, rate=rate) for rate in rates]


def test_what_is_slower_together_goes_back() -> None:
    assert best_level([*rated(1, 10.0), *rated(2, 4.0, 4.1, 4.05)]) == 1
    assert best_level([*rated(1, 10.0), *rated(2, 8.0, 8.1), *rated(3, 4.0, 4.1)]) == 2
    assert estimate([*rated(1, 10.0), *rated(2, 4.0, 4.1, 4.05)]) == Estimate(5_500, max_level=1)


def test_what_is_faster_together_may_go_further() -> None:
    assert best_level([*rated(1, 10.0), *rated(2, 9.0, 9.1), *rated(3, 7.0, 7.2)]) is None
    assert best_level(rated(2, 1.0)) is None
    assert best_level([Sample(1, 1), Sample(1, 2)]) is None


def test_what_is_as_fast_together_stays() -> None:
    assert best_level([*rated(1, 10.0, 10.1, 9.9), *rated(2, 5.0, 4.95, 5.05)]) is None


def test_one_odd_measurement_does_not_decide() -> None:
    assert best_level([*rated(1, 10.0), *rated(2, 9.0, 8.8, 0.1)]) is None
    assert best_level([*rated(1, 10.0), *rated(2, 2.0)]) is None


def test_trials_of_unequal_length_are_not_taken_for_slower_ones() -> None:
    wrong = 0
    for seed in range(200):
        draw = random.Random(seed)
        first, later = sorted(draw.uniform(0.5, 1.5) for _ in range(8))[:3], [draw.uniform(0.5, 1.5) for _ in range(60)]
        samples = [*rated(1, *(1 / length for length in first)), *rated(4, *(1 / length for length in later))]
        wrong += any(best_level(samples[:count]) for count in range(len(samples) + 1))
    assert wrong <= 2


# --- what starts where ---


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
    (placement,) = place([Demand(1, gpus=2, share=THIRD)], [A, B])
    assert placement.shares == {"A": THIRD, "B": THIRD}


def test_what_ran_out_of_memory_alone_goes_to_a_larger_card() -> None:
    large = Card("L", 48_000)
    assert where([Demand(1, min_total_mib=24_000)], A, B, large) == {1: "L"}
    assert where([Demand(1, min_total_mib=24_000), Demand(2)], A, B) == {2: "A"}


def test_a_large_job_keeps_the_emptiest_cards() -> None:
    cards = [busy(A, THIRD), busy(B, THIRD, THIRD), C]
    jobs = [Demand("large", gpus=2), *(Demand(key, share=THIRD) for key in range(4))]
    assert where(jobs, *cards) == {0: "B"}


def test_a_job_that_no_cards_here_can_serve_keeps_none() -> None:
    jobs = [Demand("large", gpus=3), Demand(1), Demand(2)]
    assert where(jobs, A, B) == {1: "A", 2: "B"}


# --- starting one after another ---


@pytest.mark.parametrize(
    ("age_s", "seen_mib", "expected"),
    [(0.1, 0, True), (5.0, 99, True), (5.0, 100, False), (5.0, None, True), (30.0, None, False), (30.0, 0, False)],
)
def test_an_attempt_settles_with_its_memory_or_with_time(age_s: float, seen_mib: int | None, expected: bool) -> None:
    assert is_settling(age_s, seen_mib, 1_000) is expected


def steady_after(*looks: tuple[float, int, bool]) -> float | None:
    """When an attempt became steady that began at 0: each look is at a time, with its peak so far, busy or not."""
    growth = Growth(0.0)
    return next((at_s for at_s, peak_mib, is_busy in looks if growth.note(at_s, peak_mib, is_busy)), None)


def test_an_attempt_is_steady_after_minutes_of_work_without_growth() -> None:
    looks = [(at_s, 5_000 if at_s >= 10.0 else 500, True) for at_s in map(float, range(1, 1000))]
    assert steady_after(*looks) == 10.0 + STEADY_S
    growth = Growth(0.0)
    assert sum(growth.note(*look) for look in looks) == 1  # it is told once


def test_an_attempt_that_grew_late_is_given_as_long_again() -> None:
    looks = [(at_s, 5_000 if at_s >= 700.0 else 4_000, at_s >= 600.0) for at_s in map(float, range(1, 2000))]
    assert steady_after(*looks) == 1400.0


def test_creeping_by_little_is_no_growth_and_much_of_it_is() -> None:
    looks = [(at_s, 5_000 + int(at_s // 10), True) for at_s in map(float, range(1, 1000))]
    assert steady_after(*looks) == 1.0 + STEADY_S
    assert steady_after(*[(at_s, 5_000 + int(at_s), True) for at_s in map(float, range(1, 250))]) is None


@pytest.mark.parametrize(("peak_mib", "is_busy"), [(500, False), (0, True)])
def test_a_program_that_only_prepares_is_not_steady(peak_mib: int, is_busy: bool) -> None:
    assert steady_after(*[(float(at_s), peak_mib, is_busy) for at_s in range(1, 10_000)]) is None


# --- out of memory ---


@pytest.mark.parametrize(
    ("was_alone", "card", "cards", "count", "expected"),
    [
        (False, 24_000, [24_000], 1, (True, 0)),
        (True, 24_000, [24_000], 1, (False, 24_000)),
        (True, 24_000, [24_000, 48_000], 1, (True, 24_000)),
        (True, 24_000, [24_000, 48_000], 2, (False, 24_000)),
        (True, 24_000, [48_000, 24_000, 48_000], 2, (True, 24_000)),
        (True, None, [24_000], 1, (False, 0)),
    ],
)
def test_out_of_memory_is_the_trials_fault_only_alone_on_the_largest_cards(
    was_alone: bool, card: int | None, cards: list[int | None], count: int, expected: tuple[bool, int]
) -> None:
    assert after_oom(was_alone, card, cards, count) == expected


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
    now_s = 0
    while waiting or ends:
        while True:
            present = [replace(card, running=tuple(on[card.uuid].values())) for card in cards]
            placements = place(list(waiting.values()), present)
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
