"""The ends of logs; a log may be missing, huge, or no text at all."""

from __future__ import annotations

from pathlib import Path

from runner.text import shown_lines

_LAST_LINE_BYTES = 8192


def read_tail(path: str, size: int = 65536) -> str:
    """The last `size` bytes of a log as text; empty when there is no such file, or it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""


def last_line(path: str) -> str:
    """The last line of a log that says anything; empty when there is none."""
    lines = (line.strip() for line in reversed(shown_lines(read_tail(path, _LAST_LINE_BYTES))))
    return next((line for line in lines if line), "")


def nothing_said(path: str) -> str:
    """What is shown instead of a last line: `run -d` leaves no log, and a log may have been deleted."""
    return "(its log is empty)" if Path(path).is_file() else "(it has no log)"
