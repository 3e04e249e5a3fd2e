"""A task of a batch as a process: what it does when it is told to end, when another copy begins, and when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runner import records
from runner.appendfile import whole_lines
from runner.batch import batchfile
from runner.executors.batch import TaskId, TaskState, Why
from runner.halving import Rule
from runner.model import JobState
from runner.options import StageOptions
from tests.runner.batchworld import LEASE_S, ROOT, Site, lines, sites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST = TaskId("1", 0)
# Goes on until it is allowed to end; asked to, it saves and leaves.
LASTS = "cd $RUNNER_OUTPUT; trap 'exit 75' TERM; echo $$ >> pids; until [ -e end ]; do sleep 0.05; done"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    yield from sites(tmp_path, monkeypatch)


@pytest.fixture
def runs(site: Site, until: Callable[..., None]) -> Callable[..., None]:
    """Waits until so many attempts of a trial have begun, and the newest claim of their task has told of it."""

    def is_told(name: str, job: str) -> bool:
        newest = {claim.name.split(".")[0]: claim for claim in sorted(site.folder(job).glob("*.jsonl"))}
        start = json.dumps(["START", name])[:-1].encode()
        return any(line.startswith(start) for claim in newest.values() for line in whole_lines(claim))

    def runs(count: int = 1, name: str = "T_0", job: str = "1") -> None:
        until(lambda: len(pids(site, name)) == count and is_told(name, job), lambda: site.log(job))

    return runs


def pids(site: Site, name: str = "T_0") -> list[int]:
    path = site.output / name / "pids"
    return list(map(int, path.read_text().split())) if path.exists() else []


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def words(site: Site, claim: int = 0, number: int = 0) -> list[str]:
    """What a claim tells, word by word."""
    told: list[Any] = lines(site.folder() / f"{number}.{claim}.jsonl")[1:]
    return [line["over"] if isinstance(line, dict) else line[0] for line in told]


def test_a_second_copy_fences_off_the_first(site: Site, runs: Callable[..., None]) -> None:
    site.run(0, command=LASTS, told={"lease": 50})
    first = site.start()
    runs(1)
    second = site.start(restart=1)
    assert first.wait(30) == 1
    assert words(site) == ["START", "lost"]
    assert not lives(pids(site)[0])
    runs(2)
    (site.output / "T_0" / "end").touch()
    assert site.finish(second) == 0
    assert words(site, 1) == ["START", "DONE", "done"]
    assert [end["state"] for end in site.ends()] == ["interrupted", "finished"]
    site.look()
    assert site.states() == {"a": "finished"}
    assert site.daemon.is_done


def test_a_first_copy_that_was_stopped_does_nothing_more_when_it_goes_on(site: Site, runs: Callable[..., None]) -> None:
    site.run(0, stages="ab", command=LASTS)
    first = site.start()
    runs(1)
    first.send_signal(signal.SIGSTOP)
    second = site.start(restart=1)
    runs(2)
    (site.output / "T_0" / "end").touch()
    first.send_signal(signal.SIGCONT)
    assert first.wait(30) == 1
    assert site.finish(second) == 0
    assert words(site) == ["START", "lost"]
    assert [(end["stage"], end["state"]) for end in site.ends()] == [
        ("a", "interrupted"),
        ("a", "finished"),
        ("b", "finished"),
    ]


def test_the_daemon_hears_of_each_copy_in_turn(site: Site, runs: Callable[..., None]) -> None:
    site.run(0, command=LASTS, told={"lease": 50})
    first = site.start()
    runs(1)
    site.look()
    assert [item.attempt for item in site.daemon.running()] == [1]
    second = site.start(restart=1)
    first.wait(30)
    runs(2)
    site.look()
    assert [item.attempt for item in site.daemon.running()] == [2]
    (site.output / "T_0" / "end").touch()
    site.finish(second)
    site.look()
    assert site.told() == [("START", "T_0"), ("START", "T_0"), ("DONE", "T_0")]


def test_a_task_whose_batch_is_removed_ends_what_it_runs(site: Site, runs: Callable[..., None]) -> None:
    site.run(0, command=LASTS)
    child = site.start()
    runs()
    shutil.rmtree(site.folder())
    assert child.wait(30) == 1
    assert not lives(pids(site)[0])
    assert site.ends() == []


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_trial_whose_batch_somebody_removed_is_submitted_again(
    site: Site, runs: Callable[..., None], has_begun: bool
) -> None:
    site.run(0, command=LASTS)
    child = site.start() if has_begun else None
    if child is not None:
        runs()
        site.look()
    shutil.rmtree(site.folder().parent)
    if child is not None:
        child.wait(30)
    site.system.lose(FIRST, Why.ENDED)
    site.look(6)
    assert len(site.system.batches) == 2
    (site.output / "T_0").mkdir(exist_ok=True)
    (site.output / "T_0" / "end").touch()
    site.through("2")
    site.look()
    assert site.states() == {"a": "finished"}
    assert site.daemon.is_done


def test_at_the_end_of_its_allocation_programs_save_and_go_on_in_the_next(
    site: Site, runs: Callable[..., None]
) -> None:
    site.run(0, stages="ab", command=LASTS)
    child = site.start()
    runs()
    child.send_signal(signal.SIGTERM)
    assert site.finish(child) == 0
    assert words(site) == ["START", "INTERRUPT", "ended"]
    site.look(3)  # why it ended is asked once it is gone
    assert site.states() == {"a": "submitted", "b": "pending"}
    (site.output / "T_0" / "end").touch()
    site.through("2")
    site.look()
    assert set(site.states().values()) == {"finished"}


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_task_dies_of_what_grid_engine_ends_it_by_when_its_programs_have_saved(
    site: Site, runs: Callable[..., None], number: signal.Signals
) -> None:
    site.run(0, command=LASTS)
    child = site.start()
    runs()
    child.send_signal(number)
    assert site.finish(child) == -number
    assert words(site) == ["START", "INTERRUPT", "ended"]


def test_what_somebody_deleted_while_it_ran_is_canceled(site: Site, runs: Callable[..., None]) -> None:
    site.run(0, stages="ab", command=LASTS)
    child = site.start()
    runs()
    child.send_signal(signal.SIGTERM)
    assert site.finish(child, why=Why.CANCELED) == 0
    site.look(3)
    assert site.states() == {"a": "canceled", "b": "blocked"}


def test_what_took_too_long_is_told_so_while_its_task_still_runs(
    site: Site, runs: Callable[..., None], until: Callable[..., None]
) -> None:
    limited = StageOptions(executor="fake", batch={"lease": LEASE_S, "pack": 2}, timeout_s=1.0)
    command = f"case $RUNNER_OUTPUT/$RUNNER_STAGE in *T_0/a) sleep 60;; *T_1/a) true;; *) {LASTS};; esac"
    site.run(0, 1, stages="ab", command=command, options={"a": limited, "b": replace(limited, timeout_s=None)})
    child = site.start()
    runs(1, "T_1")
    until(lambda: "FAIL" in words(site), site.log)
    site.look()
    assert site.states("T_0") == {"a": "timeout", "b": "blocked"}
    assert site.states("T_1") == {"a": "finished", "b": "running"}
    (site.output / "T_1" / "end").touch()
    site.finish(child)


def test_what_a_stop_ends_is_interrupted_and_not_due_by_itself(site: Site, runs: Callable[..., None]) -> None:
    site.run(0, command=LASTS)
    child = site.start()
    runs()
    site.look()
    site.do("stop", now=True)
    site.finish(child)
    site.look(3)
    assert site.told()[-1] == ("INTERRUPT", "T_0")
    assert site.events[-1].log.startswith(f"{site.output}/T_0/log.a.")
    assert site.daemon.is_done


def test_a_word_for_one_task_leaves_the_others_of_its_array_alone(site: Site, runs: Callable[..., None]) -> None:
    site.run(0, 1, command=LASTS)
    children = [site.start(number=number) for number in range(2)]
    runs(1, "T_0")
    runs(1, "T_1")
    batchfile.tell(site.folder(), "stop", ["T_1"])
    assert site.finish(children[1], number=1) == 0
    assert words(site) == ["START"]
    (site.output / "T_0" / "end").touch()
    assert site.finish(children[0]) == 0
    assert [end["state"] for end in (*site.ends("T_0"), *site.ends("T_1"))] == ["finished", "interrupted"]


@pytest.mark.parametrize("word", ["cancel", "stop"])
def test_what_runs_is_ended_at_the_users_word(site: Site, runs: Callable[..., None], word: str) -> None:
    site.run(0, command=LASTS)
    child = site.start()
    runs()
    site.look()
    site.do(word, words=["T_0"], now=True)
    assert site.finish(child) == 0
    site.look()
    assert site.states() == {"a": "canceled" if word == "cancel" else "pending"}
    assert site.daemon.is_done


def test_a_trial_that_is_left_out_while_it_runs_goes_on_to_its_end(site: Site, runs: Callable[..., None]) -> None:
    site.run(0, 1, command=LASTS)
    child = site.start()
    runs()
    site.look()
    assert site.run(1, command=LASTS) == {"waiting": 1, "kept": 1}
    (site.output / "T_0" / "end").touch()
    assert site.finish(child) == 0
    site.look()
    assert [trial.name for trial in site.daemon.scheduler.trials()] == ["T_1"]
    assert [end["state"] for end in site.ends()] == ["finished"]


def test_a_stage_that_is_left_out_while_its_task_runs_is_run_all_the_same(
    site: Site, runs: Callable[..., None]
) -> None:
    site.run(0, stages="ab", command=LASTS)
    child = site.start()
    runs()
    assert site.run(0, stages="a", command=LASTS) == {"running": 1}
    (site.output / "T_0" / "end").touch()
    assert site.finish(child) == 0
    site.look()
    assert site.states()["a"] == "finished"
    assert [end["stage"] for end in site.ends()] == ["a", "b"]
    assert site.daemon.is_done


@pytest.mark.parametrize(("is_forced", "is_edited"), [(False, False), (True, False), (False, True)])
def test_a_pruned_trial_stays_so_and_goes_on_in_a_new_task_when_a_later_one_is_worse(
    site: Site, runs: Callable[..., None], is_forced: bool, is_edited: bool
) -> None:
    rule = StageOptions(executor="fake", batch={"lease": 50}, prune=Rule((3,), keep=1 / 2))
    site.run(0, 1, command=LASTS, options={"a": rule}, is_forced=is_forced)
    for number in (0, 1):
        child = site.start(number=number)
        runs(name=f"T_{number}")
        (site.output / f"T_{number}" / "metrics.csv").write_text(f"step,loss\n3,{number}\n")
        site.look()
        assert site.finish(child, number=number) == 0
        site.look()
    assert (site.state("T_0"), site.state("T_1")) == (JobState.SUBMITTED, JobState.PRUNED)
    assert len(site.system.batches) == 2
    job = "2"
    if is_edited:
        site.run(0, 1, command=LASTS, options={"a": replace(rule, timeout_s=600)})
        assert (site.state("T_0"), site.state("T_1")) == (JobState.SUBMITTED, JobState.PRUNED)
        job = "3"
    child = site.start(job)
    runs(2, job=job)
    (site.output / "T_0" / "end").touch()
    assert site.finish(child, job) == 0
    site.look()
    assert (site.state("T_0"), site.state("T_1")) == (JobState.COMPLETED, JobState.PRUNED)
    assert site.daemon.is_done


def test_what_cannot_be_read_fails_the_trial_with_the_reason(site: Site) -> None:
    site.run(0)
    (site.output / ".runner" / "plans" / "p1.env").unlink()
    assert site.finish(site.start()) == 1
    site.look()
    assert site.states() == {"a": "failed"}
    assert "p1.env: No such file or directory" in site.events[-1].line


def test_a_task_that_fails_beside_an_attempt_of_its_own_adds_none(site: Site, runs: Callable[..., None]) -> None:
    site.run(0, command=LASTS)
    child = site.start()
    runs()
    child.kill()
    child.wait()
    with (site.folder() / "0.0.jsonl").open("a") as claim:
        claim.write('{"over": "failed", "fault": "its plan was damaged"}\n')
    site.look()
    assert site.states() == {"a": "failed"}
    assert site.events[-1].line == "its plan was damaged"
    assert [item.number for item in records.read_attempts(f"{site.output}/T_0").attempts] == [1]


def test_a_process_that_is_in_no_task_says_so(site: Site) -> None:
    site.run(0)
    command = [sys.executable, "-m", "runner.task", "run", str(site.folder())]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{site.output / 'packages'}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"run: error: {site.folder()}: not in a task of fake.\n")


def test_a_batch_that_is_over_says_so(site: Site) -> None:
    command = [sys.executable, "-m", "runner.task", "run", str(site.output / "gone")]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "this batch is over, or was taken back" in done.stderr


def test_a_script_runs_in_the_environment_of_whoever_typed_run(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OF_USER", "ü and 'quotes'")
    monkeypatch.setenv("SLURM_JOB_ID", "of a job in which run was typed")
    site.run(0)
    script = tmp_path / "script.sh"
    script.write_text('printf "%s|" "$OF_USER" "$SLURM_JOB_ID" "${OF_NODE-unset}" "$RUNNER_TASK" "$@"\n')
    command = [sys.executable, "-m", "runner.task", "enter", str(site.folder()), str(script), "of the script"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "7", "OF_NODE": "x"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "ü and 'quotes'|7|unset|1|of the script|"


def test_a_task_that_is_still_in_the_queue_is_believed_to_run(site: Site) -> None:
    site.run(0)
    site.system.run(FIRST)
    site.look(8)
    assert site.states() == {"a": "submitted"}
    assert site.system.rows[FIRST].state is TaskState.RUNNING
    site.system.lose(FIRST, Why.NODE_LOST)
    site.look(4)
    assert len(site.system.batches) == 2
