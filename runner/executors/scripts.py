"""The script of an array: directives, the user's environment and set-up, the task."""

from __future__ import annotations

import math
import re
import shlex
from typing import TYPE_CHECKING

from runner.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.executors.batch import Batch, BatchKeys

TASK = "{_task}"  # where a user's own script has the trial's command
_SHEBANG = "#!/bin/bash"
_EARLY_S = 120.0  # by so much may the warning of the time limit come early, set-up commands included
_FAILED = (
    """_code=$?; [ "$_code" = 0 ] || """
    """{{ printf '%s\\n' {line}" failed with exit code $_code" >&2; exit 1; }}"""
)
# The batch system warns the script's own shell, which would die of the signal, or keep it until the task has ended.
_HANDED_ON = """\
trap '[ -z "${{!-}}" ] || kill -TERM "$!"' TERM USR1 USR2
{task} &
while kill -0 "$!" 2>/dev/null; do wait "$!" || :; done
trap - TERM USR1 USR2
wait "$!"  # a signal ended the one before"""


def compose(batch: Batch, mark: str, directives: Sequence[str], opening: Sequence[str] = ()) -> str:
    """The script: the directives behind `mark`, the shell lines `opening`, and what the batch says.

    In the user's own script the directives come after the user's, which they overrule, and the task where it is asked
    for; a line that is nothing else hands the signals of the batch system on.

    Raises:
        InputError: the user's own script does not say where the task goes.
    """
    head = [f"{mark} {directive}" for directive in (*directives, *batch.keys.lines)]
    body = [*opening, f"cd -- {shlex.quote(batch.cwd)} || exit 1", batch.enter]
    for command in batch.keys.setup:
        body += [command, _FAILED.format(line=shlex.quote(f"setup: {command}"))]
    if batch.template is None:
        return "\n".join([_SHEBANG, *head, *body, f"exec {batch.task}", ""])
    if TASK not in batch.template:
        raise InputError(f"{batch.keys.script}: nothing says where the trial goes; write {TASK} in its place.")
    lines = batch.template.replace("\r\n", "\n").rstrip("\n").split("\n")
    if not lines[0].startswith("#!"):
        lines.insert(0, _SHEBANG)
    code = next((index for index, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    rest = [_with_task(line, batch.task) for line in lines[code:]]
    return "\n".join([*lines[:code], *head, *body, *rest, ""])


def _with_task(line: str, task: str) -> str:
    return _HANDED_ON.format(task=task) if line.strip() == TASK else line.replace(TASK, task)


def log_into(batch: Batch, number: str) -> list[str]:
    """The shell line that sends what a task says into its file, where the batch system cannot; `number` is the task's
    in the words of the shell."""
    return [f'exec >>{shlex.quote(batch.log_directory)}/"{number}".log 2>&1 || exit 1']


def quoted(text: str) -> str:
    """A word of a directive, in quotes that Slurm takes off again."""
    return text if re.fullmatch(r"[\w.,:/@%+=-]+", text, re.ASCII) else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def ahead_s(keys: BatchKeys) -> int:
    """So long before the time limit the batch system warns; of a short one half is left to work in."""
    return max(1, math.ceil(keys.ahead if keys.time is None else min(keys.ahead, keys.time / 2)))


def is_time_up(keys: BatchKeys, ran_s: float) -> bool:
    """Whether an allocation that is to end, and has run so long, comes to its time limit: it ends for nobody else."""
    return keys.time is not None and ran_s + _EARLY_S >= keys.time - ahead_s(keys)
