"""Text for the terminal: that of programs as it would show it, without what drives it, and numbers of things."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")


def counted(count: int, noun: str) -> str:
    """A number of things, as in `1 job` and `2,000 jobs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """Text of a program made harmless for the terminal: without colours and the like, control characters as dots."""
    plain = _ESCAPE.sub("", text)
    return "".join(character if character.isprintable() else "·" for character in plain)


def shown_lines(text: str) -> list[str]:
    """The lines that a terminal would show; a progress bar overwrites its line, of which the last part counts."""
    return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
