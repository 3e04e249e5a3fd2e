"""What a run shows: its lines."""

import pytest

from runner.events import Event, Kind
from runner.model import Job, Trial
from runner.screen.watch import line

TRIAL = Trial(6, "id", "Lr_1", "output/Lr_1", "output/Lr_1", ("train",))
JOB = Job(TRIAL, "train")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Event(Kind.START, JOB, 0.0, "gpu 0"), "START     gpu 0, train:  7/12, output/Lr_1"),
        (Event(Kind.START, JOB, 0.0, "gpu 0", attempt=3), "START     gpu 0, train:  7/12, attempt 3, output/Lr_1"),
        (Event(Kind.ADOPT, JOB, 0.0, "cpu 1"), "ADOPT     cpu 1, train:  7/12, output/Lr_1"),
        (Event(Kind.ADOPT, JOB, 0.0, "cpu 1", attempt=2), "ADOPT     cpu 1, train:  7/12, attempt 2, output/Lr_1"),
        (
            Event(Kind.DONE, JOB, 0.0, "cpu 1", 245.0, 0, 2),
            "DONE      cpu 1, train:  7/12, 4 min 05 s, output/Lr_1",
        ),
        (
            Event(Kind.FAIL, JOB, 0.0, "cpu 1", 0.5, 3, log="output/Lr_1/log.train.1"),
            "FAIL      cpu 1, train:  7/12, 0.50 s, exit code 3, output/Lr_1",
        ),
        (Event(Kind.SKIP, JOB, 0.0), "SKIP      train:  7/12, output/Lr_1"),
        (Event(Kind.BLOCK, JOB, 0.0), "BLOCK     train:  7/12, an earlier stage failed, output/Lr_1"),
        (Event(Kind.INTERRUPT, JOB, 0.0, "cpu 1", 9.0), "INTERRUPT cpu 1, train:  7/12, output/Lr_1"),
    ],
)
def test_an_event_is_one_line(event: Event, text: str) -> None:
    assert line(event, 12) == text


def test_the_numbers_of_trials_stand_below_each_other() -> None:
    event = Event(Kind.SKIP, JOB, 0.0)
    assert line(event, 7) == "SKIP      train: 7/7, output/Lr_1"
    assert line(event, 1000) == "SKIP      train:    7/1000, output/Lr_1"


LONG = Trial(
    6, "id", "Lr_0.1-Momentum_0.9-Width_64-Seed_3", "output/Lr_0.1-Momentum_0.9-Width_64-Seed_3", "", ("train",)
)
FAILED = Event(Kind.FAIL, Job(LONG, "train"), 0.0, "cpu 1", 0.5, 3, log="output/log.train.1")


@pytest.mark.parametrize(
    ("event", "width", "text"),
    [
        (FAILED, 100, line(FAILED, 12)),
        (FAILED, 90, "FAIL      cpu 1, train:  7/12, 0.50 s, exit code 3, Lr_0.1-Momentum_0.9-Width_64-Seed_3"),
        (FAILED, 60, "FAIL      cpu 1, train:  7/1… Lr_0.1-Momentu…Width_64-Seed_3"),
        (Event(Kind.START, Job(LONG, "train"), 0.0), 60, "START     train:  7/12, Lr_0.1-Momentum_0.9-Width_64-Seed_3"),
        (Event(Kind.START, Job(LONG, "train"), 0.0), 40, "START     train:  … Lr_0.1-Mo…_64-Seed_3"),
    ],
)
def test_on_a_narrow_terminal_both_ends_of_the_name_are_left(event: Event, width: int, text: str) -> None:
    assert line(event, 12, width) == text
    assert len(text) <= width
