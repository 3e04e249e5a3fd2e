"""The cache of what was read, `output/.runner/results.cache`: one file, replaced as a whole.

It holds what any reader would find in the trials' own files, with the size and time of change of each file that was
read, so that it may be deleted at any time, copied along with the output directory, and read and replaced by several
readers at once: the last one wins, and what it lacks is read again.
"""

from __future__ import annotations

import json
import os
import socket
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Signature = list[Any]
"""The directory's time of change in ns, then name, size and time of change of each file."""
Entry = tuple[Signature, dict[str, Any]]

_FILE = ".runner/results.cache"
_VERSION = 1
# A file may change again within one tick of its file system's clock, two seconds at most, without a new time.
_TICK_NS = 2_000_000_000


def sign(signature: Signature, name: str, found: os.stat_result) -> None:
    """Add a file to a signature."""
    signature += [name, found.st_size, found.st_mtime_ns]


def is_current(directory: str, signature: Signature) -> bool:
    """Return whether nothing that was read has changed."""
    try:
        if os.stat(directory).st_mtime_ns != signature[0]:  # noqa: PTH116
            return False
        for index in range(1, len(signature), 3):
            found = os.stat(f"{directory}/{signature[index]}")  # noqa: PTH116
            if found.st_size != signature[index + 1] or found.st_mtime_ns != signature[index + 2]:
                return False
    except OSError:
        return False
    return True


_Identity = tuple[int, int, int, int]
_latest: tuple[_Identity, dict[str, Entry]] | None = None
"""The cache file that this process read or wrote last, since a notebook asks for one table again and again."""


def _identity(path: Path) -> _Identity:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def load(output: Path) -> dict[str, Entry]:
    """Return the entries by the trials' names; none where the file is missing, damaged or another version's."""
    global _latest
    path = output / _FILE
    try:
        identity = _identity(path)
        if _latest is not None and _latest[0] == identity:
            return _latest[1]
        head, _, body = path.read_bytes().partition(b"\n")
        if head != _head(body):
            return {}
        _latest = identity, json.loads(body)
    except (OSError, ValueError):
        return {}
    return _latest[1]


def save(output: Path, entries: Mapping[str, Entry], read_at_ns: int) -> None:
    """Replace the cache; what changed just before it was read is left out, as it may change again unnoticed.

    A cache that can't be written is done without.
    """
    global _latest
    kept = {name: entry for name, entry in entries.items() if is_settled(entry[0][1:], read_at_ns, entry[0][0])}
    body = json.dumps(kept).encode()
    with suppress(OSError):
        _latest = replace(output / _FILE, [_head(body), b"\n", body]), kept


def replace(path: Path, content: Iterable[bytes]) -> _Identity:
    """Write a file as a whole, whoever else does so at the same time; return by what it is known again."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.writelines(content)
        identity = _identity(part)  # renaming changes none of it
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return identity


def is_plain(value: Any) -> bool:
    """Return whether JSON gives a value back as it was: not the tuples and numbered keys of somebody else's `param`."""
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def now_ns() -> int:
    """Return the time, as files have it."""
    return time.time_ns()


def is_settled(files: Signature, read_at_ns: int, directory_ns: int = 0) -> bool:
    """Return whether files, as a signature has them, would show by their times that they changed after being read."""
    newest: int = max([directory_ns, *files[2::3]])
    return newest < read_at_ns - _TICK_NS


def _head(body: bytes) -> bytes:
    return f"results {_VERSION} {zlib.crc32(body):08x} {len(body)}".encode()
