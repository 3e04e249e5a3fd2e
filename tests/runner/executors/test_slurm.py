"""Slurm's answers, as they were recorded, and its refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from runner.executors.batch import (
    Batch,
    FullError,
    Gone,
    Here,
    RefusedError,
    Seen,
    TaskId,
    TaskState,
    UnreachableError,
    Why,
)
from runner.executors.slurm import SlurmExecutor, SlurmKeys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runner.executors.conftest import Fakes

SLURM = SlurmExecutor()


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch("run-0123456789ab", 3, 0, 1, str(tmp_path), str(tmp_path), "true", "true", SlurmKeys())


def test_an_array_is_submitted_by_its_name(fakes: Fakes, batch: Batch) -> None:
    for output, job in {"123\n": "123", "124;cluster\n": "124", "sbatch: a remark of the site\n125\n": "125"}.items():
        fakes.answer("sbatch", output)
        assert SLURM.submit(batch, "#!/bin/bash\n") == job
    assert fakes.arguments("sbatch") == ["--parsable", "--job-name=run-0123456789ab"]
    assert (fakes.directory / "sbatch.input").read_text() == "#!/bin/bash\n"


@pytest.mark.parametrize(
    "complaint",
    [
        "sbatch: error: invalid partition specified: database\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
        "sbatch: error: Invalid generic resource (gres) specification",
        "sbatch: error: Batch job submission failed: Invalid feature specification",
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
        "sbatch: error: Batch job submission failed: Pathname of a file, directory or other parameter too long",
        "sbatch: error: Batch job submission failed: Invalid job array specification",
        "sbatch: unrecognized option '--nosuch'",
        "sbatch: error: QOSMaxCpuPerJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
        "policy (job submit limit, user's size and/or time limits)",
        "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
        "",
    ],
)
def test_what_will_never_be_taken_is_refused(fakes: Fakes, batch: Batch, complaint: str) -> None:
    fakes.answer("sbatch", complaint=complaint, code=1)
    with pytest.raises(RefusedError, match=r"^sbatch: "):
        SLURM.submit(batch, "")


@pytest.mark.parametrize(
    "complaint",
    [
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
        "sbatch: error: Batch job submission failed: Resource temporarily unavailable",
        "sbatch: error: Batch job submission failed: Slurm backup controller in standby mode",
        "sbatch: error: Batch job submission failed: Required partition not available (inactive or drain)",
        "sbatch: error: Munge encode failed: Failed to connect to munged\n"
        "sbatch: error: Batch job submission failed: Protocol authentication error",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
    ],
)
def test_what_may_be_taken_later_is_no_refusal(fakes: Fakes, batch: Batch, complaint: str) -> None:
    fakes.answer("sbatch", complaint=complaint, code=1)
    with pytest.raises(UnreachableError, match=r"^sbatch: ") as told:
        SLURM.submit(batch, "")
    assert told.type is UnreachableError


@pytest.mark.parametrize(
    "complaint",
    [
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
        "accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "sbatch: error: AssocGrpSubmitJobsLimit\n"
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, size)",
    ],
)
def test_too_many_tasks_for_now_are_told_from_other_trouble(fakes: Fakes, batch: Batch, complaint: str) -> None:
    fakes.answer("sbatch", complaint=complaint, code=1)
    with pytest.raises(FullError, match=r"^sbatch: "):
        SLURM.submit(batch, "")


def test_a_submission_whose_id_cannot_be_read_may_have_worked(fakes: Fakes, batch: Batch) -> None:
    fakes.answer("sbatch", "Welcome!\n")
    with pytest.raises(UnreachableError, match="Welcome!"):
        SLURM.submit(batch, "")


def test_the_queue_tells_each_task_of_ours(fakes: Fakes, recorded: Callable[[str], str]) -> None:
    fakes.answer("squeue", recorded("squeue.txt"))
    waiting, held, running = TaskState.WAITING, TaskState.HELD, TaskState.RUNNING
    seen = sorted(SLURM.queue(), key=lambda task: task.id)
    first, second, third = ("run-a0000000000" + number for number in "123")
    assert seen == [
        Seen(TaskId("69", 0), first, held, "job requeued in held state"),
        Seen(TaskId("69", 1), first, running, node="n1"),
        Seen(TaskId("69", 2), first, running, node="n1"),
        Seen(TaskId("69", 3), first, held, "JobHeldAdmin"),
        Seen(TaskId("70", 0), second, waiting, "BeginTime"),
        Seen(TaskId("70", 1), second, waiting, "BeginTime"),
        Seen(TaskId("72", 0), third, held, "JobHeldUser"),
        Seen(TaskId("72", 1), third, held, "JobHeldUser"),
    ]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("COMPLETING", TaskState.RUNNING),
        ("CONFIGURING", TaskState.RUNNING),
        ("REQUEUE_HOLD", TaskState.HELD),
        ("REQUEUED", TaskState.WAITING),
        ("TIMEOUT", None),
    ],
)
def test_rarer_states_of_the_queue(fakes: Fakes, state: str, expected: TaskState | None) -> None:
    fakes.answer("squeue", f"1|0|{state}|None|n1|run-000000000000\n")
    assert [task.state for task in SLURM.queue()] == ([expected] if expected else [])


def test_a_queue_that_cannot_be_read_is_not_an_empty_one(fakes: Fakes) -> None:
    fakes.answer("squeue", "slurm_load_jobs error: strange\n")
    with pytest.raises(UnreachableError, match="squeue answered what cannot be read: 'slurm_load_jobs error: strange'"):
        SLURM.queue()
    complaint = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    fakes.answer("squeue", complaint=complaint, code=1)
    with pytest.raises(UnreachableError, match=r"^squeue: slurm_load_jobs error: Unable to contact slurm controller"):
        SLURM.queue()
    fakes.answer("squeue")
    assert SLURM.queue() == []


def test_jobs_are_found_in_the_queue_and_then_in_accounting(fakes: Fakes) -> None:
    fakes.answer("squeue", "72|run-a00000000003\n72|run-a00000000003\n71|other|job\n")
    fakes.answer("sacct", "50_0|run-cccccccccccc\n50_[1-2]|run-cccccccccccc\n61|run-ed7e93a442d7x\n")
    names = {"run-a00000000003", "run-cccccccccccc", "run-000000000000"}
    assert SLURM.find(names, since=1_795_286_400.0) == {"run-a00000000003": "72", "run-cccccccccccc": "50"}
    assert "--name=run-000000000000,run-cccccccccccc" in fakes.arguments("sacct")
    assert fakes.arguments("sacct")[-2:] == ["-S", "2026-11-21T18:30:00"]  # ten minutes earlier, in UTC


def test_accounting_is_not_asked_for_what_the_queue_knows(fakes: Fakes) -> None:
    fakes.answer("squeue", "72|run-a00000000003\n")
    fakes.answer("sacct")
    assert SLURM.find({"run-a00000000003"}, 0.0) == {"run-a00000000003": "72"}
    assert not fakes.was_asked("sacct")


def test_missing_accounting_hides_nothing_but_accounting_that_fails_is_told(fakes: Fakes) -> None:
    fakes.answer("squeue")
    assert SLURM.find({"run-0"}, 0.0) == {}  # no sacct at all
    fakes.answer("sacct", complaint="Slurm accounting storage is disabled\n", code=1)
    assert SLURM.find({"run-0"}, 0.0) == {}
    assert SLURM.gone({TaskId("1", 0)}, {"run-0"}, 0.0) == []
    complaint = "sacct: error: Problem talking to the database: Connection refused\n"
    fakes.answer("sacct", complaint=complaint, code=1)
    with pytest.raises(UnreachableError, match="talking to the database"):  # the job may be there
        SLURM.find({"run-0"}, 0.0)
    assert SLURM.gone({TaskId("1", 0)}, {"run-0"}, 0.0) == []


def test_why_tasks_are_gone(fakes: Fakes, recorded: Callable[[str], str]) -> None:
    fakes.answer("sacct", recorded("sacct.txt"))
    names = {"run-cccccccccccc", "run-dddddddddddd", "run-eeeeeeeeeeee", "run-ffffffffffff"}
    counts = {"50": 6, "51": 6, "57": 6, "58": 3}
    tasks = {TaskId(job, number) for job, count in counts.items() for number in range(count)}
    gone = {
        f"{task.id.job}_{task.id.number}": (task.why, task.text) for task in SLURM.gone(tasks, names, 1_795_286_000.0)
    }
    canceled = (Why.CANCELED, "CANCELLED by 0")
    assert gone == {
        "50_0": (Why.ENDED, "COMPLETED"),
        "50_1": (Why.ENDED, "FAILED, exit code 3:0"),
        "50_2": (Why.ENDED, "FAILED, exit code 0:9"),
        "50_3": canceled,
        "50_4": (Why.ENDED, "COMPLETED"),
        "50_5": (Why.ENDED, "COMPLETED"),
        **dict.fromkeys(["51_0", "51_1", "51_4", "57_0", "57_2", "57_4", "58_0", "58_1", "58_2"], canceled),
        # They were canceled alone while they waited.
        **dict.fromkeys(["51_2", "51_3", "51_5", "57_1", "57_3", "57_5"], (Why.UNNAMED, "")),
    }
    assert fakes.arguments("sacct")[-2:] == ["-j", "50,51,57,58"]


def why(fakes: Fakes, *rows: str) -> Why | None:
    """Why task 3 of job 7 is gone, by rows of sacct."""
    fakes.answer("sacct", "".join(f"{row}\n" for row in rows))
    gone = SLURM.gone({TaskId("7", 3)}, {"run-0"}, 1000.0)
    assert all(isinstance(task, Gone) and task.name == "run-0" for task in gone)
    return gone[0].why if gone else None


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("TIMEOUT", "0:0", Why.TIME_LIMIT),
        ("OUT_OF_MEMORY", "0:125", Why.OUT_OF_MEMORY),
        ("FAILED", "0:125", Why.OUT_OF_MEMORY),
        ("NODE_FAIL", "1:0", Why.NODE_LOST),
        ("PREEMPTED", "0:15", Why.PREEMPTED),
        ("CANCELLED by 1000", "0:15", Why.CANCELED),
        ("CANCELLED+", "0:0", Why.CANCELED),
        ("RUNNING", "0:0", None),
        ("PENDING", "0:0", None),
        ("REQUEUED", "0:0", None),
        ("A_WORD_OF_TOMORROW", "0:0", None),
    ],
)
def test_the_state_decides_before_the_exit_code(fakes: Fakes, state: str, code: str, expected: Why | None) -> None:
    assert why(fakes, f"7_3|{state}|{code}|1000|run-0") == expected


def test_the_newest_row_of_a_task_counts(fakes: Fakes) -> None:
    assert why(fakes, "7_3|NODE_FAIL|0:0|1000|run-0", "7_3|RUNNING|0:0|1200|run-0") is None
    assert why(fakes, "7_3|COMPLETED|0:0|1200|run-0", "7_3|NODE_FAIL|0:0|1000|run-0") == Why.ENDED


def test_a_tasks_own_row_counts_before_one_of_many_tasks(fakes: Fakes) -> None:
    assert why(fakes, "7_3|COMPLETED|0:0|1000|run-0", "7_[1-4%2]|CANCELLED by 0|0:0|1000|run-0") == Why.ENDED
    assert why(fakes, "7_3|COMPLETED|0:0|1000|run-0", "7_[1-4%2]|PENDING|0:0|1000|run-0") == Why.ENDED


def test_a_task_that_was_canceled_alone_while_it_waited_is_in_no_row(fakes: Fakes) -> None:
    assert why(fakes, "7_0|COMPLETED|0:0|1000|run-0", "7_[4-5%2]|PENDING|0:0|1000|run-0") == Why.UNNAMED
    assert why(fakes, "7_[3-5%2]|PENDING|0:0|1000|run-0") is None
    assert why(fakes, "7_0|COMPLETED|0:0|300|run-0") is None  # of another job


def test_an_id_that_was_used_before_is_another_job(fakes: Fakes) -> None:
    assert why(fakes, "7_3|COMPLETED|0:0|1000|run-other") is None
    assert why(fakes, "7_3|COMPLETED|0:0|300|run-0") is None  # long before it was submitted
    assert why(fakes, "7|COMPLETED|0:0|1000|run-0") is None


def test_garbage_of_accounting_is_no_news(fakes: Fakes) -> None:
    assert why(fakes, "sacct: fatal") is None
    assert why(fakes, "7_3|COMPLETED|0:0|Unknown|run-0") is None


AT = "slurmstepd-n1: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-22T18:57:10"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (f"{AT} ***\n", Why.CANCELED),
        (f"loading\n{AT.replace('-n1', '', 1)} ***\nThe allocation is about to end.\n", Why.CANCELED),
        (f"{AT} DUE TO TIME LIMIT ***\n", Why.TIME_LIMIT),
        (f"{AT} DUE TO PREEMPTION ***\n", Why.PREEMPTED),
        (f"{AT} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***\n", Why.NODE_LOST),
        (f"{AT} DUE TO JOB REQUEUE ***\n", Why.PREEMPTED),
        (f"{AT} DUE TO JOB REQUEUE ***\n{AT} ***\n", Why.CANCELED),
        (
            "slurmstepd: error: StepId=1020.batch exceeded memory limit (325660672 > 104857600), being killed\n"
            f"slurmstepd: error: Exceeded job memory limit\n{AT} ***\n",
            Why.OUT_OF_MEMORY,
        ),
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch. Some of it was OOM Killed.\n",
            Why.OUT_OF_MEMORY,
        ),
        ("the program says: *** JOB 12 ON n1 CANCELLED AT 1 ***\nslurmstepd: error: no such directory\n", None),
        ("", None),
    ],
)
def test_what_slurm_writes_into_a_log_tells_why_it_ended_the_task(log: str, expected: Why | None) -> None:
    assert SLURM.told_in(log) == expected


def test_tasks_are_canceled_together(fakes: Fakes) -> None:
    fakes.answer("scancel")
    SLURM.cancel("7", {0, 1, 2, 5})
    assert fakes.arguments("scancel") == ["7_[0-2,5]"]
    SLURM.cancel("7")
    assert fakes.arguments("scancel") == ["7"]


def test_canceling_what_is_over_does_not_matter_but_silence_does(fakes: Fakes) -> None:
    SLURM.cancel("7", [])  # nothing to ask
    fakes.answer("scancel", complaint="scancel: error: Kill job error on job id 7: Invalid job id specified\n", code=1)
    SLURM.cancel("7")
    complaint = "scancel: error: Kill job error on job id 7: Unable to contact slurm controller (connect failure)\n"
    fakes.answer("scancel", complaint=complaint, code=8)
    with pytest.raises(UnreachableError, match="Unable to contact slurm controller"):
        SLURM.cancel("7")


def test_the_size_of_an_array_is_the_sites(fakes: Fakes) -> None:
    fakes.answer("scontrol", "MaxArraySize            = 20001\nSchedulerParameters     = (null)\n")
    assert SLURM.max_tasks() == 20001
    fakes.answer(
        "scontrol", "MaxArraySize            = 20001\nSchedulerParameters     = bf_max=5,max_array_tasks=500,x\n"
    )
    assert SLURM.max_tasks() == 500
    fakes.answer("scontrol", complaint="slurm_load_ctl_conf error: Socket timed out on send/recv operation", code=1)
    with pytest.raises(UnreachableError, match="scontrol: slurm_load_ctl_conf error: Socket timed out"):
        SLURM.max_tasks()


@pytest.mark.parametrize(
    ("partition", "expected"), [(None, False), ("gpu", True), ("cpu,gpu", True), ("cpu", False), ("gpu-old", False)]
)
def test_gpus_are_those_of_the_partition(fakes: Fakes, partition: str | None, expected: bool) -> None:
    fakes.answer("sinfo", "cpu*|(null)\ngpu|gpu:a100:4\ngpu|gpu:h100:8\ngpu-old|(null)\n")
    assert SLURM.has_gpus(SlurmKeys(partition=partition)) is expected
    fakes.answer("sinfo", complaint="slurm_load_partitions: Unable to contact slurm controller", code=1)
    with pytest.raises(UnreachableError, match="sinfo: slurm_load_partitions: Unable to contact"):
        SLURM.has_gpus(SlurmKeys())


def test_a_process_knows_its_task() -> None:
    array = {"SLURM_JOB_ID": "10", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert SLURM.here(array) == Here(TaskId("7", 3), 0)
    assert SLURM.here({**array, "SLURM_RESTART_COUNT": "2"}) == Here(TaskId("7", 3), 2)
    assert SLURM.here({"SLURM_JOB_ID": "10"}) is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("partition", "two words", "is no name; allowed: one word"),
        ("account", "x\n#SBATCH --nodes=9", "is no name; allowed: one word"),
        ("qos", "", "is no name"),
        ("constraint", 5, "is no name"),
        ("lines", ["#SBATCH --mem=1G"], "is no option; allowed: one line, as in a script but without the mark"),
        ("lines", ["a\nb"], "is no option"),
        ("time", "soon", "is no duration"),
        ("memory", "4G", "is no amount of memory"),
    ],
)
def test_bad_keys_are_told_in_our_words(key: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SlurmKeys.model_validate({key: value})
    assert message in str(caught.value)
