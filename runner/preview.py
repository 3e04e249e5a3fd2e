"""What a `run` would do, told and not done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.model import Trial


def print_commands(trials: Iterable[Trial], out: TextIO) -> None:
    """Each trial as a comment line and its shell lines."""
    for trial in trials:
        out.write(f"# {trial.index + 1}, {trial.shown}\n")
        out.writelines(f"{command}\n" for command in trial.commands.values())


def print_json(trials: Iterable[Trial], out: TextIO) -> None:
    """Each trial as one line: name, output, params with their types, and stage to shell line."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    for trial in trials:
        shown = {"name": trial.name, "output": trial.output, "params": trial.params, "commands": trial.commands}
        out.write(encode(shown) + "\n")
