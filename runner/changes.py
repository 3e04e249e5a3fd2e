"""Finished stages whose command is another one now: they are not run again, but the user is told."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from runner import records
from runner.model import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.model import PlannedTrial

_SHOWN = 5
_MLRUNNERS = re.compile(r"CUDA_VISIBLE_DEVICES=\S* (.*) > \S.* 2>&1", re.DOTALL)
_ANY_TIME = r"\d{8}\.\d{6}"


class Changes:
    """Compares the commands of the file with those that were run."""

    def __init__(self, time: str) -> None:
        """`time`: what {_time} is now; it is another one at each `run`, which makes no other command."""
        self._time = re.escape(time)
        self._changed: dict[str, list[str]] = {}

    def note(self, trial: PlannedTrial) -> None:
        """Looks at the finished stages of a trial."""
        if not os.path.isdir(trial.directory):  # noqa: PTH112 - called for every trial
            return
        stat = records.read_stat(trial.directory)
        due = [stage for stage in trial.commands if stat.get(stage) is JobState.COMPLETED]
        if not due:
            return
        scripts = (records.read_param(trial.directory) or {}).get("_scripts", {})
        for stage in due:
            if stage in scripts and not self._is_same(scripts[stage], trial.commands[stage]):
                self._changed.setdefault(stage, []).append(trial.name)

    def _is_same(self, recorded: str, planned: str) -> bool:
        then, now = _command(recorded), _command(planned)
        return then == now or bool(re.fullmatch(re.escape(now).replace(self._time, _ANY_TIME), then))

    def lines(self) -> list[str]:
        """A line for each stage that changed."""
        return [
            f"Finished with another command of `{stage}`, which only -f runs again: {some(names)}"
            for stage, names in self._changed.items()
        ]


def _command(script: str) -> str:
    """The command of a recorded shell line; mlrunner wrote its GPUs before it and its log after it."""
    theirs = _MLRUNNERS.fullmatch(script)
    return " ".join((theirs[1] if theirs else script).split())


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
