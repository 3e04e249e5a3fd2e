"""A user's own smoothing, choice or grid: a Python function (`rules.py:pick`) or a command (JSON in, JSON out)."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import InputError, RunnerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FUNCTION = re.compile(r"(?P<file>\S+\.py):(?P<name>[A-Za-z_]\w*)")


def rule(option: str, text: str) -> Callable[[Any], Any]:
    """The rule that `text` names; raises InputError where there is none. A command gets its argument on stdin."""
    match = _FUNCTION.fullmatch(text)
    return _function(option, Path(match["file"]), match["name"]) if match else _command(option, text)


def _function(option: str, file: Path, name: str) -> Callable[[Any], Any]:
    if not file.is_file():
        raise InputError(f"{option} {file}:{name}: there is no file {file}.")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{option} {file}:{name}: {file} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    with contextlib.redirect_stdout(sys.stderr):  # standard output is the grid's alone
        spec.loader.exec_module(module)
    found: Callable[[Any], Any] | None = getattr(module, name, None)
    if not callable(found):
        raise InputError(f"{option} {file}:{name}: {file} has no function {name}.")

    def call(argument: Any) -> Any:
        with contextlib.redirect_stdout(sys.stderr):
            return found(argument)

    return call


def _command(option: str, text: str) -> Callable[[Any], Any]:
    def call(argument: Any) -> Any:
        done = subprocess.run(["bash", "-c", text], input=json.dumps(argument), capture_output=True, text=True)
        if done.returncode:
            told = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
            raise RunnerError(f"{option} {text!r} ended with exit code {done.returncode}: {told}")
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise RunnerError(f"{option} {text!r} printed no JSON: {done.stdout.strip()[:80]!r}.") from error

    return call


def floats(found: Any) -> list[float] | None:
    """What a user's rule gave as numbers; None where it is no list of them."""
    try:
        return None if isinstance(found, str) else [float(number) for number in found]
    except (TypeError, ValueError):
        return None


def smoothed(smooth: Callable[[Any], Any], losses: Sequence[float]) -> list[float]:
    """A curve as the user's rule smooths it; raises RunnerError where that gives no number for each loss."""
    found = smooth(losses)
    numbers = floats(found)
    if numbers is None or len(numbers) != len(losses):
        told = repr(found)[:80] if numbers is None else f"{len(numbers)} numbers"
        raise RunnerError(f"--smooth gave {told} for {len(losses)} losses; needed is a list with one for each.")
    return numbers
