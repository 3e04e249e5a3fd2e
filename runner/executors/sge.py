"""Grid Engine: qsub, qstat, qacct, qdel. Its tasks count from 1, ours from 0."""

from __future__ import annotations

import math
import os
import pwd
import re
import shutil
import time
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, ClassVar

from runner.executors import commandline, scripts
from runner.executors.batch import (
    BatchKeys,
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

_CLOCKS_S = 600.0  # by so much the clocks of the login node and the master may differ
_UTC = {"TZ": "UTC"}
_NO_LIMIT = 75_000  # of tasks, where the site sets none: the default of Grid Engine
_OURS = "run-*"
_LATER = re.compile(
    "commlib error|unable to (?:send message|contact|connect)|can't connect|cannot connect"
    "|got (?:send|read|select) error|time(?:d )?out|temporarily|try again|jobs are allowed|no space left|communication",
    re.IGNORECASE,
)
_NOT_THERE = re.compile("does not exist|already in deletion", re.IGNORECASE)
_NO_RECORD = re.compile("not found|no such file", re.IGNORECASE)
_FIELDS = ("jobname", "jobnumber", "taskid", "failed", "exit_status", "category", "ru_wallclock")
# The codes of `failed`: what happened when the program had begun. With any other the task is in the queue again.
_ENDED = frozenset({12, 13, 14, 15, 16})
_LIMIT = 37
_KILLED = 100
_BY_SIGNAL = {
    128 + 9: Why.CANCELED,
    128 + 15: Why.CANCELED,
    128 + 12: Why.CANCELED,  # USR2: KILL is to follow
    128 + 10: Why.TIME_LIMIT,  # USR1: the soft limit
}


class SgeKeys(BatchKeys):
    """What params.yaml may say of Grid Engine. The resource for GPUs must count per job, that for memory per slot."""

    own: ClassVar[re.Pattern[str]] = re.compile(r"-[Ntoej](?=\s|$)")
    queue: Word | None = None
    project: Word | None = None
    pe: Word = "smp"  # the parallel environment of tasks with several cores
    gpu_resource: Word = "gpu"
    memory_resource: Word = "h_vmem"


class SgeExecutor:
    """Drives Grid Engine.

    USR1 comes to the process group of the script `ahead` of the time limit, which is then kept up to 90 s late; USR2 at
    the limit, at qdel and when the task is to be begun anew, and the queue's `notify` (mostly 60 s) later KILL. A
    process that left the group gets none of them; it lives on where the site does not forbid that.

    Mostly the script is run by a login shell, which reads the user's profile first.
    """

    keys: type[BatchKeys] = SgeKeys
    vanished: Why | None = Why.CANCELED  # only what has begun has a record, and nothing is lost when the master dies

    def script(self, batch: Batch) -> str:
        """The script of an array."""
        # -o takes `host:path` and a list of them, and expands variables: the shell does it, whatever the path.
        return scripts.compose(batch, "#$", _directives(batch), scripts.log_into(batch, "$((SGE_TASK_ID - 1))"))

    def submit(self, batch: Batch, script: str, inherited: int | None = None) -> str:
        """Submits an array; returns its job's id. qsub keeps the descriptor `inherited` open.

        Raises:
            RefusedError: it will never be taken.
            UnreachableError: Grid Engine does not answer, or takes nothing now.
        """
        # It reads directives anywhere in a script; those of the command line overrule them.
        arguments = ["qsub", "-terse", "-b", "n", "-N", batch.name, "-t", f"1-{batch.count}"]
        answer = commandline.ask(arguments, script, batch.cwd, inherited)
        job = re.search(r"(\d+)(?:\.\d+-\d+:\d+)?\s*$", answer.output)  # warnings may stand before it
        if answer.code == 0 and job:
            return job[1]
        if answer.code == 0 or _LATER.search(answer.complaint):
            raise UnreachableError(answer.message)
        raise RefusedError(answer.message)

    def queue(self) -> Sequence[Seen]:
        """This user's tasks that wait or run."""
        seen = []
        for row in _qstat():
            job, name, state = (row.findtext(key, "") for key in ("JB_job_number", "JB_name", "state"))
            node = row.findtext("queue_name", "").rpartition("@")[2]
            known, reason = _state(state, row.get("state") == "running", job)
            for number in commandline.expanded(row.findtext("tasks", "")):
                seen.append(Seen(TaskId(job, number - 1), name, known, reason, node))
        return seen

    def find(self, names: Collection[str], since: float) -> Mapping[str, str]:
        """The jobs of these names submitted after `since` (seconds since the epoch), over or not: their ids."""
        found = {row.findtext("JB_name", ""): row.findtext("JB_job_number", "") for row in _qstat()}
        found = {name: job for name, job in found.items() if name in names}
        missing = set(names) - found.keys()
        if missing and shutil.which("qacct"):
            start = time.strftime("%Y%m%d%H%M", time.gmtime(max(since - _CLOCKS_S, 0)))
            records = _qacct(_OURS, "-b", start)
            found |= {record["jobname"]: record["jobnumber"] for record in records if record["jobname"] in missing}
        return found

    def gone(self, tasks: Collection[TaskId], names: Collection[str], since: float) -> Sequence[Gone]:
        """What accounting says of tasks that are over; of those that it does not know (yet), nothing."""
        newest: dict[TaskId, Gone | None] = {}
        try:
            for job in sorted({task.job for task in tasks}):
                for record in _qacct(job):  # the oldest first
                    task = TaskId(job, _number(record["taskid"]) - 1)
                    if task in tasks and record["jobname"] in names:
                        newest[task] = _gone(task, record)
        except UnreachableError:
            return []
        return [gone for gone in newest.values() if gone]

    def told_in(self, log: str) -> Why | None:
        """Why Grid Engine ended a task: it writes nothing of that into the task's log."""
        return None

    def cancel(self, job: str, numbers: Collection[int] | None = None) -> None:
        """Ends these tasks of a job, or all of it; what is over already does not matter."""
        if numbers is not None and not numbers:
            return
        parts = [] if numbers is None else commandline.ranges([number + 1 for number in sorted(numbers)])
        answer = commandline.ask(["qdel", ",".join(f"{job}.{part}" for part in parts) or job])
        if answer.code and not _NOT_THERE.search(answer.complaint + answer.output):
            raise UnreachableError(answer.message)

    def has_gpus(self, keys: BatchKeys) -> bool:
        """Whether a host or a queue has the resource for GPUs."""
        assert isinstance(keys, SgeKeys)
        answer = commandline.ask(["qstat", "-F", keys.gpu_resource])
        if answer.code:
            raise UnreachableError(answer.message)
        return f":{keys.gpu_resource}=" in answer.output

    def max_tasks(self) -> int:
        """How many tasks one array may have."""
        answer = commandline.ask(["qconf", "-sconf"])
        most = re.search(r"^max_aj_tasks\s+(\d+)", answer.output, re.MULTILINE)
        if answer.code or not most:
            raise UnreachableError(answer.message)
        return int(most[1]) or _NO_LIMIT

    def here(self, environment: Mapping[str, str]) -> Here | None:
        """The task in which a process with this environment is."""
        job, number = environment.get("JOB_ID"), environment.get("SGE_TASK_ID", "")
        if job is None or not number.isdecimal():
            return None
        return Here(TaskId(job, int(number) - 1), int(environment.get("RESTARTED", "0")))


def _directives(batch: Batch) -> list[str]:
    keys = batch.keys
    assert isinstance(keys, SgeKeys)
    directives = [f"-N {batch.name}", f"-t 1-{batch.count}", "-S /bin/bash", "-o /dev/null", "-j y", "-wd /"]
    directives += ["-r y", "-notify"]
    if keys.limit is not None:
        directives.append(f"-tc {keys.limit}")
    for option, value in {"-q": keys.queue, "-P": keys.project, "-A": keys.account}.items():
        if value is not None:
            directives.append(f"{option} {value}")
    if batch.cpus > 1:
        directives.append(f"-pe {keys.pe} {batch.cpus}")
    resources: dict[str, object] = {}
    if keys.time is not None:
        limit_s = max(2, math.ceil(keys.time))
        resources = {"h_rt": limit_s, "s_rt": limit_s - scripts.ahead_s(keys)}
    if keys.memory is not None:
        resources[keys.memory_resource] = f"{math.ceil(keys.memory / batch.cpus)}M"
    if batch.gpus:
        resources[keys.gpu_resource] = batch.gpus
        if keys.gpu_type is not None:
            resources["gpu_type"] = keys.gpu_type
    return directives + [f"-l {name}={value}" for name, value in resources.items()]


def _state(state: str, is_running: bool, job: str) -> tuple[TaskState, str]:
    """What the letters of qstat mean, and what to tell of it."""
    if is_running:
        return TaskState.RUNNING, "suspended" if set(state) & set("sST") else ""
    if "E" in state:
        return (
            TaskState.HELD,
            f"{state}: could not be started, which `qstat -j {job}` explains; `qmod -cj {job}` frees it",
        )
    return (TaskState.HELD, f"held ({state})") if "h" in state else (TaskState.WAITING, f"queued ({state})")


def _qstat() -> Iterable[ElementTree.Element]:
    """The rows of this user's own arrays, whatever the user's defaults (`.sge_qstat`) leave out.

    Raises:
        UnreachableError: there is no answer, or one that cannot be read.
    """
    answer = commandline.ask(["qstat", "-xml", "-s", "prs", "-u", pwd.getpwuid(os.getuid()).pw_name])
    if answer.code:
        raise UnreachableError(answer.message)
    try:
        rows = list(ElementTree.fromstring(answer.output).iter("job_list"))
    except ElementTree.ParseError as error:
        raise UnreachableError(f"qstat answered what cannot be read ({error}): {answer.output[:200]!r}.") from None
    return [row for row in rows if row.findtext("JB_name", "").startswith(_OURS[:-1]) and row.findtext("tasks")]


def _qacct(job: str, *options: str) -> list[dict[str, str]]:
    """The records of a job, or of all that have a name such as this.

    Raises:
        UnreachableError: the accounting cannot be read.
    """
    answer = commandline.ask(["qacct", "-j", job, *options], variables=_UTC)
    if answer.code and not _NO_RECORD.search(answer.complaint):
        raise UnreachableError(answer.message)
    records: list[dict[str, str]] = []
    for line in answer.output.split("\n"):
        if line.startswith("===="):
            records.append(dict.fromkeys(_FIELDS, ""))
        elif records and " " in line:
            key, value = line.split(" ", 1)
            records[-1][key] = value.strip()
    return records


def _gone(task: TaskId, record: Mapping[str, str]) -> Gone | None:
    """None: it was put back into the queue."""
    failed, code = _number(record["failed"]), _number(record["exit_status"])
    text = f"failed {record['failed']}, exit status {record['exit_status']}"
    if failed == _LIMIT:
        why = Why.TIME_LIMIT if _reached(record) else Why.OUT_OF_MEMORY
    elif failed in {0, _KILLED}:  # 0 where the user's own script hands the code on
        why = _BY_SIGNAL.get(code, Why.ENDED)
    elif failed in _ENDED:
        why = Why.ENDED
    else:
        return None
    return Gone(task, record["jobname"], why, text)


def _reached(record: Mapping[str, str]) -> bool:
    """Whether a task ran for as long as it may; the other limits that Grid Engine enforces are those of memory."""
    limit = re.search(r"\bh_rt=(\d+)", record["category"])
    return limit is None or _number(record["ru_wallclock"]) >= int(limit[1])


def _number(text: str) -> int:
    """The number at the start of a field such as `37  : qmaster enforced`; 0 when there is none."""
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0
