"""What the caches of the results have in common: how files are known again, and how a cache is replaced as a whole."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# A file may change again within one tick of its file system's clock, two seconds at most, without a new time.
_TICK_NS = 2_000_000_000


class Signature(NamedTuple):
    """How the files that were read of a trial were before: their names, and the directory's time of change in ns,
    then size and time of change of each."""

    files: tuple[str, ...]
    numbers: list[int]


def sign(numbers: list[int], found: os.stat_result) -> None:
    """Add a file to the numbers of a signature."""
    numbers += (found.st_size, found.st_mtime_ns)


def is_current(directory: str, signature: Signature) -> bool:
    """Return whether nothing that was read has changed.

    All files are looked at: writing into one changes nothing of the directory.
    """
    stat = os.stat
    try:
        numbers = [stat(directory).st_mtime_ns]
        for name in signature.files:
            found = stat(f"{directory}/{name}")
            numbers += (found.st_size, found.st_mtime_ns)
    except OSError:
        return False
    return numbers == signature.numbers


def settled_ns(path: Path, read_at_ns: int) -> int:
    """Return before when files must have changed for the last time, so that a change after they were read would show.

    The time of reading is this machine's, the result is in the time of the file system that the cache is to be in,
    whose clock may be behind.

    Raises:
        OSError: the cache can't be written.
    """
    part = _part(path)
    try:
        part.touch()
        lag_ns = time.time_ns() - part.stat().st_mtime_ns
    finally:
        part.unlink(missing_ok=True)
    return read_at_ns - max(0, lag_ns) - _TICK_NS


Identity = tuple[int, int, int, int]


def identity(path: Path) -> Identity:
    """Return by what a file is known again."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def replace(path: Path, content: Iterable[bytes]) -> Identity:
    """Write a file as a whole, whoever else does so at the same time; return by what it is known again."""
    part = _part(path)
    try:
        with part.open("wb") as file:
            file.writelines(content)
        known = identity(part)  # renaming changes none of it
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return known


def _part(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.part")
