"""What comes of an attempt that has ended, and whether its job is due again."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from runner import process
from runner.appendfile import append_line
from runner.executors.base import Ended
from runner.model import Job, JobState, Outcome, Slot
from runner.options import Retry, StageOptions
from runner.recovery import exit_record
from runner.service.endings import QUICK_S, QUICK_SAVES, Ending, Running, again_at, exceeded, judge
from tests.runner.standins import planned

if TYPE_CHECKING:
    from pathlib import Path

FAILED, COMPLETED, TIMEOUT = JobState.FAILED, JobState.COMPLETED, JobState.TIMEOUT
INTERRUPTED, CANCELED = JobState.INTERRUPTED, JobState.CANCELED


def running(output: Path, options: StageOptions | None = None, ending: Ending | None = None) -> Running:
    trial = planned(output, 0, ("train",))
    directory = output / "T_0"
    directory.mkdir(exist_ok=True)
    log = directory / "log.train.1"
    log.touch()
    given = options or StageOptions()
    return Running(Job(trial, "train"), 1, 1, Slot("cpu 0"), 0.0, 100.0, str(log), given, ending=ending)


@pytest.mark.parametrize(
    ("exit_code", "ending", "is_watched", "state"),
    [
        (0, None, True, COMPLETED),
        (0, Ending.TIMEOUT, True, COMPLETED),  # it came to its end all the same
        (0, Ending.CANCEL, True, COMPLETED),
        (1, None, True, FAILED),
        (75, None, True, INTERRUPTED),
        (75, Ending.STOP, True, INTERRUPTED),
        (75, Ending.CANCEL, True, CANCELED),
        (143, Ending.STOP, True, INTERRUPTED),
        (143, Ending.TIMEOUT, True, TIMEOUT),
        (143, Ending.STALL, True, FAILED),
        (143, Ending.CANCEL, True, CANCELED),
        (143, None, True, FAILED),
        (None, None, True, FAILED),  # killed before our eyes
        (None, None, False, INTERRUPTED),  # gone while nobody watched
        (None, Ending.CANCEL, True, CANCELED),
    ],
)
def test_an_end_becomes_a_state(
    tmp_path: Path, exit_code: int | None, ending: Ending | None, is_watched: bool, state: JobState
) -> None:
    outcome = judge(running(tmp_path, ending=ending), Ended(1, exit_code, is_watched=is_watched), 2.0)
    assert (outcome.state, outcome.exit_code, outcome.seconds) == (state, exit_code, 2.0)
    assert (outcome.cause is not None) is (state in {FAILED, TIMEOUT})


@pytest.mark.parametrize(("ending", "cause"), [(Ending.TIMEOUT, "timeout"), (Ending.STALL, "stall")])
def test_a_limit_is_the_cause_of_the_end_that_it_made(tmp_path: Path, ending: Ending, cause: str) -> None:
    assert judge(running(tmp_path, ending=ending), Ended(1, 143, is_watched=True), 2.0).cause == cause


def test_a_failure_has_its_cause_and_line_from_the_log(tmp_path: Path) -> None:
    item = running(tmp_path)
    with open(item.log, "w") as file:  # noqa: PTH123
        file.write("Traceback (most recent call last):\n  File 'x', line 1\nValueError: no such thing\n")
    outcome = judge(item, Ended(1, 1, is_watched=True), 2.0)
    assert (outcome.cause, outcome.line) == ("traceback", "ValueError: no such thing")


def test_the_exit_code_that_its_shell_recorded_counts_where_nobody_saw_the_end(tmp_path: Path) -> None:
    item = running(tmp_path)
    record = exit_record(item.job.trial.directory, "train", 1)
    append_line(record.path, f"{record.prefix}0}}\n".encode())
    assert judge(item, Ended(1), 2.0).state is COMPLETED


def test_a_command_that_deletes_its_own_directory_has_failed(tmp_path: Path) -> None:
    item = running(tmp_path)
    (tmp_path / "T_0" / "log.train.1").unlink()
    (tmp_path / "T_0").rmdir()
    assert judge(item, Ended(1, 0, is_watched=True), 2.0).state is FAILED


# --- limits ---


def test_a_time_limit_counts_from_the_start(tmp_path: Path) -> None:
    item = running(tmp_path, StageOptions(timeout_s=60.0))
    assert exceeded(item, 159.9) is None
    assert exceeded(item, 160.0) is Ending.TIMEOUT


def test_without_limits_nothing_is_exceeded(tmp_path: Path) -> None:
    item = running(tmp_path)
    assert exceeded(item, 1e9) is None
    assert not item.needs_watch


def test_the_time_for_which_the_machine_was_suspended_counts_for_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = {time.CLOCK_MONOTONIC: 100.0, time.CLOCK_BOOTTIME: 150.0}
    monkeypatch.setattr("runner.process.time.clock_gettime", clocks.__getitem__)
    monkeypatch.setattr(process, "start_ticks", lambda _: 150 * os.sysconf("SC_CLK_TCK"))
    item = running(tmp_path, StageOptions(timeout_s=60.0, stall_s=10.0))
    assert process.started_at(1) == item.began == process.boot_seconds()
    assert exceeded(item, process.boot_seconds()) is None
    clocks[time.CLOCK_BOOTTIME] += 28800
    assert exceeded(item, process.boot_seconds()) is None


@pytest.mark.parametrize("name", ["log.train.1", "metrics.csv"])
def test_a_stall_is_a_time_without_growth_of_log_and_metrics(tmp_path: Path, name: str) -> None:
    item = running(tmp_path, StageOptions(stall_s=10.0))
    assert exceeded(item, 100.0) is None
    assert exceeded(item, 109.0) is None
    (tmp_path / "T_0" / name).write_text("more")
    assert exceeded(item, 110.0) is None
    assert exceeded(item, 119.9) is None
    assert exceeded(item, 120.0) is Ending.STALL


# --- again ---


@pytest.mark.parametrize(
    ("state", "cause", "failures", "due"),
    [
        (FAILED, "oom", 1, 107.0),
        (TIMEOUT, "timeout", 2, 107.0),
        (FAILED, "oom", 3, None),
        (FAILED, "signal", 1, None),  # not one of the causes
        (CANCELED, None, 0, None),
        (COMPLETED, None, 0, None),
    ],
)
def test_a_failure_is_tried_again_as_its_stage_says(
    tmp_path: Path, state: JobState, cause: str | None, failures: int, due: float | None
) -> None:
    item = running(tmp_path, StageOptions(retry=Retry(2, 7.0, ("oom", "timeout"))))
    assert again_at(Outcome(state, 1, 2.0, cause=cause), item, failures, 0, 100.0) == due


def test_an_interrupted_job_is_due_at_once_unless_it_vanishes_again_and_again(tmp_path: Path) -> None:
    outcome = Outcome(INTERRUPTED, 75, QUICK_S / 2)
    dues = [again_at(outcome, running(tmp_path), 0, quick, 100.0) for quick in range(1, QUICK_SAVES + 1)]
    assert dues == [100.0] * (QUICK_SAVES - 1) + [None]


def test_a_job_that_was_told_to_stop_is_not_due_again(tmp_path: Path) -> None:
    assert again_at(Outcome(INTERRUPTED, 75, 50.0), running(tmp_path, ending=Ending.STOP), 0, 0, 100.0) is None
