"""The cache of what was read, `output/.runner/results.cache`: one file of plain columns, replaced as a whole.

It holds what any reader would find in the trials' own files, with the size and time of change of each file that was
read, so that it may be deleted at any time, copied along with the output directory, and read and replaced by several
readers at once: the last one wins, and what it lacks is read again.

A line with the version, the sizes and a checksum; a header in JSON with names and texts; then 8-byte numbers: those of
the signatures, and of each column.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.examine import cachefile
from runner.examine.cachefile import Signature
from runner.examine.columns import GROUPS, METRICS, PARAM, SUMMARY, Column, Trials
from runner.examine.tables import ABSENT

_FILE = ".runner/results.cache"
_VERSION = 3
_WHOLE, _REAL, _TEXT, _ANY = "<i8", "<f8", "text", "json"
"""The kinds of columns: numbers; places in a table of texts; JSON in the header."""
_WIDTH = 8

_latest: tuple[cachefile.Identity, Trials] | None = None
"""The cache file that this process read or wrote last, since a notebook asks for one table again and again."""


def path(output: Path) -> Path:
    """Return the cache of an output directory."""
    return output / _FILE


def load(output: Path) -> Trials:
    """Return the trials in the cache, none where the file is missing, damaged or another version's."""
    global _latest
    try:
        identity = cachefile.identity(path(output))
        if _latest is not None and _latest[0] == identity:
            return _latest[1]
        head, _, content = path(output).read_bytes().partition(b"\n")
        size = int(head.split()[2])
        if head != _head(content, size):
            return Trials()
        _latest = identity, _decoded(json.loads(content[:size]), content, size)
    except (OSError, ValueError, IndexError):
        return Trials()
    return _latest[1]


def save(output: Path, trials: Trials, read_at_ns: int) -> None:
    """Replace the cache; what changed just before it was read is left out, as it may change again unnoticed.

    A cache that can't be written is done without.
    """
    global _latest
    with suppress(OSError):
        limit_ns = cachefile.settled_ns(path(output), read_at_ns)
        kept = trials.take([row for row in _plain_rows(trials) if _latest_ns(trials.signatures[row]) < limit_ns])
        header, numbers = _encoded(kept)
        first = json.dumps(header).encode()
        content = b"".join([first, *numbers])
        _latest = cachefile.replace(path(output), [_head(content, len(first)), b"\n", content]), kept


def _head(content: bytes, size: int) -> bytes:
    return f"results {_VERSION} {size} {len(content)} {zlib.crc32(content):08x}".encode()


def _latest_ns(signature: Signature) -> int:
    return max([signature.numbers[0], *signature.numbers[2::2]])


def _plain_rows(trials: Trials) -> list[int]:
    """The trials whose parameters JSON gives back as they were: no tuples or numbered keys of somebody else's."""
    texts = {name for name in trials.titles(PARAM) if type(name) is str}
    others = [row for row, shape in enumerate(trials.shapes) if not texts.issuperset(shape[0])]
    lists = [column for column in trials.columns[PARAM].values() if isinstance(column, list)]
    others += [
        row for column in lists for row, entry in enumerate(column) if entry is not ABSENT and not _is_plain(entry)
    ]
    return sorted(set(range(len(trials))).difference(others))


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and _is_plain(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    # Python refuses to write out what has thousands of digits.
    return value is None or type(value) in (str, float, bool) or (type(value) is int and value.bit_length() < 1024)


# --- the format ---


def _encoded(trials: Trials) -> tuple[dict[str, Any], list[bytes]]:
    files, of_trials = _coded(signature.files for signature in trials.signatures)
    shapes, shape_of = _coded(trials.shapes)
    numbers = [number for signature in trials.signatures for number in signature.numbers]
    pieces = [of_trials, np.array(numbers, dtype=_WHOLE), shape_of]
    columns = []
    for group in GROUPS:
        for name, column in trials.columns[group].items():
            kind, piece, table = _encode(group, column)
            columns.append([group, name, kind, len(piece), table])
            pieces.append(piece)
    header = {"names": trials.names, "files": files, "numbers": len(numbers), "shapes": shapes, "columns": columns}
    return header, [piece.tobytes() for piece in pieces]


def _encode(group: str, column: Column) -> tuple[str, NDArray[Any], list[Any]]:
    """The kind of a column, its numbers, and what it has in the header; what is absent is in the shapes."""
    if isinstance(column, np.ndarray):
        kind = _WHOLE if column.dtype.kind == "i" else _REAL
        return kind, column.ravel().astype(kind, copy=False), []
    entries = [entry for entry in column if entry is not ABSENT]
    if set(map(type, entries)) == {str}:
        table, codes = _coded(entries)
        return _TEXT, codes, table
    return _ANY, np.array([], dtype=_WHOLE), entries


def _coded(values: Iterable[Hashable]) -> tuple[list[Any], NDArray[Any]]:
    """The distinct values, and the place of each value among them."""
    table: dict[Any, int] = {}
    codes = [table.setdefault(value, len(table)) for value in values]
    return list(table), np.array(codes, dtype=_WHOLE)


def _decoded(header: dict[str, Any], content: bytes, start: int) -> Trials:
    def numbers(kind: str, count: int) -> NDArray[Any]:
        nonlocal start
        found = np.frombuffer(content, kind, count, start).astype(kind[1:])
        start += _WIDTH * count
        return found

    names = header["names"]
    files = [tuple(names) for names in header["files"]]
    signatures = list(
        _signatures([files[code] for code in numbers(_WHOLE, len(names))], numbers(_WHOLE, header["numbers"]))
    )
    shapes = [tuple(map(tuple, shape)) for shape in header["shapes"]]
    shape_of = numbers(_WHOLE, len(names))
    trials = Trials(names, signatures, [shapes[code] for code in shape_of])
    for group, name, kind, count, table in header["columns"]:
        found = numbers(_REAL if kind == _REAL else _WHOLE, count)
        if kind in (_WHOLE, _REAL):
            trials.columns[group][name] = found.reshape(-1, SUMMARY) if group == METRICS else found
            continue
        entries = [table[code] for code in found.tolist()] if kind == _TEXT else table
        has = np.array([name in shape[GROUPS.index(group)] for shape in shapes], dtype=bool)[shape_of]
        trials.columns[group][name] = _spread(entries, has)
    return trials


def _signatures(files: Sequence[tuple[str, ...]], numbers: NDArray[Any]) -> Iterator[Signature]:
    flat = numbers.tolist()
    start = 0
    for names in files:
        end = start + 1 + 2 * len(names)
        yield Signature(names, flat[start:end])
        start = end


def _spread(entries: list[Any], has: NDArray[np.bool_]) -> list[Any]:
    """The entries of those trials that have one."""
    if has.all():
        return entries
    column = [ABSENT] * len(has)
    for row, entry in zip(np.flatnonzero(has).tolist(), entries, strict=True):
        column[row] = entry
    return column
