"""What an attempt needs of a GPU."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from runner.gpus.packing import STEADY_S, Estimate, Growth, Sample, after_oom, best_level, estimate, is_settling

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
