"""The daemon itself as a job of a batch system, for sites where no long process may run on a login node.

`output/.runner/daemon.job` says how it was submitted, and under what name, so that it submits its successor before its
time is over.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.batch import batchfile
from runner.errors import InputError
from runner.executors import commandline, registry, scripts
from runner.executors.batch import Batch, UnreachableError
from runner.model import LOCAL
from runner.records import replace_text
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.executors.batch import BatchExecutor, BatchKeys
    from runner.options import StageOptions

AHEAD_S = 120.0  # before its time is over, the daemon submits its successor
AGAIN_S = 10.0  # before that is tried again
_WHO_PAYS = {"account", "partition", "queue", "qos", "project"}
_PROGRAM = (sys.executable, "-P", "-m", "runner.serve", "--here")


@dataclass(frozen=True)
class Asked:
    """How the daemon is submitted: with these options, for so long."""

    executor: str
    told: Mapping[str, Any]
    time_s: float
    variables: Mapping[str, str]  # that the commands of the batch system need


@dataclass(frozen=True)
class _Record:
    """The job that was submitted last, or was about to be."""

    asked: Asked
    name: str
    since: float
    job: str = "(not known)"


def asked(options: Iterable[StageOptions], time_s: float, environment: Mapping[str, str]) -> Asked:
    """The daemon is submitted to where its trials go, with what says who pays.

    Raises:
        InputError: they go nowhere.
    """
    for item in options:
        if item.executor != LOCAL:
            told = {key: value for key, value in item.batch.items() if key in _WHO_PAYS}
            kept = {name: environment[name] for name in (*commandline.KEPT, "PYTHONPATH") if name in environment}
            return Asked(item.executor, told, time_s, kept)
    raise InputError("--submit: no executor but this machine is asked for; add `executor: slurm`, or -x slurm.")


def submit(output: Path, wanted: Asked) -> str:
    """Submits the daemon of an output directory; returns the job's id.

    Raises:
        RunnerError: the batch system did not take it.
    """
    return _submit(output, _Record(wanted, batchfile.new_name(), time.time()))


def submit_again(output: Path, ran_s: float) -> str | None:
    """Submits the successor of a daemon that was submitted, and has run so long; returns the job's id.

    None: nobody asks for one, or the job was deleted, or preempted, long before its time is over.

    Where the batch system does not answer, it is asked until it does, or until the time of this job is over, too.

    Raises:
        RunnerError: the batch system never takes it.
    """
    record = _record(output)
    if record is None:
        return None
    executor = registry.load(record.asked.executor)
    if not scripts.is_time_up(_keys(executor, record.asked), ran_s):
        return None
    successor = _Record(record.asked, batchfile.new_name(), time.time())
    was_tried = False
    while True:
        try:
            found = executor.find([successor.name], successor.since).get(successor.name) if was_tried else None
            was_tried = True
            if found is not None:
                _keep(output, replace(successor, job=found))
            return found or _submit(output, successor)
        except UnreachableError as error:
            print(f"{error} It is asked again.", flush=True)
            time.sleep(AGAIN_S)


def _submit(output: Path, record: _Record) -> str:
    """Submits the job of a record, which is kept before and with the job's id after that."""
    _keep(output, record)
    folder = output / STATE_DIRECTORY / "daemon"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = record.asked
    executor = registry.load(wanted.executor)
    exports = "; ".join(f"export {name}={shlex.quote(value)}" for name, value in wanted.variables.items())
    batch = Batch(
        name=record.name,
        count=1,
        gpus=0,
        cpus=1,
        cwd=os.path.abspath(output),  # noqa: PTH100
        log_directory=str(folder),
        enter=exports,
        task=shlex.join([*_PROGRAM, str(output)]),
        keys=_keys(executor, wanted),
    )
    job = executor.submit(batch, executor.script(batch))
    _keep(output, replace(record, job=job))
    return job


def _keys(executor: BatchExecutor, wanted: Asked) -> BatchKeys:
    told = {**wanted.told, "time": wanted.time_s, "ahead": min(AHEAD_S, wanted.time_s / 4)}
    return executor.keys.model_validate(told)


def job_of(output: Path) -> str | None:
    """What to call the daemon's job that was submitted last: `job 12 of slurm`; None: nobody asked for one."""
    record = _record(output)
    return None if record is None else f"job {record.job} of {record.asked.executor}"


def is_queued(output: Path) -> bool:
    """Whether the daemon that was submitted last waits or runs.

    Raises:
        UnreachableError: the batch system does not answer.
    """
    record = _record(output)
    if record is None:
        return False
    return any(seen.name == record.name for seen in registry.load(record.asked.executor).queue())


def exists(output: Path) -> bool:
    """Whether the daemon of an output directory is submitted."""
    return _path(output).exists()


def over(output: Path) -> None:
    """Nothing is left to do: there is no successor."""
    _path(output).unlink(missing_ok=True)


def _record(output: Path) -> _Record | None:
    try:
        found = json.loads(_path(output).read_bytes())
    except FileNotFoundError:
        return None
    return _Record(**{**found, "asked": Asked(**found["asked"])})


def _keep(output: Path, record: _Record) -> None:
    replace_text(str(_path(output)), json.dumps(asdict(record)))


def _path(output: Path) -> Path:
    return output / STATE_DIRECTORY / "daemon.job"
