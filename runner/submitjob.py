"""The daemon itself as a job of a batch system, for sites where no long process may run on a login node.

`output/.runner/daemon.job` says how it was submitted, so that it submits its successor before its time is over.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import batchfile
from runner.errors import InputError
from runner.executors import commandline, registry
from runner.executors.batch import Batch
from runner.model import LOCAL
from runner.records import replace_text
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.options import StageOptions

AHEAD_S = 120.0  # before its time is over, the daemon submits its successor
_WHO_PAYS = {"account", "partition", "queue", "qos", "project"}
_PROGRAM = (sys.executable, "-P", "-m", "runner.serve", "--here")


@dataclass(frozen=True)
class Asked:
    """How the daemon is submitted: with these options, for so long."""

    executor: str
    told: Mapping[str, Any]
    time_s: float
    variables: Mapping[str, str]  # that the commands of the batch system need


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
    folder = output / STATE_DIRECTORY / "daemon"
    folder.mkdir(parents=True, exist_ok=True)
    executor = registry.load(wanted.executor)
    told = {**wanted.told, "time": wanted.time_s, "ahead": min(AHEAD_S, wanted.time_s / 4)}
    exports = "; ".join(f"export {name}={shlex.quote(value)}" for name, value in wanted.variables.items())
    batch = Batch(
        name=batchfile.new_name(),
        count=1,
        gpus=0,
        cpus=1,
        cwd=os.path.abspath(output),  # noqa: PTH100
        log_directory=str(folder),
        enter=exports,
        task=shlex.join([*_PROGRAM, str(output)]),
        keys=executor.keys.model_validate(told),
    )
    job = executor.submit(batch, executor.script(batch))
    replace_text(str(_path(output)), json.dumps(asdict(wanted)))
    return job


def submit_again(output: Path) -> str | None:
    """Submits the successor of a daemon that was submitted; returns the job's id, None where nobody asked for one."""
    try:
        record = json.loads(_path(output).read_bytes())
    except FileNotFoundError:
        return None
    return submit(output, Asked(**record))


def exists(output: Path) -> bool:
    """Whether the daemon of an output directory is submitted."""
    return _path(output).exists()


def over(output: Path) -> None:
    """Nothing is left to do: there is no successor."""
    _path(output).unlink(missing_ok=True)


def _path(output: Path) -> Path:
    return output / STATE_DIRECTORY / "daemon.job"
