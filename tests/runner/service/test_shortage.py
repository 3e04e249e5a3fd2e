"""A machine that refuses to write: ends are recorded later, in their order, and nothing starts until then."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from runner.model import Job, JobState, Outcome, Slot
from runner.options import StageOptions
from runner.records import DamagedRecordError
from runner.service.endings import Running
from runner.service.ledger import Ledger
from runner.service.shortage import HOLD_S, Shortage, is_shortage
from tests.runner.standins import planned

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DONE = Outcome(JobState.COMPLETED, 0, 1.0)
FULL = OSError(errno.ENOSPC, "No space left on device")


class Paper(Ledger):
    """Records the names of trials, unless the machine refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.fault: Exception | None = None

    def close(self, job: Job, number: int, outcome: Outcome, blocked: Iterable[Job]) -> None:
        if self.fault is not None:
            raise self.fault
        assert (number, outcome, list(blocked)) == (1, DONE, [])
        self.names.append(job.trial.name)


class World:
    def __init__(self, output: Path) -> None:
        self.output = output
        self.said: list[str] = []
        self.paper = Paper()
        self.shortage = Shortage(self.paper, self.said.append)

    def end(self, index: int, now: float) -> None:
        """An attempt of a trial ends."""
        trial = planned(self.output, index, ("train",))
        (self.output / trial.name).mkdir(exist_ok=True)
        item = Running(Job(trial, "train"), 1, 1, Slot("cpu 0"), 0.0, 0.0, "", StageOptions())
        self.shortage.record(item, DONE, [], now)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_end_is_recorded_at_once_where_the_machine_allows(world: World) -> None:
    world.end(0, 100.0)
    assert (world.paper.names, world.said) == (["T_0"], [])
    assert not world.shortage.has_ends
    assert world.shortage.next_time(100.0) is None


def test_what_was_refused_is_recorded_in_its_order_when_it_can_be(world: World) -> None:
    world.paper.fault = FULL
    world.end(0, 100.0)
    world.end(1, 101.0)
    assert world.shortage.has_ends
    assert world.shortage.next_time(101.0) == 101.0 + HOLD_S
    world.paper.fault = None
    world.shortage.try_again(101.0 + HOLD_S / 2)
    assert world.paper.names == []
    world.shortage.try_again(101.0 + HOLD_S)
    assert world.paper.names == ["T_0", "T_1"]
    assert not world.shortage.lasts(101.0 + HOLD_S)


def test_nothing_starts_while_it_lasts_and_that_is_said_once(world: World) -> None:
    world.paper.fault = FULL
    world.end(0, 100.0)
    now = 100.0
    for _ in range(3):
        now += HOLD_S
        world.shortage.try_again(now)
        assert world.shortage.lasts(now)
    assert world.said == [
        f"{world.output}/T_0: No space left on device. Nothing starts until this is over; what runs goes on."
    ]


def test_the_end_of_a_trial_whose_directory_is_gone_holds_nothing_up(world: World) -> None:
    world.paper.fault = FULL
    world.end(0, 100.0)
    (world.output / "T_0").rmdir()
    world.shortage.try_again(100.0 + HOLD_S)
    assert not world.shortage.has_ends


def test_damaged_records_are_told_and_hold_nothing_up(world: World) -> None:
    world.paper.fault = DamagedRecordError("T_0/stat is damaged")
    world.end(0, 100.0)
    assert world.said == ["T_0/stat is damaged"]
    assert not world.shortage.lasts(100.0)


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, True), (errno.EMFILE, True), (errno.EACCES, False)])
def test_only_what_may_come_back_is_a_shortage(number: int, expected: bool) -> None:
    assert is_shortage(OSError(number, "refused")) is expected
