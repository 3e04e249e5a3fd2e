"""Text of programs, as a terminal would show it and without what drives the terminal."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")


def printable(text: str) -> str:
    """Text of a program made harmless for the terminal: without colours and the like, control characters as dots."""
    plain = _ESCAPE.sub("", text)
    return "".join(character if character.isprintable() else "·" for character in plain)


def shown_lines(text: str) -> list[str]:
    """The lines that a terminal would show; a progress bar overwrites its line, of which the last part counts."""
    return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
