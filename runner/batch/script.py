"""What the script of a batch is made of."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

from runner.executors.batch import Batch

if TYPE_CHECKING:
    from pathlib import Path

    from runner.batch.batchfile import Intent
    from runner.executors.batch import BatchKeys

INSIDE = "RUNNER_TASK"  # in the environment of a script that runs in the user's environment
_PROGRAM = (sys.executable, "-P", "-m", "runner.task")


def batch_of(folder: Path, intent: Intent, keys: BatchKeys) -> Batch:
    """What an executor needs to know of a batch."""
    return Batch(
        name=intent.name,
        count=len(intent.tasks),
        gpus=intent.gpus,
        cpus=intent.cpus,
        cwd=intent.cwd,
        log_directory=str(folder),
        enter=_enter_line(folder),
        task=shlex.join([*_PROGRAM, "run", str(folder)]),
        keys=keys,
        template=keys.script,
    )


def _enter_line(folder: Path) -> str:
    # The task's machine has this program in the same place, also where it is not installed.
    path = os.environ.get("PYTHONPATH")
    found = f"PYTHONPATH={shlex.quote(path)} " if path else ""
    command = f'{shlex.join([*_PROGRAM, "enter", str(folder)])} "$0" "$@"'
    return f'[ -n "${INSIDE}" ] || {found}exec {command}  # in the environment of whoever typed run'
