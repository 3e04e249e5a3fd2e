"""The cache of curves, `output/.runner/curves.cache`: one file of plain columns, replaced as a whole.

A line with the version, the length and the checksum of a header in JSON; the header; then the columns of each block
as 8-byte numbers, each with a checksum in the header, so that only those that are asked for are read. As in the cache
of the records, every trial is there with the sizes and times of the files that its curves were read from: it may be
deleted at any time, copied along with the output directory, and read and replaced by several readers at once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine import cachefile

if TYPE_CHECKING:
    import pandas as pd

_FILE = ".runner/curves.cache"
_VERSION = 1
_TYPES = {"int64": "<i8", "float64": "<f8"}
_WIDTH = 8
_LINE_MAX = 80
BYTES_MAX = 2 << 30
"""No more is kept: on a disk that fills up, results are worth more."""
Source = list[Any]
"""Of a trial, for each file that its curves are read from: name, size and time of change in ns."""


def path(output: Path) -> Path:
    """Return the cache of an output directory."""
    return output / _FILE


@dataclass
class Block:
    """The curves of trials that have the same columns: the first trial has the first `counts[0]` rows, and so on."""

    trials: list[str]
    counts: list[int]
    frame: pd.DataFrame

    def only(self, is_wanted: list[bool]) -> Block:
        """Return the block without the trials that are not wanted."""
        if all(is_wanted):
            return self
        import numpy as np

        trials = [name for name, wanted in zip(self.trials, is_wanted, strict=True) if wanted]
        counts = [count for count, wanted in zip(self.counts, is_wanted, strict=True) if wanted]
        return Block(trials, counts, self.frame[np.repeat(is_wanted, self.counts)])


@dataclass
class _Stored:
    """A block as the file has it: in its header, and with the place where its columns begin."""

    trials: list[str]
    sources: list[Source]
    counts: list[int]
    columns: list[tuple[str, str, int]]  # name, type, checksum
    start: int = 0

    def read(self, file: BufferedReader, chosen: Collection[str] | None) -> Block:
        """Return the chosen columns; raises ValueError where they are not as they were written."""
        import numpy as np
        import pandas as pd

        found = {}
        rows = sum(self.counts)
        for place, (name, kind, checksum) in enumerate(self.columns):
            if chosen is None or name == "step" or name in chosen:
                file.seek(self.start + place * _WIDTH * rows)
                column = np.empty(rows, _TYPES[kind])
                if file.readinto(column.data) != _WIDTH * rows or zlib.crc32(column.data) != checksum:
                    raise ValueError(name)
                found[name] = column
        return Block(self.trials, self.counts, pd.DataFrame(found, copy=False))


def load(output: Path, sources: Mapping[str, Source], columns: Collection[str] | None = None) -> list[Block]:
    """Return the curves of those trials whose files are as `sources` says: `step` and the chosen columns."""
    try:
        with path(output).open("rb") as file:
            blocks = []
            for stored in _header(file):
                is_current = [
                    sources.get(name) == source for name, source in zip(stored.trials, stored.sources, strict=True)
                ]
                if any(is_current):
                    blocks.append(stored.read(file, columns).only(is_current))
            return blocks
    except (OSError, ValueError, KeyError, TypeError):
        return []


def save(output: Path, fresh: Iterable[Block], sources: Mapping[str, Source], read_at_ns: int) -> None:
    """Replace the cache by the fresh curves and what else it had; what may still change unnoticed is left out.

    A cache that can't be written is done without.
    """
    with suppress(OSError):
        limit_ns = cachefile.settled_ns(path(output), read_at_ns)
        blocks = [
            block.only([max(sources[name][2::3]) < limit_ns for name in block.trials])
            for block in fresh
            if set(map(str, block.frame.dtypes)) <= _TYPES.keys()
        ]
        signed = {name: sources[name] for block in blocks for name in block.trials}
        for block, others in _others(output, sources, set(signed)):
            blocks.append(block)
            signed |= others
        if sum(_WIDTH * block.frame.size for block in blocks) <= BYTES_MAX:
            cachefile.replace(path(output), _pieces(blocks, signed))


def _others(output: Path, sources: Mapping[str, Source], new: Collection[str]) -> list[tuple[Block, dict[str, Source]]]:
    """What the cache has of other trials: those that did not change, or were not asked for and are still there."""
    found = []
    try:
        with path(output).open("rb") as file:
            for stored in _header(file):
                signed = dict(zip(stored.trials, stored.sources, strict=True))
                is_kept = [
                    name not in new and (sources[name] == source if name in sources else (output / name).is_dir())
                    for name, source in signed.items()
                ]
                if any(is_kept):
                    found.append((stored.read(file, None).only(is_kept), signed))
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found


# --- the file ---


def _header(file: BufferedReader) -> list[_Stored]:
    """The blocks; none where the file is another version's; raises ValueError where it is damaged."""
    head = file.readline(_LINE_MAX)
    words = head.split()
    if words[:2] != [b"curves", str(_VERSION).encode()]:
        return []
    _, _, size, checksum = words
    content = file.read(int(size))
    if zlib.crc32(content) != int(checksum, 16):
        raise ValueError(head)
    start = len(head) + len(content)
    blocks = []
    for record in json.loads(content):
        blocks.append(_Stored(**record, start=start))
        start += _WIDTH * sum(record["counts"]) * len(record["columns"])
    return blocks


def _pieces(blocks: Iterable[Block], signed: Mapping[str, Source]) -> Iterator[bytes]:
    """The file's content, bit by bit, so that it is never in memory as a whole."""
    alike: dict[tuple[tuple[str, str], ...], list[Block]] = {}
    for block in blocks:
        kinds = tuple((str(name), str(kind)) for name, kind in block.frame.dtypes.items())
        alike.setdefault(kinds, []).append(block)
    header = []
    for kinds, group in alike.items():
        trials = [name for block in group for name in block.trials]
        header.append(
            {
                "trials": trials,
                "sources": [signed[name] for name in trials],
                "counts": [count for block in group for count in block.counts],
                "columns": [(name, kind, _checksum(group, name, kind)) for name, kind in kinds],
            }
        )
    content = json.dumps(header).encode()
    yield f"curves {_VERSION} {len(content)} {zlib.crc32(content):08x}\n".encode()
    yield content
    for kinds, group in alike.items():
        for name, kind in kinds:
            yield from (_bytes(block, name, kind) for block in group)


def _checksum(group: Iterable[Block], name: str, kind: str) -> int:
    checksum = 0
    for block in group:
        checksum = zlib.crc32(_bytes(block, name, kind), checksum)
    return checksum


def _bytes(block: Block, name: str, kind: str) -> bytes:
    return block.frame[name].to_numpy().astype(_TYPES[kind], copy=False).tobytes()
