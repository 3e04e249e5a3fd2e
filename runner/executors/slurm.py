"""Slurm: sbatch, squeue, sacct, scancel."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from typing import TYPE_CHECKING, ClassVar

from runner.executors import commandline, scripts
from runner.executors.batch import (
    BatchKeys,
    FullError,
    Gone,
    Here,
    RefusedError,
    Seen,
    TaskId,
    TaskState,
    UnreachableError,
    Why,
    Word,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from runner.executors.batch import Batch
    from runner.executors.commandline import Answer

_CLOCKS_S = 600.0  # by so much the clocks of the login node and the controller may differ
# UTC and seconds since the epoch whatever the user's settings; no list of tasks is cut off.
_EXACTLY = {"TZ": "UTC", "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
_WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED"})
_HELD = frozenset({"REQUEUE_HOLD", "SPECIAL_EXIT"})
_RUNNING = frozenset(
    {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
)
_WHY = {
    "COMPLETED": Why.ENDED,
    "FAILED": Why.ENDED,
    "TIMEOUT": Why.TIME_LIMIT,
    "OUT_OF_MEMORY": Why.OUT_OF_MEMORY,
    "NODE_FAIL": Why.NODE_LOST,
    "BOOT_FAIL": Why.NODE_LOST,
    "LAUNCH_FAILED": Why.NODE_LOST,
    "RECONFIG_FAIL": Why.NODE_LOST,
    "PREEMPTED": Why.PREEMPTED,
    "CANCELLED": Why.CANCELED,
    "DEADLINE": Why.CANCELED,
    "REVOKED": Why.CANCELED,
}
_LATER = re.compile(
    "unable to (?:contact|resolve|connect)|connect failure|not responding|timed out|temporarily|try again|standby mode"
    "|connection (?:refused|reset|closed)|communication|transport endpoint|zero bytes|unexpected message|persist_?conn"
    "|problem talking to|munge[_d ]|authentication|no space left|configuration source|partition not available",
    re.IGNORECASE,
)
_FULL = re.compile(r"submit\w*limit", re.IGNORECASE)
# A full queue, too, unless the line before it names a limit that the job itself exceeds.
_POLICY = re.compile("violates accounting/QOS policy", re.IGNORECASE)
_OWN_LIMIT = re.compile(r"\b(?:QOS|Assoc)\w*(?:Limit|Max|Min|PerJob)\w*")
_NOT_THERE = re.compile("invalid job id|already complet", re.IGNORECASE)
# What slurmstepd writes into the log of a task that it ends.
_TOO_LARGE = re.compile(r"^slurmstepd\S* error: .*(?:exceeded \w* ?memory limit|oom.kill)", re.MULTILINE)
_ENDED = re.compile(r"^slurmstepd\S* error: \*\*\* JOB .* CANCELLED AT \S+(?: DUE TO ([A-Z ]+))?", re.MULTILINE)
_REASON = {
    "TIME LIMIT": Why.TIME_LIMIT,
    "PREEMPTION": Why.PREEMPTED,
    "JOB REQUEUE": Why.PREEMPTED,
    "NODE FAILURE": Why.NODE_LOST,
}


class SlurmKeys(BatchKeys):
    """What params.yaml may say of Slurm."""

    own: ClassVar[re.Pattern[str]] = re.compile(r"-[Jaoe]|--(?:job-name|array|output|error|open-mode)\b")
    partition: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None


class SlurmExecutor:
    """Drives Slurm.

    TERM comes to the script's shell alone `ahead` of the time limit, up to a minute earlier; to every process at the
    limit, at preemption and at scancel, and the site's KillWait (mostly 30 s) later KILL.
    """

    keys: type[BatchKeys] = SlurmKeys
    vanished: Why | None = None  # what was canceled has a record; the newest jobs are lost when the controller dies

    def script(self, batch: Batch) -> str:
        """The script of an array."""
        if "\\" in batch.log_directory:  # with one Slurm takes %a as it stands
            opening = scripts.log_into(batch, "$SLURM_ARRAY_TASK_ID")
            return scripts.compose(batch, "#SBATCH", _directives(batch, "/dev/null"), opening)
        output = f"{batch.log_directory.replace('%', '%%')}/%a.log"
        return scripts.compose(batch, "#SBATCH", _directives(batch, output))

    def submit(self, batch: Batch, script: str, inherited: int | None = None) -> str:
        """Submits an array; returns its job's id. sbatch keeps the descriptor `inherited` open.

        Raises:
            RefusedError: it will never be taken.
            FullError: for now the user, or whoever pays, has too many tasks.
            UnreachableError: Slurm does not answer, or takes nothing now.
        """
        arguments = ["sbatch", "--parsable", f"--job-name={batch.name}"]
        answer = commandline.ask(arguments, script, batch.cwd, inherited)
        job = re.search(r"^(\d+)(?:;.*)?$", answer.output, re.MULTILINE)
        if answer.code == 0 and job:
            return job[1]
        if answer.code and _is_full(answer.complaint):
            raise FullError(answer.message)
        if answer.code == 0 or _LATER.search(answer.complaint):
            raise UnreachableError(answer.message)
        raise RefusedError(answer.message)

    def queue(self) -> Sequence[Seen]:
        """This user's tasks that wait or run."""
        seen = []
        # -r: tasks that wait for different reasons would else be one row.
        for job, number, state, reason, node, name in _squeue("%F|%K|%T|%r|%N|%j", "-r"):
            known = _state(state, reason)
            if name.startswith("run-") and number.isdecimal() and known:
                seen.append(Seen(TaskId(job, int(number)), name, known, "" if reason == "None" else reason, node))
        return seen

    def find(self, names: Collection[str], since: float) -> Mapping[str, str]:
        """The jobs of these names submitted after `since` (seconds since the epoch), over or not: their ids."""
        found = {name: job for job, name in _squeue("%F|%j", "-t", "all") if name in names}
        missing = sorted(set(names) - found.keys())
        if missing and shutil.which("sacct"):
            start = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(max(since - _CLOCKS_S, 0)))
            answer = _sacct("JobID,JobName", f"--name={','.join(missing)}", "-S", start)
            if answer.code == 0:
                rows = _rows(answer, 2)
                found |= {name: re.split("[_+]", task)[0] for task, name in rows if name in missing}
            elif "is disabled" not in answer.complaint:
                raise UnreachableError(answer.message)
        return found

    def gone(self, tasks: Collection[TaskId], names: Collection[str], since: float) -> Sequence[Gone]:
        """What accounting says of tasks that are over; of those that it does not know (yet), nothing."""
        jobs = sorted({task.job for task in tasks})
        try:
            answer = _sacct("JobID,State,ExitCode,Submit,JobName", "-D", "-j", ",".join(jobs))
            rows = _rows(answer, 5) if jobs and answer.code == 0 else []
        except UnreachableError:
            return []
        newest: dict[TaskId, tuple[tuple[int, bool], Gone | None]] = {}
        known: dict[str, str] = {}  # the names of the jobs
        for name, state, code, submit, job_name in rows:
            # An id is used again when the controller forgot the job; a task that was begun anew has a row for each.
            if job_name not in names or not submit.isdecimal() or int(submit) < since - _CLOCKS_S:
                continue
            # A row of many tasks stays as it was when one of them began, and got a row of its own.
            rank = (int(submit), "[" not in name)
            for task in _tasks(name):
                known[task.job] = job_name
                if task in tasks and (task not in newest or rank >= newest[task][0]):
                    newest[task] = (rank, _gone(task, job_name, state, code))
        # A task that is canceled alone while it waits is in no row.
        unnamed = [
            Gone(task, known[task.job], Why.UNNAMED, "") for task in set(tasks) - newest.keys() if task.job in known
        ]
        return [*(gone for _, gone in newest.values() if gone), *unnamed]

    def told_in(self, log: str) -> Why | None:
        """Why Slurm ended a task, by what it wrote itself into the task's log; None: nothing of that."""
        if _TOO_LARGE.search(log):  # it is told as canceled, too
            return Why.OUT_OF_MEMORY
        endings = _ENDED.findall(log)  # a task that was begun anew may have several
        return _REASON.get(endings[-1].strip(), Why.CANCELED) if endings else None

    def cancel(self, job: str, numbers: Collection[int] | None = None) -> None:
        """Ends these tasks of a job, or all of it; what is over already does not matter."""
        if numbers is not None and not numbers:
            return
        target = job if numbers is None else f"{job}_[{','.join(commandline.ranges(sorted(numbers)))}]"
        answer = commandline.ask(["scancel", target])
        if answer.code and not _NOT_THERE.search(answer.complaint):
            raise UnreachableError(answer.message)

    def has_gpus(self, keys: BatchKeys) -> bool:
        """Whether the partition has GPUs: the one that is asked for, or the default one."""
        assert isinstance(keys, SlurmKeys)
        answer = commandline.ask(["sinfo", "-h", "-o", "%P|%G"])
        if answer.code:
            raise UnreachableError(answer.message)
        wanted = keys.partition.split(",") if keys.partition else None
        rows = _rows(answer, 2)
        return any(
            "gpu" in resources
            for name, resources in rows
            if (name.endswith("*") if wanted is None else name.rstrip("*") in wanted)
        )

    def max_tasks(self) -> int:
        """How many tasks one array may have."""
        answer = commandline.ask(["scontrol", "show", "config"])
        size = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.output, re.MULTILINE)
        if answer.code or not size:
            raise UnreachableError(answer.message)
        fewer = re.search(r"^SchedulerParameters\s*=.*\bmax_array_tasks=(\d+)", answer.output, re.MULTILINE)
        return min(int(size[1]), int(fewer[1])) if fewer else int(size[1])

    def here(self, environment: Mapping[str, str]) -> Here | None:
        """The task in which a process with this environment is."""
        job, number = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        if job is None or number is None:
            return None
        return Here(TaskId(job, int(number)), int(environment.get("SLURM_RESTART_COUNT", "0")))


def _directives(batch: Batch, output: str) -> list[str]:
    keys = batch.keys
    assert isinstance(keys, SlurmKeys)
    limit = f"%{keys.limit}" if keys.limit else ""
    kind = f":{keys.gpu_type}" if keys.gpu_type else ""
    given = {
        "job-name": batch.name,
        "array": f"0-{batch.count - 1}{limit}",
        "output": scripts.quoted(output),
        "error": scripts.quoted(output),
        "open-mode": "append",
        # The plan's environment is set by the script; anything else than ALL makes Slurm run a login shell first.
        "export": "ALL",
        "partition": keys.partition and scripts.quoted(keys.partition),
        "account": keys.account and scripts.quoted(keys.account),
        "qos": keys.qos and scripts.quoted(keys.qos),
        "constraint": keys.constraint and scripts.quoted(keys.constraint),
        "time": None if keys.time is None else max(1, math.ceil(keys.time / 60)),
        "mem": keys.memory and f"{keys.memory}M",
        "cpus-per-task": batch.cpus,
        "gres": batch.gpus and f"gpu{kind}:{batch.gpus}",
        "signal": f"B:TERM@{scripts.ahead_s(keys)}",
    }
    return [f"--{name}={value}" for name, value in given.items() if value] + ["--requeue"]


def _is_full(complaint: str) -> bool:
    if _FULL.search(complaint):
        return True
    return bool(_POLICY.search(complaint)) and not _OWN_LIMIT.search(complaint)


def _state(state: str, reason: str) -> TaskState | None:
    """None: the task is over, or so strange that nothing is known of it."""
    if state in _HELD or (state in _WAITING and "held" in reason.lower()):
        return TaskState.HELD
    if state in _WAITING:
        return TaskState.WAITING
    return TaskState.RUNNING if state in _RUNNING else None


def _squeue(form: str, *options: str) -> Iterable[list[str]]:
    """The rows of this user's jobs; the name stands last.

    Raises:
        UnreachableError: there is no answer, or one that cannot be read.
    """
    answer = commandline.ask(["squeue", "-h", "-u", str(os.getuid()), *options, "-o", form], variables=_EXACTLY)
    if answer.code:
        raise UnreachableError(answer.message)
    return _rows(answer, form.count("|") + 1)


def _sacct(columns: str, *options: str) -> Answer:
    return commandline.ask(["sacct", "-X", "-n", "-P", f"--format={columns}", *options], variables=_EXACTLY)


def _rows(answer: Answer, width: int) -> list[list[str]]:
    rows = [line.split("|", width - 1) for line in answer.output.split("\n") if line.strip()]
    for row in rows:
        if len(row) != width:
            raise UnreachableError(f"{answer.command} answered what cannot be read: {'|'.join(row)[:200]!r}.")
    return rows


def _tasks(name: str) -> list[TaskId]:
    """`7_3`, or `7_[0-2,5%1]` of tasks that never began."""
    match = re.fullmatch(r"(\d+)_(?:(\d+)|\[([\d,:-]+)(?:%\d+)?\])", name)
    if match is None:
        return []
    return [TaskId(match[1], number) for number in commandline.expanded(match[2] or match[3])]


def _gone(task: TaskId, name: str, state: str, code: str) -> Gone | None:
    """None: the newest word is that the task waits or runs."""
    why = _WHY.get(state.split(" ")[0].rstrip("+"))
    if why is Why.ENDED and code.endswith(":125"):  # Slurm's own mark of a task that was out of memory
        why = Why.OUT_OF_MEMORY
    return Gone(task, name, why, state if code == "0:0" else f"{state}, exit code {code}") if why else None
