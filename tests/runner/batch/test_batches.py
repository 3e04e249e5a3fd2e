"""Trials that a batch system has: how they go there, what is seen of them, and how they come back."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runner import records
from runner.batch import batchfile, claims
from runner.executors.batch import RefusedError, TaskId, TaskState, UnreachableError, Why
from runner.model import JobState
from runner.options import Retry, StageOptions
from tests.runner.batchworld import LEASE_S, HeldErrands, Site, sites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PENDING, SUBMITTED = JobState.PENDING, JobState.SUBMITTED
COMPLETED, FAILED, CANCELED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELED
INTERRUPTED = JobState.INTERRUPTED
FIRST = TaskId("1", 0)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    yield from sites(tmp_path, monkeypatch)


def claim(site: Site, job: str = "1", number: int = 0, copy: int = 0, **holder: object) -> claims.Claim:
    """A task is begun on another machine, as far as its claim says."""
    path = claims.path_of(site.folder(job), number, copy)
    assert claims._make(
        path, {"host": "n1", "boot": "b", "pid_namespace": "p", "pid": 1, "ticks": 1, "job": job} | holder
    )
    return claims.Claim(site.folder(job), number, copy)


def is_done(site: Site) -> bool:
    return site.daemon.is_done


# --- a task's life ---


def test_trials_go_as_one_array_and_are_told_of_as_they_run(site: Site) -> None:
    site.run(0, 1, 2)
    assert site.said == ["Submitted to fake: job 1, 3 tasks."]
    assert site.states("T_2") == {"a": "submitted"}
    site.through(number=1)
    site.look()
    assert site.told() == [("START", "T_1"), ("DONE", "T_1")]
    assert [site.state(f"T_{index}") for index in range(3)] == [SUBMITTED, COMPLETED, SUBMITTED]


def test_nothing_is_left_of_an_array_whose_tasks_are_over(site: Site) -> None:
    site.run(0)
    site.through()
    site.look()
    assert site.daemon.is_done
    assert not list(batchfile.directory_of(site.output).iterdir())


def test_a_failure_blocks_what_comes_after_it_as_on_one_machine(site: Site) -> None:
    site.run(0, stages="ab", command="echo no; false")
    site.through()
    site.look()
    assert site.states() == {"a": "failed", "b": "blocked"}
    assert [(event.kind.value, event.job.stage, event.line) for event in site.events[1:]] == [
        ("FAIL", "a", "no"),
        ("BLOCK", "b", ""),
    ]


def test_stages_for_different_executors_go_one_after_the_other(site: Site) -> None:
    here = StageOptions()
    site.run(0, stages="abc", options={"b": here})
    site.through()
    site.look()
    assert site.states() == {"a": "finished", "b": "running", "c": "pending"}
    site.executor.end(site.world.find("T_0", "b"), 0)
    site.settle()
    assert site.states()["c"] == "submitted"
    site.through("2")
    site.look()
    assert set(site.states().values()) == {"finished"}
    assert site.daemon.is_done


def test_tries_again_are_made_within_the_task(site: Site) -> None:
    again = StageOptions(executor="fake", batch={"lease": LEASE_S}, retry=Retry(1, 0.0))
    site.run(0, command="cd $RUNNER_OUTPUT; test -e again || { touch again; false; }", options={"a": again})
    site.through()
    site.look()
    assert [end["state"] for end in site.ends()] == ["failed", "finished"]
    assert len(site.system.batches) == 1


# --- tasks that are gone ---


def test_a_task_that_vanished_before_it_began_is_submitted_again(site: Site) -> None:
    site.run(0, 1)
    site.system.lose(FIRST)
    site.look(4)
    assert site.state() is SUBMITTED
    assert [batch.count for batch in site.system.batches.values()] == [2, 1]
    assert site.begun()  # nobody can begin the first one any more


def test_what_vanishes_again_and_again_is_given_up(site: Site) -> None:
    site.run(0, told={"resumes": 2})
    for job in ("1", "2", "3"):
        site.system.lose(TaskId(job, 0), Why.NODE_LOST)
        site.look(4)
    assert site.state() is INTERRUPTED
    assert len(site.system.batches) == 3
    assert site.daemon.is_done


def test_one_look_at_which_a_task_is_missing_changes_nothing(site: Site) -> None:
    site.run(0)
    row = site.system.rows.pop(FIRST)
    site.look()
    site.system.rows[FIRST] = row
    site.look(3)
    assert site.state() is SUBMITTED
    assert len(site.system.batches) == 1


def test_what_an_administrator_canceled_before_it_began_stays_canceled(site: Site) -> None:
    site.run(0, stages="ab")
    site.system.lose(FIRST, Why.CANCELED)
    site.look(3)
    assert site.states() == {"a": "canceled", "b": "blocked"}
    assert site.daemon.is_done


def test_what_an_administrator_canceled_stays_so_for_the_next_daemon_until_it_is_asked_for(site: Site) -> None:
    site.run(0, 1)
    site.system.lose(FIRST, Why.CANCELED)
    site.look(3)
    site.commands.tend()
    site.begin()
    assert (site.state(), site.state("T_1")) == (CANCELED, SUBMITTED)
    site.look(3)
    assert len(site.system.batches) == 1
    site.run(0)
    site.begin()
    assert site.state() is SUBMITTED


def test_what_an_administrator_canceled_is_kept_when_the_disk_has_room_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_entry: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    site.run(0)
    site.system.lose(FIRST, Why.CANCELED)
    site.look(3)
    with monkeypatch.context() as patch:
        patch.setattr(site.journal, "append", refuse)
        site.commands.tend()
    site.commands.tend()
    site.commands.tend()
    assert sum(entry["kind"] == "cancel" for entry in site.journal.entries()) == 1
    site.begin()
    assert site.state() is CANCELED


def test_what_accounting_has_no_row_of_though_it_has_others_of_the_job_was_canceled(site: Site) -> None:
    site.run(0)
    site.system.lose(FIRST, Why.UNNAMED)
    site.look(2)
    assert site.state() is SUBMITTED  # accounting may be late
    site.look(2)
    assert site.state() is CANCELED


def test_a_script_that_failed_of_which_accounting_is_late_has_failed(site: Site) -> None:
    site.run(0)
    (site.folder() / "0.log").write_text("module: command not found\n")
    site.system.lose(FIRST, Why.UNNAMED)
    site.look(4)
    assert site.state() is FAILED


def test_what_vanished_before_it_began_is_what_the_batch_system_says_of_such_tasks(site: Site) -> None:
    site.system.vanished = Why.CANCELED
    site.run(0, stages="ab")
    site.system.lose(FIRST)
    site.look(4)
    assert site.states() == {"a": "canceled", "b": "blocked"}
    assert site.daemon.is_done


# The task dies, and all that is left of its attempt with it.
DIES = "until grep -q START $RUNNER_OUTPUT/../.runner/batches/*/0.0.jsonl; do sleep 0.02; done; kill -9 $PPID 0"
SAVES = "printf 'step\\n5\\n' > $RUNNER_OUTPUT/metrics.csv; " + DIES


def cut_off(site: Site, why: Why | None, command: str = DIES, job: str = "1") -> None:
    """A task begins, and is gone without a word in the midst of its first attempt."""
    site.run(0, stages="ab", command=command)
    site.start(job).wait(30)
    site.system.lose(TaskId(job, 0), why)
    site.look(4)


@pytest.mark.parametrize("why", [Why.NODE_LOST, Why.PREEMPTED, Why.ENDED, None])
def test_what_was_cut_off_goes_on_in_a_new_task(site: Site, why: Why | None) -> None:
    site.system.vanished = Why.CANCELED  # only of those that never began
    cut_off(site, why)
    assert site.states() == {"a": "submitted", "b": "pending"}
    assert [end["state"] for end in site.ends()] == ["interrupted"]
    assert ("WAIT", "T_0") in site.told()
    assert len(site.system.batches) == 2


def test_out_of_memory_is_a_failure(site: Site) -> None:
    cut_off(site, Why.OUT_OF_MEMORY)
    assert site.states() == {"a": "failed", "b": "blocked"}
    assert site.ends()[0]["cause"] == "host-oom"
    assert site.daemon.is_done


def test_a_task_that_an_administrator_killed_stays_canceled(site: Site) -> None:
    cut_off(site, Why.CANCELED)
    assert site.states() == {"a": "canceled", "b": "blocked"}


def test_the_time_limit_ends_what_made_no_progress(site: Site) -> None:
    cut_off(site, Why.TIME_LIMIT)
    assert site.states() == {"a": "timeout", "b": "blocked"}
    assert site.ends()[0]["cause"] == "timeout"


def test_the_time_limit_lets_what_made_progress_go_on(site: Site) -> None:
    cut_off(site, Why.TIME_LIMIT, SAVES)
    assert site.states()["a"] == "submitted"
    site.start("2").wait(30)  # and gets no further
    site.system.lose(TaskId("2", 0), Why.TIME_LIMIT)
    site.look(4)
    assert site.states()["a"] == "timeout"


def test_what_is_cut_off_again_and_again_is_given_up(site: Site) -> None:
    site.run(0, command=DIES, told={"resumes": 1})
    for job in ("1", "2"):
        site.start(job).wait(30)
        site.system.lose(TaskId(job, 0), Why.NODE_LOST)
        site.look(4)
    assert site.state() is INTERRUPTED
    assert site.told()[-1] == ("INTERRUPT", "T_0")
    site.do("retry", words=["T_0"])
    assert site.state() is SUBMITTED


@pytest.mark.parametrize("why", [Why.ENDED, None])
def test_a_script_that_fails_is_told_with_its_last_words(site: Site, why: Why | None) -> None:
    site.system.vanished = Why.CANCELED
    site.run(0)
    (site.folder() / "0.log").write_text("module: command not found\n")
    site.system.lose(FIRST, why)
    site.look(4)
    assert site.state() is FAILED
    assert site.events[-1].line == "the script of its task failed: module: command not found"
    assert [end["line"] for end in site.ends()] == [site.events[-1].line]
    assert records.read_stat(f"{site.output}/T_0") == {"a": FAILED}
    (log,) = (site.output / "T_0").glob("log.a.*")
    assert log.read_text() == "module: command not found\n"
    site.run(0)  # it is due again
    site.through("2")
    site.look()
    assert site.state() is COMPLETED


@pytest.mark.parametrize("why", [Why.ENDED, None])
def test_what_the_batch_system_wrote_itself_is_no_failure_of_the_script(site: Site, why: Why | None) -> None:
    site.run(0, stages="ab")
    (site.folder() / "0.log").write_text("fake: canceled\n")
    site.system.lose(FIRST, why)
    site.look(4)
    assert site.states() == {"a": "canceled", "b": "blocked"}


@pytest.mark.parametrize("why", [Why.ENDED, None])
def test_what_the_batch_system_wrote_itself_tells_what_accounting_does_not(site: Site, why: Why | None) -> None:
    site.run(0, command=DIES)
    site.start().wait(30)
    (site.folder() / "0.log").write_text("fake: out of memory\n")
    site.system.lose(FIRST, why)
    site.look(4)
    assert site.state() is FAILED
    assert site.ends()[0]["cause"] == "host-oom"
    assert len(site.system.batches) == 1


@pytest.mark.parametrize("why", [Why.ENDED, None])
def test_what_was_warned_of_its_time_limit_goes_on(site: Site, why: Why | None) -> None:
    site.run(0, command=DIES)
    site.start().wait(30)
    (site.folder() / "0.log").write_text("fake: canceled\n")
    site.system.lose(FIRST, why)
    site.look(4)
    assert site.state() is SUBMITTED


def test_a_script_that_ends_without_running_the_trial_is_not_begun_again_and_again(site: Site) -> None:
    site.run(0, stages="ab")
    site.system.lose(FIRST, Why.ENDED)
    site.look(4)
    assert site.states() == {"a": "failed", "b": "blocked"}
    assert site.events[-2].line.startswith("its task ended before the trial began; do its hosts see ")
    assert len(site.system.batches) == 1


# --- a task that is begun twice ---


def test_a_task_that_ended_by_itself_cannot_be_begun_again(site: Site) -> None:
    """A batch system puts what it preempts back into its queue, also when it has ended in the meantime."""
    site.run(0, 1, command="exit 75")
    site.through()
    site.look()
    assert site.state() is SUBMITTED
    ends = site.ends()
    assert site.finish(site.start(restart=1)) == 0
    assert "another copy" in site.log()
    assert site.ends() == ends


def test_a_copy_that_may_still_live_is_waited_for(site: Site) -> None:
    site.run(0, 1, told={"lease": 100})
    holder = claim(site)
    site.system.lose(FIRST, Why.NODE_LOST)
    site.look(2)
    assert holder.is_lost  # it ends what it runs as soon as it sees that
    site.look()
    assert site.state() is SUBMITTED
    site.begin()
    site.look(2)
    assert len(site.system.batches) == 1
    site.look(5)
    assert len(site.system.batches) == 2


# --- the next daemon ---


def test_a_trial_that_went_on_elsewhere_is_not_taken_from_there_by_its_earlier_task(site: Site) -> None:
    site.run(0, 1, command="exit 75")
    site.through()
    site.look()
    for _ in range(2):
        site.begin()
        site.look(4)
    assert len(site.system.batches) == 2
    assert site.states() == {"a": "submitted"}
    site.through("2")
    site.look()
    assert len(site.system.batches) == 3


@pytest.mark.parametrize("step", ["intent", "lock", "submitted", "noted"])
def test_a_kill_at_any_step_of_a_submission_loses_nothing_and_submits_nothing_twice(site: Site, step: str) -> None:
    site.hold()
    site.run(0)
    (folder,) = site.folders
    if step != "intent":
        (folder / "lock").touch()
    if step in {"submitted", "noted"}:
        (array,) = site.daemon._batches._desks["fake"].waiting
        from runner.batch.script import batch_of

        with batchfile.submitting(folder) as descriptor:
            batch = batch_of(folder, array.intent, array.keys)
            job = site.system.submit(batch, site.system.script(batch), descriptor)
        if step == "noted":
            batchfile.note_job(folder, job)
    HeldErrands.is_held = False
    site.begin()
    site.settle()
    assert len(site.system.batches) == 1
    site.through()
    site.look()
    assert site.state() is COMPLETED
    assert len(site.system.batches) == 1


def test_while_an_earlier_daemons_command_lives_nothing_is_submitted(site: Site) -> None:
    site.hold()
    site.run(0)
    with batchfile.submitting(site.folders[0]):
        site.begin()
        HeldErrands.is_held = False
        site.settle()
        assert not site.system.batches
        assert "still being submitted" in site.said[-1]
    site.look()
    assert len(site.system.batches) == 1


def test_a_submission_whose_answer_was_lost_is_found_by_its_name(site: Site) -> None:
    site.system.loses_answer = True
    site.run(0)
    site.look()
    assert len(site.system.batches) == 1
    site.through()
    site.look()
    assert site.state() is COMPLETED


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_submission_whose_answer_was_lost_is_canceled_when_it_is_taken_back(site: Site, is_killed: bool) -> None:
    site.system.loses_answer = True
    site.run(0)
    assert site.system.rows
    site.do("cancel", words=["T_0"])
    assert not is_done(site)
    if is_killed:
        site.begin()
    site.look()
    assert is_done(site)
    assert not site.system.rows
    assert not site.folders


def test_a_submission_that_failed_is_not_tried_again_for_nobody(site: Site) -> None:
    site.system.fault = UnreachableError("sbatch: connect failure.")
    site.run(0)
    site.do("cancel", words=["T_0"])
    site.system.fault = None
    site.look()
    assert is_done(site)
    assert not site.system.batches
    assert not site.folders


def test_what_a_killed_daemon_left_half_made_is_cleared_away(site: Site) -> None:
    folder = batchfile.directory_of(site.output) / batchfile.new_name()
    folder.mkdir(parents=True)
    (folder / "batch.json.tmp").write_text("{")
    site.begin()
    assert not folder.exists()


def test_a_file_that_cannot_be_read_is_named_with_what_to_do(site: Site) -> None:
    site.run(0)
    path = site.folders[0] / "batch.json"
    path.write_text("{")
    with pytest.raises(batchfile.DamagedBatchError, match=r"batch\.json cannot be read .* remove its directory"):
        site.begin()


# --- words ---


@pytest.mark.parametrize("word", ["pause", "stop", "cancel"])
def test_what_has_not_begun_is_taken_back(site: Site, word: str) -> None:
    site.run(0, 1)
    site.do(word, words=["T_*"] if word == "cancel" else None)
    site.settle()
    assert site.system.canceled[-1][0] == "1"
    assert not site.system.rows
    assert {site.state("T_0"), site.state("T_1")} == {CANCELED if word == "cancel" else PENDING}
    assert not site.folders


def test_what_was_paused_is_submitted_again_when_it_goes_on(site: Site) -> None:
    site.run(0, 1)
    site.do("pause")
    site.do("resume")
    assert site.states() == {"a": "submitted"}
    assert len(site.system.batches) == 2


def test_nobody_leaves_before_the_batch_system_has_heard_what_is_taken_back(site: Site) -> None:
    site.run(0)
    HeldErrands.is_held = True
    site.do("stop")
    assert not is_done(site)
    HeldErrands.is_held = False
    site.settle()
    assert site.daemon.is_done
    assert site.system.canceled == [("1", None)]


def test_what_is_taken_back_while_it_is_submitted_is_canceled_then(site: Site) -> None:
    site.hold()
    site.run(0)
    site.do("stop")
    site.settle()
    assert not is_done(site)
    HeldErrands.is_held = False
    site.settle()
    assert site.daemon.is_done
    assert not site.system.rows


def test_a_task_that_begins_while_it_is_taken_back_is_told_to_end(site: Site, until: Callable[..., None]) -> None:
    site.run(0, command="sleep 60")
    child = site.start()
    until(lambda: site.begun(), site.log)
    site.look()

    def runs() -> bool:
        site.look()
        return site.states() == {"a": "running"}

    until(runs, site.log)
    site.do("cancel", words=["T_0"])
    assert site.finish(child) == 0
    site.look()
    assert site.state() is CANCELED
    assert site.daemon.is_done


def test_one_trial_of_a_task_can_be_ended_alone(site: Site) -> None:
    site.run(0, 1, told={"pack": 2})
    holder = claim(site)
    site.system.run(FIRST)
    for index in range(2):
        holder.tell(["START", f"T_{index}", "a", 0.0, "n1 cpu 0", 0.0, None, 1, "log.a.1", "", ""])
    site.look()
    site.do("cancel", words=["T_0"])
    site.look(10)
    assert site.system.canceled == []
    site.do("cancel", words=["T_1"])
    site.look(10)
    assert site.system.canceled[-1] == ("1", (0,))


@pytest.mark.parametrize(
    "options", [{"batch": {"lease": LEASE_S, "memory": "2GiB"}}, {"timeout_s": 60.0}, {"executor": "local"}]
)
def test_what_nobody_has_begun_goes_by_the_options_that_the_file_has_now(
    site: Site, options: dict[str, Any], until: Callable[..., None]
) -> None:
    site.run(0, 1, command="sleep 60")
    site.start()
    until(site.begun, site.log)
    before = StageOptions(executor="fake", batch={"lease": LEASE_S})
    assert site.run(0, 1, options={"a": replace(before, **options)}, command="sleep 60")["changed"] == 1
    assert site.system.canceled == [("1", (1,))]
    if options.get("executor") == "local":
        assert site.state("T_1") is JobState.RUNNING
        return
    assert len(site.system.batches) == 2
    for _ in range(2):  # also a later daemon leaves it alone
        site.begin()
        site.look()
    assert len(site.system.batches) == 2
    assert site.state("T_1") is SUBMITTED


def test_a_trial_that_the_file_no_longer_has_is_withdrawn(site: Site) -> None:
    site.run(0, 1)
    assert site.run(1) == {"waiting": 1, "dropped": 1}
    assert site.system.canceled == [("1", (0,))]
    site.through(number=1)
    site.look()
    assert site.daemon.is_done
    assert len(site.system.batches) == 1


def test_what_is_changed_before_it_began_is_submitted_anew_and_the_rest_stays(site: Site) -> None:
    site.run(0, 1)
    site.through()
    site.look()
    assert site.run(0, 1, command="echo other") == {"finished": 1, "changed": 1}
    assert site.system.canceled == [("1", None)]
    assert site.states("T_1") == {"a": "submitted"}
    site.through("2")
    assert (site.output / "T_1").is_dir()


def test_an_unchanged_file_changes_nothing(site: Site) -> None:
    site.run(0, 1)
    assert site.run(0, 1) == {"waiting": 2}
    assert len(site.system.batches) == 1


def test_force_runs_once_more_what_is_finished(site: Site) -> None:
    site.run(0)
    site.through()
    site.look()
    site.run(0, is_forced=True)
    site.through("2")
    site.look()
    assert [end["state"] for end in site.ends()] == ["finished", "finished"]
    assert site.daemon.is_done


def test_a_daemon_that_leaves_lets_batch_systems_go_on(site: Site) -> None:
    site.run(0)
    site.daemon.leave()
    site.settle()
    assert site.daemon.is_done
    assert site.system.canceled == []
    site.through()
    site.begin()
    site.look()
    assert site.state() is COMPLETED


# --- several at once in one allocation ---


def test_trials_that_share_a_task_run_side_by_side(site: Site) -> None:
    meet = "touch $RUNNER_OUTPUT/here; until [ $(ls ../*/here 2>/dev/null | wc -l) = 3 ]; do sleep 0.05; done"
    site.run(0, 1, 2, 3, told={"pack": 3}, command=f"cd $RUNNER_OUTPUT; {meet}")
    assert [batch.count for batch in site.system.batches.values()] == [2]
    site.through()
    site.look()
    assert [site.state(f"T_{index}") for index in range(4)] == [COMPLETED] * 3 + [SUBMITTED]


# --- weather ---


def test_a_batch_system_that_does_not_answer_is_asked_again(site: Site) -> None:
    site.system.fault = UnreachableError("squeue: connect failure")
    site.run(0)
    site.look(3)
    assert site.said == ["fake: squeue: connect failure. It is asked again; what runs goes on."]
    (place,) = site.daemon._batches.standing()
    assert place[2] == "running: 0 tasks; waiting: 1 not submitted yet. squeue: connect failure"
    site.system.fault = None
    site.look()
    assert site.said[1:] == ["fake answers again.", "Submitted to fake: job 1, 1 task."]


def test_a_full_queue_keeps_nobody_from_looking_at_what_runs(site: Site) -> None:
    site.system.most = site.system.room = 1
    site.run(0, 1)
    assert site.states() == {"a": "submitted"}
    site.through()
    site.look(3)
    assert site.state() is COMPLETED
    assert len([text for text in site.said if "QOSMax" in text]) == 1
    site.system.room = 2
    site.look(2)
    assert len(site.system.batches) == 2


def test_an_array_for_which_there_is_no_room_is_submitted_in_parts(site: Site) -> None:
    site.system.queue_room = 3
    site.run(*range(7))
    site.look()
    assert [batch.count for batch in site.system.batches.values()] == [2, 1]
    assert len([text for text in site.said if "QOSMax" in text]) == 1
    done = 0
    while not site.daemon.is_done:
        jobs = list(site.system.batches.items())[done:]
        done += len(jobs)
        for job, batch in jobs:
            for number in range(batch.count):
                site.through(job, number)
        site.look(2)
    assert [site.state(f"T_{number}") for number in range(7)] == [COMPLETED] * 7
    assert all(len(site.ends(f"T_{number}")) == 1 for number in range(7))
    assert not site.folders


@pytest.mark.parametrize("half", [1, 2])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_trial_of_an_array_whose_parts_cannot_be_written_is_submitted_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, half: int, fault: BaseException
) -> None:
    write, written = batchfile.write, []

    def fails(folder: Path, intent: batchfile.Intent) -> None:
        written.append(folder)
        if len(written) == 1 + half:
            raise fault
        write(folder, intent)

    site.system.queue_room = 1
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(batchfile, "write", fails)
        site.run(0, 1)
    if isinstance(fault, KeyboardInterrupt):  # it was killed there
        site.begin()
    for job in ("1", "2"):
        site.look(2)
        site.through(job)
    site.look(2)
    assert len(site.system.batches) == 2
    assert [len(site.ends(name)) for name in ("T_0", "T_1")] == [1, 1]
    assert site.daemon.is_done


def test_what_is_never_taken_fails_with_the_reason(site: Site) -> None:
    site.system.refusal = RefusedError("sbatch: Invalid partition name specified")
    site.run(0, 1)
    assert [site.state("T_0"), site.state("T_1")] == [FAILED, FAILED]
    assert site.events[0].line == "sbatch: Invalid partition name specified"
    assert site.daemon.is_done
    assert not site.folders


FAULTS = [
    OSError(errno.ENOSPC, "No space left on device"),
    KeyError("JobID"),
    AssertionError(),
    ValueError("no number"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("is_running", [False, True])
def test_an_executor_that_breaks_does_not_end_the_daemon(site: Site, fault: Exception, is_running: bool) -> None:
    if is_running:
        site.run(0)
    site.system.fault = fault
    if not is_running:
        site.run(0)
    site.look(3)
    assert site.state() is SUBMITTED
    assert type(fault).__name__ in site.said[-1] or "No space left" in site.said[-1]
    site.system.fault = None
    site.look(2)
    site.through()
    site.look()
    assert site.state() is COMPLETED


def test_a_full_disk_delays_a_submission(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "batch.json")

    with monkeypatch.context() as patch:
        patch.setattr(batchfile, "_replace", full)
        site.run(0, 1)
        site.look()
        assert "No space left on device" in site.said[0]
        assert not site.system.batches
    site.look(2)
    assert [batch.count for batch in site.system.batches.values()] == [2]


def test_records_that_are_damaged_fail_their_own_trial_alone(site: Site) -> None:
    site.run(0, 1, command=DIES)
    site.start().wait(30)
    (site.output / "T_0" / "attempts").write_text("damage\n")
    site.system.lose(FIRST, Why.NODE_LOST)
    site.look(4)
    assert [site.state("T_0"), site.state("T_1")] == [FAILED, SUBMITTED]
    assert "attempts, line 1" in site.events[-1].line


def test_where_nothing_runs_the_reasons_are_told(site: Site) -> None:
    site.run(0, 1, 2)
    site.system.run(FIRST)
    site.look()
    place = site.daemon.places()[-1]
    assert place[0] == "fake"
    assert place[2] == "running: 1 task; waiting: 2 Priority"
    assert site.system.rows[TaskId("1", 1)].state is TaskState.WAITING
