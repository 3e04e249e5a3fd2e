"""What a `next` command is given and what it answers: trials as JSON lines on stdin, a grid as YAML on stdout."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from runner.errors import InputError, RunnerError, SystemFaultError
from runner.yamlfile import dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runner.values import Params

FINISHED = "finished"


@dataclass(frozen=True)
class Trial:
    """A trial of a search, as far as a decision looks at it; `metrics` holds the numbers that are not NaN."""

    name: str
    directory: Path
    parameters: Params
    round: int
    state: str
    cause: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    nan: frozenset[str] = frozenset()

    @property
    def ok(self) -> bool:
        """Whether it ran to its end without a fault."""
        return self.state == FINISHED and self.cause is None


def read_trials(lines: Iterable[str]) -> list[Trial]:
    """The trials of all rounds so far, in their order; raises InputError with the number of a line that is none."""
    trials = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            trials.append(_trial(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise InputError(
                f"standard input, line {number}: needed is a trial as a JSON object with name, directory, parameters, "
                f"round and state ({reason}); found {line.strip()[:80]!r}."
            ) from error
    return trials


def _trial(found: Mapping[str, Any]) -> Trial:
    numbers = {name: value for name, value in (found.get("metrics") or {}).items() if isinstance(value, int | float)}
    return Trial(
        str(found["name"]),
        Path(found["directory"]),
        dict(found["parameters"]),
        int(found["round"]),
        str(found["state"]),
        found.get("cause"),
        {name: float(value) for name, value in numbers.items()},
        frozenset(found.get("nan") or ()),
    )


def rounds_done(trials: Iterable[Trial]) -> int:
    """The number of rounds that are at an end: the runner says it; without one, the trials do."""
    return int(os.environ.get("RUNNER_ROUND") or max((trial.round for trial in trials), default=0))


def own_directory(named: Path | None) -> Path:
    """Where a decision writes its files: the directory that was named, else the decision's own."""
    directory = named or Path(os.environ.get("RUNNER_OUTPUT") or ".")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old one or the new one, whenever this program ends."""
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def decide(decision: Callable[[list[Trial]], Mapping[str, Any] | None], stream: TextIO | None = None) -> int:
    """Read the trials, decide, print the next grid; returns the exit code. No grid ends the search."""
    try:
        grid = decision(read_trials(sys.stdin if stream is None else stream))
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        fault = SystemFaultError(f"{error.filename}: {error.strerror}.")
        print(f"error: {fault}", file=sys.stderr)
        return fault.exit_code
    if grid is not None:
        print(grid["_why"], file=sys.stderr)
        sys.stdout.write(dump(dict(grid)))
    return 0
