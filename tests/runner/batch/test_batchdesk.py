"""What one batch system is asked, how often, and what is told of its faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runner.batch import batchfile
from runner.batch import desk as batchdesk
from runner.batch.batchfile import Intent, Part
from runner.batch.desk import AGAIN_S, BatchDesk
from runner.batch.tasks import Array, Task
from runner.errors import InputError
from runner.executors.batch import BatchKeys, RefusedError, TaskId, UnreachableError
from tests.runner.batchworld import FakeSystem, HeldErrands
from tests.runner.standins import Clock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.executors.batch import Gone, Seen

POLL_S = 20.0
DOWN = UnreachableError("squeue: connect failure.")


class Desk(BatchDesk):
    """A desk with what it has told."""

    def __init__(self, output: Path, clock: Clock) -> None:
        self.output, self.clock = output, clock
        self.system = FakeSystem()
        self.said: list[str] = []
        self.refusals: list[tuple[Array, str]] = []
        self.too_large: list[Array] = []
        self.looks: list[tuple[list[Array], int]] = []
        self.explained: list[Gone] = []
        super().__init__(
            "fake", self.system, lambda: None, self.said.append, lambda *told: self.refusals.append(told),
            self.too_large.append, self._looked, self.explained.extend,
        )  # fmt: skip

    def _looked(self, arrays: Sequence[Array], seen: Sequence[Seen]) -> None:
        self.looks.append((list(arrays), len(seen)))

    def array(self, count: int = 1, **told: str) -> Array:
        """An array whose intent is on disk."""
        parts = tuple((Part(f"T_{index}", {}, "p1"),) for index in range(count))
        intent = Intent(batchfile.new_name(), "fake", told, "p1", "/", None, 1, parts)
        folder = batchfile.directory_of(self.output) / intent.name
        batchfile.write(folder, intent)
        array = Array(folder, intent, BatchKeys(poll=POLL_S))
        array.tasks = {number: Task(array, number, part) for number, part in enumerate(parts)}
        return array

    def go(self, seconds: float = 0.0) -> float | None:
        """Time passes, and all that is due is done; returns when the next is."""
        self.clock.now += seconds
        while (at := self.step(self.clock.now, has_more=False)) is None and self._is_asking:
            self.settle()
        return at

    def asked(self) -> list[str]:
        """The commands since it was asked for last."""
        found, self.system.commands = self.system.commands, []
        return found


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    clock = Clock()
    monkeypatch.setattr(batchdesk, "boot_seconds", clock)
    monkeypatch.setattr(batchdesk, "Errands", HeldErrands)
    return Desk(tmp_path, clock)


def test_a_batch_system_that_has_nothing_is_asked_nothing(desk: Desk) -> None:
    assert desk.go() is None
    assert desk.go(1e6) is None
    assert desk.asked() == []


def test_an_array_is_submitted_with_one_command_and_then_looked_at_at_its_interval(desk: Desk) -> None:
    array = desk.array(3)
    desk.submit(array)
    assert desk.go() == desk.clock.now + POLL_S
    assert (array.job, desk.said) == ("1", ["Submitted to fake: job 1, 3 tasks."])
    assert desk.asked() == ["has_gpus", "submit", "queue"]
    assert desk.system.inherited is not None
    desk.go(POLL_S - 1)
    assert desk.asked() == []
    desk.go(1)
    assert desk.asked() == ["queue"]
    assert desk.looks == [([array], 3)] * 2
    assert (array.folder / "script.sh").read_text() == desk.system.script(desk.system.batches["1"])


def test_what_was_dropped_is_looked_at_no_more(desk: Desk) -> None:
    array = desk.array()
    desk.submit(array)
    desk.drop(array)
    desk.go(1e6)
    assert desk.asked() == []


def test_a_fault_is_told_once_and_so_is_its_end(desk: Desk) -> None:
    desk.submit(desk.array())
    desk.go()
    desk.system.fault = DOWN
    for _ in range(3):
        desk.go(POLL_S + AGAIN_S)
    desk.system.fault = None
    desk.go(AGAIN_S)
    assert desk.said[1:] == [
        "fake: squeue: connect failure. It is asked again; what runs goes on.",
        "fake answers again.",
    ]


def test_while_it_does_not_answer_it_is_asked_less_often(desk: Desk) -> None:
    desk.submit(desk.array())
    desk.go()
    desk.system.fault = DOWN
    at, waits = desk.go(POLL_S), []
    for _ in range(6):
        assert at is not None
        waits.append(at - desk.clock.now)
        desk.asked()
        desk.go(waits[-1] - 1)
        assert desk.asked() == []
        at = desk.go(1)
        assert desk.asked() == ["queue"]
    assert waits == [4, 8, 16, AGAIN_S, AGAIN_S, AGAIN_S]


def test_what_it_does_not_take_now_holds_up_only_what_is_like_it(desk: Desk) -> None:
    full, also, other = desk.array(qos="few"), desk.array(qos="few"), desk.array(qos="many")
    desk.system.refused_now = {full.intent.name, also.intent.name}
    for array in (full, also, other):
        desk.submit(array)
    at = desk.go()
    assert (full.job, also.job, other.job) == (None, None, "1")
    assert at == desk.clock.now + 4
    assert desk.asked().count("submit") == 2
    assert desk.said[0] == "fake: sbatch: QOSMaxSubmitJobPerUserLimit. It is asked again; what runs goes on."
    desk.system.refused_now.clear()
    desk.go(4)
    assert {full.job, also.job} == {"2", "3"}
    assert desk.said.count("fake takes jobs again.") == 1


def test_a_full_queue_that_takes_one_after_the_other_is_told_once(desk: Desk) -> None:
    arrays = [desk.array(qos="few") for _ in range(4)]
    for array in arrays:
        desk.submit(array)
    for room in range(4):
        desk.system.room = room
        desk.go(AGAIN_S)
        assert len(desk.waiting) == 4 - room
        assert desk.trouble == "sbatch: QOSMaxSubmitJobPerUserLimit"
    desk.system.room = 4
    desk.go(AGAIN_S)
    told = [text for text in desk.said if not text.startswith("Submitted")]
    full = "fake: sbatch: QOSMaxSubmitJobPerUserLimit. It is asked again; what runs goes on."
    assert told == [full, "fake takes jobs again."]
    assert desk.trouble == ""


def test_what_was_taken_back_leaves_no_trouble_behind(desk: Desk) -> None:
    array = desk.array()
    desk.system.room = 0
    desk.submit(array)
    desk.go()
    assert desk.trouble
    desk.drop(array)
    assert desk.trouble == ""


@pytest.mark.parametrize("error", [RefusedError("no such partition"), InputError("no such script")])
def test_what_is_never_taken_is_told_to_its_owner_alone(desk: Desk, error: Exception) -> None:
    array, other = desk.array(), desk.array()
    desk.system.refusal = error
    desk.submit(array)
    desk.go()
    desk.system.refusal = None
    desk.submit(other)
    desk.go()
    assert desk.refusals == [(array, str(error))]
    assert other.job == "1"
    assert desk.said == ["Submitted to fake: job 1, 1 task."]


def test_a_job_that_an_earlier_try_made_is_found(desk: Desk) -> None:
    array = desk.array()
    desk.system.loses_answer = True
    desk.submit(array)
    desk.go()
    assert desk.waiting == [array]
    desk.go(AGAIN_S)
    assert array.job == "1"
    assert len(desk.system.batches) == 1
    assert desk.said[-1] == "fake takes jobs again."


def test_a_cancellation_that_fails_is_told_and_ends_nothing(desk: Desk) -> None:
    array = desk.array()
    desk.submit(array)
    desk.go()
    desk.system.fault = DOWN
    desk.cancel(array, {0})
    was_idle = desk.is_idle
    desk.settle()
    assert (was_idle, desk.is_idle) == (False, True)
    assert len(desk.said) == 2


def test_accounting_is_asked_for_the_tasks_that_are_gone(desk: Desk) -> None:
    from runner.executors.batch import Why

    array = desk.array(2)
    desk.submit(array)
    desk.go()
    task: Any = TaskId("1", 1)
    desk.system.lose(task, Why.NODE_LOST)
    desk.explain({task: array.intent.name}, 0.0)
    desk.settle()
    assert [(gone.id, gone.why) for gone in desk.explained] == [(task, Why.NODE_LOST)]
