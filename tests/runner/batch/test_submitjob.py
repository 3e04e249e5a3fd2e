"""The daemon's own job: one at a time, whatever the batch system answers, and what becomes of those who wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner import faraway
from runner.batch import submitjob
from runner.batch.submitjob import Asked
from runner.errors import InputError, RunnerError
from runner.executors import registry
from runner.executors.batch import RefusedError, UnreachableError
from runner.inbox import Inbox
from runner.options import StageOptions
from runner.plan import Journal
from tests.runner.batchworld import NAME, FakeSystem

if TYPE_CHECKING:
    from pathlib import Path

ASKED = Asked(NAME, {}, 3600.0, {"SLURM_CONF": "/etc/it's here"})


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    system = FakeSystem()
    monkeypatch.setattr(registry, "load", lambda _name: system)
    return system


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output directory in which something is left to do."""
    Journal(tmp_path).append({"kind": "plan", "time": "20260101.120000", "options": {}, "trials": 1})
    return tmp_path


def test_it_goes_where_the_trials_go_with_what_says_who_pays(output: Path, system: FakeSystem) -> None:
    options = [StageOptions(), StageOptions(executor=NAME, batch={"account": "us", "memory": 100})]
    asked = submitjob.asked(options, 3600.0, {"SLURM_CONF": "/c", "EDITOR": "vi"})
    assert asked == Asked(NAME, {"account": "us"}, 3600.0, {"SLURM_CONF": "/c"})
    job = submitjob.submit(output, asked)
    batch = system.batches[job]
    assert (batch.count, batch.cpus, batch.keys.account, batch.keys.time, batch.keys.ahead) == (1, 1, "us", 3600, 120)
    assert batch.enter == "export SLURM_CONF=/c"
    assert batch.task.endswith(f"-m runner.serve --here {output}")


def test_it_goes_nowhere_where_trials_run_here() -> None:
    with pytest.raises(InputError, match="--submit: no executor but this machine"):
        submitjob.asked([StageOptions()], 3600.0, {})


def test_the_successor_is_like_it(output: Path, system: FakeSystem) -> None:
    submitjob.submit(output, ASKED)
    assert submitjob.submit_again(output, 3600) == "2"
    first, second = system.batches.values()
    assert first.name != second.name
    assert (first.enter, first.task, first.keys) == (second.enter, second.task, second.keys)


def test_what_nobody_submitted_has_no_successor(output: Path, system: FakeSystem) -> None:
    assert submitjob.submit_again(output, 3600) is None
    submitjob.submit(output, ASKED)
    submitjob.over(output)
    assert submitjob.submit_again(output, 3600) is None


def test_a_job_that_ends_before_its_time_has_no_successor(output: Path, system: FakeSystem) -> None:
    submitjob.submit(output, ASKED)
    assert submitjob.submit_again(output, 1800) is None
    assert len(system.batches) == 1
    assert submitjob.exists(output)  # so that who waits hears of it


def test_the_successor_is_asked_for_until_it_is_taken(
    output: Path, system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitjob.submit(output, ASKED)
    system.fault = UnreachableError("sbatch: connect failure.")
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            system.fault = None

    monkeypatch.setattr("runner.batch.submitjob.time.sleep", sleep)
    assert submitjob.submit_again(output, 3600) == "2"
    assert waits == [submitjob.AGAIN_S] * 3


def test_a_successor_whose_answer_was_lost_is_found(
    output: Path, system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.batch.submitjob.time.sleep", lambda _: None)
    submitjob.submit(output, ASKED)
    system.loses_answer = True
    assert submitjob.submit_again(output, 3600) == "2"
    assert len(system.batches) == 2


def test_a_successor_that_is_never_taken_is_an_error(output: Path, system: FakeSystem) -> None:
    submitjob.submit(output, ASKED)
    system.refusal = RefusedError("sbatch: the account is closed.")
    with pytest.raises(RefusedError, match="the account is closed"):
        submitjob.submit_again(output, 3600)


class Waits:
    """The clock of who waits; what happens at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.happens: list[tuple[float, object]] = []
        monkeypatch.setattr("runner.faraway.time.monotonic", lambda: self.now)
        monkeypatch.setattr("runner.faraway.time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 1000, "it waits for ever"
        while self.happens and self.happens[0][0] <= self.now:
            self.happens.pop(0)[1]()  # type: ignore[operator]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


def test_who_waits_hears_that_the_daemons_job_is_gone(output: Path, system: FakeSystem, waits: Waits) -> None:
    submitjob.submit(output, ASKED)
    waits.happens = [(100, system.rows.clear)]
    with pytest.raises(RunnerError, match="the daemon's job is gone, and something is left to do; `run` goes on"):
        faraway.wait(output)
    assert waits.now >= 100 + 2 * faraway.LOOK_S


def test_who_waits_bears_that_nobody_can_tell(output: Path, system: FakeSystem, waits: Waits) -> None:
    submitjob.submit(output, ASKED)
    system.fault = UnreachableError("squeue: connect failure.")
    waits.happens = [(500, lambda: submitjob.over(output))]
    faraway.wait(output)
    assert waits.now == 500


def test_who_waits_bears_that_one_job_follows_another(output: Path, system: FakeSystem, waits: Waits) -> None:
    submitjob.submit(output, ASKED)
    waits.happens = [
        (100, system.rows.clear),
        (100 + faraway.LOOK_S, lambda: submitjob.submit_again(output, 3600)),
        (500, lambda: submitjob.over(output)),
    ]
    faraway.wait(output)
    assert waits.now == 500


def test_a_word_is_left_for_a_daemon_whose_job_has_not_begun(output: Path, system: FakeSystem) -> None:
    assert not faraway.tell(output, {"do": "stop"})
    job = submitjob.submit(output, ASKED)
    assert submitjob.job_of(output) == f"job {job} of {NAME}"
    assert faraway.tell(output, {"do": "stop"})
    assert [*Inbox(output).take()] == [{"do": "stop"}]
    system.rows.clear()
    assert not faraway.tell(output, {"do": "stop"})
