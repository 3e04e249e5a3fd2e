"""The exceptions that reach the user, each with the exit code of `run`."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class RunnerError(Exception):
    """A failure that is told to the user in one message, without a traceback."""

    exit_code = 1


class InputError(RunnerError):
    """Bad input: nothing was written, nothing was lost."""

    exit_code = 2


class BusyError(RunnerError):
    """Another `run` works in the same output directory."""


class SystemFaultError(RunnerError):
    """The machine refused: a full disk, a directory that cannot be written."""


@dataclass(frozen=True)
class Place:
    """Where in a file something stands; `line` counts from 1."""

    file: str
    line: int | None = None
    key: str = ""

    def __str__(self) -> str:
        text = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{text}, {self.key}" if self.key else text


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing when no allowed word is near."""
    near = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
