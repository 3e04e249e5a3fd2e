"""What a `run` would do, told and not done."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.model import PlannedTrial
    from runner.values import Value


def print_commands(trials: Iterable[PlannedTrial], out: TextIO) -> None:
    """Each trial as a comment line and its shell lines."""
    for trial in trials:
        out.write(f"# {trial.index + 1}, {trial.shown}\n")
        out.writelines(f"{command}\n" for command in trial.commands.values())


def print_json(trials: Iterable[PlannedTrial], out: TextIO) -> None:
    """Each trial as one line: name, output, params with their types, and stage to shell line.

    Infinity and NaN, which JSON lacks, are the strings that Python prints for them.
    """
    encode = json.JSONEncoder(allow_nan=False).encode
    for trial in trials:
        params = {key: value if _is_json(value) else str(value) for key, value in trial.params.items()}
        shown = {"name": trial.name, "output": trial.output, "params": params, "commands": trial.commands}
        out.write(encode(shown) + "\n")


def _is_json(value: Value) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
