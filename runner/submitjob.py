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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import batchfile
from runner.errors import InputError
from runner.executors import commandline, registry
from runner.executors.batch import Batch, UnreachableError
from runner.model import LOCAL
from runner.records import replace_text
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
    name = batchfile.new_name()
    _keep(output, _Record(wanted, name, time.time()))
    return _submit(output, wanted, name)


def submit_again(output: Path) -> str | None:
    """Submits the successor of a daemon that was submitted; returns the job's id, None where nobody asked for one.

    Where the batch system does not answer, it is asked until it does, or until the time of this job is over, too.

    Raises:
        RunnerError: the batch system never takes it.
    """
    record = _record(output)
    if record is None:
        return None
    name, since = batchfile.new_name(), time.time()
    _keep(output, _Record(record.asked, name, since))
    executor = registry.load(record.asked.executor)
    was_tried = False
    while True:
        try:
            found = executor.find([name], since).get(name) if was_tried else None
            was_tried = True
            return found or _submit(output, record.asked, name)
        except UnreachableError as error:
            print(f"{error} It is asked again.", flush=True)
            time.sleep(AGAIN_S)


def _submit(output: Path, wanted: Asked, name: str) -> str:
    folder = output / STATE_DIRECTORY / "daemon"
    folder.mkdir(parents=True, exist_ok=True)
    executor = registry.load(wanted.executor)
    told = {**wanted.told, "time": wanted.time_s, "ahead": min(AHEAD_S, wanted.time_s / 4)}
    exports = "; ".join(f"export {name}={shlex.quote(value)}" for name, value in wanted.variables.items())
    batch = Batch(
        name=name,
        count=1,
        gpus=0,
        cpus=1,
        cwd=os.path.abspath(output),  # noqa: PTH100
        log_directory=str(folder),
        enter=exports,
        task=shlex.join([*_PROGRAM, str(output)]),
        keys=executor.keys.model_validate(told),
    )
    return executor.submit(batch, executor.script(batch))


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
