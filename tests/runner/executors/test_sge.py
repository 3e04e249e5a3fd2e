"""Grid Engine's answers, as they were recorded, and its refusals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from runner.executors.batch import Batch, Here, RefusedError, Seen, TaskId, TaskState, UnreachableError, Why
from runner.executors.sge import SgeExecutor, SgeKeys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runner.executors.conftest import Fakes

SGE = SgeExecutor()
DOWN = (
    "error: commlib error: got select error (Connection refused)\n"
    'unable to send message to qmaster using port 6999 on host "vm": got send error\n'
)


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch("run-0123456789ab", 3, 0, 1, str(tmp_path), str(tmp_path), "true", "true", SgeKeys())


def test_an_array_is_submitted_by_its_name_whatever_the_script_says(fakes: Fakes, batch: Batch) -> None:
    warning = 'warning: "-N" option has already been set, overriding previous setting '
    for output, job in {"45.1-6:1\n": "45", f"{warning}{warning}34.1-4:1\n": "34", "12\n": "12"}.items():
        fakes.answer("qsub", output)
        assert SGE.submit(batch, "#!/bin/bash\n") == job
    assert fakes.arguments("qsub") == ["-terse", "-b", "n", "-N", "run-0123456789ab", "-t", "1-3"]
    assert (fakes.directory / "qsub.input").read_text() == "#!/bin/bash\n"


@pytest.mark.parametrize(
    "complaint",
    [
        'Unable to run job: Job was rejected because job requests unknown queue "nosuch.q"\nExiting.',
        'Unable to run job: unknown resource "foo"\nExiting.',
        'Unable to run job: job rejected: the requested project "nosuch" does not exist\nExiting.',
        'Unable to run job: job rejected: the requested parallel environment "nope" does not exist\nExiting.',
        "Unable to run job: job rejected: you tried to submit a job with more than 75000 tasks\nExiting.",
        'Unable to run job: attribute "h_rt" is not a time value\nExiting.',
        'qsub: invalid option argument "-nosuchopt"',
        "Unable to run job: error: no suitable queues\nExiting.",
    ],
)
def test_what_will_never_be_taken_is_refused(fakes: Fakes, batch: Batch, complaint: str) -> None:
    fakes.answer("qsub", complaint=complaint, code=1)
    with pytest.raises(RefusedError, match=r"^qsub: ") as caught:
        SGE.submit(batch, "")
    assert not str(caught.value).endswith("Exiting.")


@pytest.mark.parametrize(
    "complaint",
    [
        DOWN.replace("unable", "Unable to run job: unable") + "Exiting.\n",
        "Unable to run job: job rejected: only 100 jobs are allowed per user (current job count: 100)\nExiting.",
        "Unable to run job: got no response from JSV script, try again later\nExiting.",
        'error: unable to contact qmaster using port 6444 on host "x"\nUnable to run job: can\'t connect\nExiting.',
    ],
)
def test_what_may_be_taken_later_is_no_refusal(fakes: Fakes, batch: Batch, complaint: str) -> None:
    fakes.answer("qsub", complaint=complaint, code=1)
    with pytest.raises(UnreachableError, match=r"^qsub: "):
        SGE.submit(batch, "")


def test_a_submission_whose_id_cannot_be_read_may_have_worked(fakes: Fakes, batch: Batch) -> None:
    fakes.answer("qsub", "Welcome!\n")
    with pytest.raises(UnreachableError, match="Welcome!"):
        SGE.submit(batch, "")


def test_the_queue_tells_each_task_of_ours(fakes: Fakes, recorded: Callable[[str], str]) -> None:
    fakes.answer("qstat", recorded("qstat.xml"))
    seen = sorted(SGE.queue(), key=lambda task: task.id)
    states = {f"{task.id.job}.{task.id.number}": task.state for task in seen}
    assert states == {
        **dict.fromkeys(["50.0", "50.1"], TaskState.RUNNING),
        **dict.fromkeys(["50.2", "50.3"], TaskState.WAITING),
        **dict.fromkeys(["51.0", "51.1"], TaskState.HELD),
        **{f"52.{number}": TaskState.HELD for number in range(9)},
        "53.0": TaskState.WAITING,
    }
    assert seen[0] == Seen(TaskId("50", 0), "run-b00000000001", TaskState.RUNNING, node="vm")
    assert "Eqw: could not be started, which `qstat -j 51` explains" in seen[4].reason
    # All states, also where the user's own .sge_qstat says `-s r`.
    assert fakes.arguments("qstat")[:4] == ["-xml", "-s", "prs", "-u"]


@pytest.mark.parametrize(
    ("state", "row", "expected", "reason"),
    [
        ("dr", "running", TaskState.RUNNING, ""),
        ("hr", "running", TaskState.RUNNING, ""),
        ("Rt", "running", TaskState.RUNNING, ""),
        ("S", "running", TaskState.RUNNING, "suspended"),
        ("hRwq", "pending", TaskState.HELD, "held (hRwq)"),
        ("Rq", "pending", TaskState.WAITING, "queued (Rq)"),
    ],
)
def test_letters_of_the_queue(fakes: Fakes, state: str, row: str, expected: TaskState, reason: str) -> None:
    fakes.answer(
        "qstat",
        f"<job_info><queue_info><job_list state='{row}'><JB_job_number>7</JB_job_number><JB_name>run-0</JB_name>"
        f"<state>{state}</state><queue_name></queue_name><tasks>4</tasks></job_list></queue_info></job_info>",
    )
    assert SGE.queue() == [Seen(TaskId("7", 3), "run-0", expected, reason)]


def test_a_queue_that_cannot_be_read_is_not_an_empty_one(fakes: Fakes) -> None:
    fakes.answer("qstat", "<job_info><queue")
    with pytest.raises(UnreachableError, match="qstat answered what cannot be read"):
        SGE.queue()
    fakes.answer("qstat", complaint=DOWN, code=1)
    with pytest.raises(UnreachableError, match=r"^qstat: commlib error: got select error"):
        SGE.queue()
    fakes.answer("qstat", "<?xml version='1.0'?><job_info><queue_info></queue_info><job_info></job_info></job_info>")
    assert SGE.queue() == []


def test_jobs_are_found_in_the_queue_and_then_in_accounting(fakes: Fakes, recorded: Callable[[str], str]) -> None:
    fakes.answer("qstat", recorded("qstat.xml"))
    fakes.answer("qacct", recorded("qacct.txt"))
    names = {"run-b00000000003", "run-aaaaaaaaaaaa", "run-000000000000", "other", "ex-limit"}
    found = SGE.find(names, since=1_795_286_400.0)
    assert {name: found[name] for name in sorted(found) if name.startswith("run-")} == {
        "run-aaaaaaaaaaaa": "45",
        "run-b00000000003": "52",
    }
    assert fakes.arguments("qacct") == ["-j", "run-*", "-b", "202611211830"]


def test_missing_records_are_no_fault_but_accounting_that_fails_is_told(fakes: Fakes) -> None:
    fakes.answer("qstat", "<job_info/>")
    assert SGE.find({"run-0"}, 0.0) == {}  # no qacct at all
    for complaint in ("error: job name run-* not found\n", "error: /x/accounting: No such file or directory\n"):
        fakes.answer("qacct", complaint=complaint, code=1)
        assert SGE.find({"run-0"}, 0.0) == {}
        assert SGE.gone({TaskId("7", 0)}, {"run-0"}, 0.0) == []
    fakes.answer("qacct", complaint="error: can't read the file: Stale file handle\n", code=1)
    with pytest.raises(UnreachableError, match="Stale file handle"):  # the job may be there
        SGE.find({"run-0"}, 0.0)
    assert SGE.gone({TaskId("7", 0)}, {"run-0"}, 0.0) == []


def test_why_tasks_are_gone(fakes: Fakes, recorded: Callable[[str], str]) -> None:
    fakes.answer("qacct", recorded("qacct.txt"))
    names = {"run-aaaaaaaaaaaa"}
    tasks = {TaskId("45", number) for number in range(9)}
    gone = {task.id.number: task for task in SGE.gone(tasks, names, 0.0)}
    assert {number: task.why for number, task in gone.items()} == {
        0: Why.ENDED,
        1: Why.ENDED,
        2: Why.CANCELED,  # its shell was killed
        3: Why.ENDED,  # with 99, and so it was begun anew
        5: Why.ENDED,
    }  # task 4 ended with 100: it is held
    assert gone[1].text == "failed 0, exit status 3"
    assert "assumedly after job" in gone[2].text
    assert fakes.arguments("qacct") == ["-j", "45"]


@pytest.mark.parametrize(
    ("failed", "code", "ran_s", "expected"),
    [
        ("37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "137", "132s", Why.TIME_LIMIT),
        ("37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "137", "12s", Why.OUT_OF_MEMORY),
        ("100 : assumedly after job", "140  (User defined signal 2)", "5s", Why.CANCELED),
        ("100 : assumedly after job", "138  (User defined signal 1)", "5s", Why.TIME_LIMIT),
        ("100 : assumedly after job", "139  (Segmentation fault)", "5s", Why.ENDED),
        ("25  : rescheduling", "0", "5s", None),
        ("26  : opening input/output file", "0", "0s", None),
        ("0", "1", "5s", Why.ENDED),
        ("0", "140", "5s", Why.CANCELED),  # handed on by the user's own script
    ],
)
def test_what_failed_decides(
    fakes: Fakes, recorded: Callable[[str], str], failed: str, code: str, ran_s: str, expected: Why | None
) -> None:
    record = "=====" + recorded("qacct.txt").split("=====\n")[-1].join(["\n", ""])
    for key, value in {"failed": failed, "exit_status": code, "ru_wallclock": ran_s, "taskid": "4"}.items():
        record = re.sub(rf"^{key} .*$", f"{key} {value}", record, flags=re.MULTILINE)
    fakes.answer("qacct", record)
    gone = SGE.gone({TaskId("2", 3)}, {"ex-limit"}, 0.0)
    assert [task.why for task in gone] == ([expected] if expected else [])
    assert SGE.gone({TaskId("2", 3)}, {"run-other"}, 0.0) == []


def test_tasks_are_canceled_together(fakes: Fakes) -> None:
    fakes.answer("qdel")
    SGE.cancel("7", {0, 1, 2, 5})
    assert fakes.arguments("qdel") == ["7.1-3,7.6"]
    SGE.cancel("7")
    assert fakes.arguments("qdel") == ["7"]


def test_canceling_what_is_over_does_not_matter_but_silence_does(fakes: Fakes) -> None:
    SGE.cancel("7", [])  # nothing to ask
    fakes.answer("qdel", 'denied: job "7" does not exist\n', code=1)
    SGE.cancel("7")
    fakes.answer("qdel", complaint=DOWN, code=1)
    with pytest.raises(UnreachableError, match="unable to send message to qmaster"):
        SGE.cancel("7")


def test_the_size_of_an_array_is_the_sites(fakes: Fakes) -> None:
    fakes.answer("qconf", "max_aj_instances             2000\nmax_aj_tasks                 1000\n")
    assert SGE.max_tasks() == 1000
    fakes.answer("qconf", "max_aj_tasks                 0\n")
    assert SGE.max_tasks() == 75_000
    fakes.answer("qconf", complaint=DOWN, code=1)
    with pytest.raises(UnreachableError, match=r"^qconf: "):
        SGE.max_tasks()


def test_gpus_are_a_resource_of_hosts_or_queues(fakes: Fakes) -> None:
    row = "main.q@vm                      BIP   0/0/8          3.60     lx-amd64      \n"
    for resource, expected in {
        "": False,
        "\thc:gpus=0\n": True,
        "\tqc:gpus=2\n": True,
        "\thc:gpus2=1\n": False,
    }.items():
        fakes.answer("qstat", row + resource)
        assert SGE.has_gpus(SgeKeys(gpu_resource="gpus")) is expected
    assert fakes.arguments("qstat") == ["-F", "gpus"]
    fakes.answer("qstat", complaint=DOWN, code=1)
    with pytest.raises(UnreachableError, match="got select error"):
        SGE.has_gpus(SgeKeys())


def test_a_process_knows_its_task() -> None:
    assert SGE.here({"JOB_ID": "7", "SGE_TASK_ID": "4", "RESTARTED": "0"}) == Here(TaskId("7", 3), 0)
    assert SGE.here({"JOB_ID": "7", "SGE_TASK_ID": "1", "RESTARTED": "1"}) == Here(TaskId("7", 0), 1)
    assert SGE.here({"JOB_ID": "7", "SGE_TASK_ID": "undefined"}) is None
    assert SGE.here({}) is None
