"""The exit codes of the program, and the error that a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_USAGE = 2
EXIT_AGAIN = 75
"""Saved before the end: run the same command again."""
EXIT_DIVERGED = 76
EXIT_INTERRUPTED = 130


class TrainError(ValueError):
    """What is wrong, with which value, and what is allowed; ends the program with code 2."""


def told(error: OSError) -> str:
    """Return what the system says, and of which file."""
    what = f"{error.filename}: " if error.filename else ""
    return f"{what}{error.strerror or error}"


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ", did you mean X?" for the allowed word nearest to `word`, or nothing."""
    matches = difflib.get_close_matches(word, list(allowed), n=1)
    return f", did you mean {matches[0]}?" if matches else ""
