"""Counts, the time left, and durations for people."""

from collections import Counter

import pytest

from runner.events import Event, Kind
from runner.model import Job, Trial
from runner.screen.progress import Progress, duration, whole_duration


def job(index: int, stage: str = "train") -> Job:
    return Job(TRIALS[index], stage)


TRIALS = [
    Trial(index, f"id{index}", f"T_{index}", f"output/T_{index}", f"output/T_{index}", ("train", "test"))
    for index in range(10)
]


def start(index: int, time: float = 0.0, stage: str = "train", kind: Kind = Kind.START) -> Event:
    return Event(kind, job(index, stage), time, f"cpu {index}")


def done(index: int, seconds: float, stage: str = "train") -> Event:
    return Event(Kind.DONE, job(index, stage), 0.0, seconds=seconds)


def progress(events: list[Event], slots: int = 1, **jobs: int) -> Progress:
    made = Progress(Counter(jobs), slots)
    for event in events:
        made.handle(event)
    return made


def test_counts_follow_the_events() -> None:
    failed = Event(Kind.FAIL, job(1), 0.0, exit_code=1)
    made = progress(
        [
            Event(Kind.SKIP, job(4), 0.0),
            start(0),
            start(1),
            start(2, kind=Kind.ADOPT),
            start(3),
            done(0, 5.0),
            failed,
            Event(Kind.BLOCK, job(1, "test"), 0.0),
            Event(Kind.INTERRUPT, job(3), 0.0),
        ],
        train=6,
        test=6,
    )
    assert made.total == 12
    assert made.over == 5
    assert list(made.running) == [job(2)]
    assert made.running[job(2)].kind is Kind.ADOPT
    assert made.failures == [failed]
    assert {kind: made.count(kind) for kind in Kind} == {
        **dict.fromkeys(Kind, 0),
        Kind.DONE: 1,
        Kind.FAIL: 1,
        Kind.SKIP: 1,
        Kind.INTERRUPT: 1,
        Kind.BLOCK: 1,
    }


def test_an_empty_run_has_nothing_left() -> None:
    made = progress([])
    assert (made.total, made.over, made.time_left_s(0.0)) == (0, 0, None)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [start(0)],
        [Event(Kind.SKIP, job(0), 0.0)],
        [Event(Kind.FAIL, job(0), 0.0, seconds=9.0)],
        [Event(Kind.INTERRUPT, job(0), 0.0, seconds=9.0)],
    ],
)
def test_before_a_job_has_completed_the_time_left_is_unknown(events: list[Event]) -> None:
    assert progress(events, train=5).time_left_s(1.0) is None


@pytest.mark.parametrize(
    ("slots", "now", "left"),
    [
        (1, 0.0, 80.0),  # 6 wait, 2 run, 10 s each
        (2, 0.0, 40.0),
        (2, 4.0, 36.0),  # both have run for 4 s
        (2, 25.0, 30.0),  # both take longer than usual: 6 are left
        (100, 0.0, 10.0),  # the last one to end decides
        (100, 4.0, 6.0),
        (0, 0.0, 40.0),  # how many there are is not known: as many as run
    ],
)
def test_the_time_left_is_the_work_left_over_the_slots(slots: int, now: float, left: float) -> None:
    events = [done(0, 8.0), done(1, 12.0), start(2), start(3)]
    assert progress(events, slots, train=10).time_left_s(now) == pytest.approx(left)


def test_each_stage_counts_with_its_own_mean() -> None:
    # 2 of train at 100 s and 3 of test at 10 s wait.
    events = [done(0, 100.0), done(0, 10.0, "test")]
    assert progress(events, train=3, test=4).time_left_s(0.0) == pytest.approx(230.0)


def test_a_stage_that_has_not_completed_yet_counts_like_the_others_on_average() -> None:
    events = [done(0, 100.0), done(0, 20.0, "avg"), start(0, 50.0, "test")]
    # train: 1 × 100 waits; avg: 1 × 20 waits; test: 1 × 60 waits, and one runs since 10 s.
    assert progress(events, train=2, avg=2, test=2).time_left_s(60.0) == pytest.approx(230.0)


@pytest.mark.parametrize("kind", [Kind.SKIP, Kind.FAIL, Kind.BLOCK, Kind.INTERRUPT])
def test_jobs_that_are_over_in_another_way_neither_wait_nor_count_for_the_mean(kind: Kind) -> None:
    events = [done(0, 10.0), *(Event(kind, job(index), 0.0, seconds=1000.0) for index in (1, 2))]
    assert progress(events, train=5).time_left_s(0.0) == pytest.approx(20.0)


def test_nothing_is_left_at_the_end() -> None:
    assert progress([done(0, 10.0), done(1, 10.0)], train=2).time_left_s(5.0) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text", "whole"),
    [
        (0.0, "0.00 s", "0 s"),
        (0.42, "0.42 s", "0 s"),
        (9.99, "9.99 s", "10 s"),
        (9.996, "10.0 s", "10 s"),
        (12.34, "12.3 s", "12 s"),
        (59.9, "59.9 s", "1 min 00 s"),
        (59.97, "1 min 00 s", "1 min 00 s"),
        (60.0, "1 min 00 s", "1 min 00 s"),
        (245.0, "4 min 05 s", "4 min 05 s"),
        (3599.4, "59 min 59 s", "59 min 59 s"),
        (3599.6, "1 h 00 min", "1 h 00 min"),
        (12000.0, "3 h 20 min", "3 h 20 min"),
        (48 * 3600 - 1, "47 h 59 min", "47 h 59 min"),
        (48 * 3600, "2 d 0 h", "2 d 0 h"),
        (1_000_000, "11 d 13 h", "11 d 13 h"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str, whole: str) -> None:
    assert duration(seconds) == text
    assert whole_duration(seconds) == whole
