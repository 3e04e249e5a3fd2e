"""Files that only grow, a line at a time, and that a crash cannot tear unnoticed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = 65536


def append_line(path: Path | str, line: bytes, is_durable: bool = False) -> None:
    """Adds one line, newline included, in a single write; a line that a crash cut off before it is cut away.

    `is_durable`: return only when the line would outlive a power cut.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.ftruncate(descriptor, _end_of_whole_lines(descriptor, size))
        write_all(descriptor, line)
        if is_durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def whole_lines(path: Path | str) -> list[bytes]:
    """The lines of such a file without their newlines; one that is not whole, or a missing file, does not count."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return []
    with os.fdopen(descriptor, "rb") as file:
        return file.read().split(b"\n")[:-1]


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data`, also where the system takes it in pieces."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, data[written:])


def _end_of_whole_lines(descriptor: int, size: int) -> int:
    while size > 0:
        start = max(0, size - _BLOCK)
        newline = os.pread(descriptor, size - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        size = start
    return 0
