"""The metrics.csv of many trials parsed together.

Parsing a file by itself costs many times what its numbers do. Files with the same header that hold nothing but whole
rows of numbers are parsed as one; the others are left to `read_metrics`, which knows everything that a file may hold.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Summary = list[Any]
"""Of one metric: the last value and its step, the lowest and its step, the highest and its step."""

_NUMERIC = b"0123456789+-.eE,\n"
_NEWLINE = ord("\n")


@dataclass
class Block:
    """Files with one header: their rows in one matrix, of which file i has those from `starts[i]` on."""

    files: list[int]
    names: list[str]
    rows: Array
    starts: NDArray[np.intp]

    def curves(self) -> Iterator[tuple[int, Array]]:
        """Each file's place among the contents and its rows."""
        return zip(self.files, np.split(self.rows, self.starts[1:]), strict=True)


def parse(contents: Sequence[bytes]) -> tuple[list[Block], list[int]]:
    """Return the blocks of the contents of metrics.csv files, and the places of those that need `read_metrics`."""
    by_header: dict[bytes, list[tuple[int, bytes]]] = {}
    rest = []
    for place, content in enumerate(contents):
        header, _, body = content[: content.rfind(b"\n") + 1].removeprefix(b"\xef\xbb\xbf").partition(b"\n")
        is_plain = body and not body.translate(None, _NUMERIC) and not header.count(b'"') and b"\n\n" not in body
        if is_plain and body[0] != _NEWLINE:
            by_header.setdefault(header, []).append((place, body))
        else:
            rest.append(place)
    blocks = []
    for header, group in by_header.items():
        block, left = _block(header, group)
        rest += left
        if block is not None:
            blocks.append(block)
    return blocks, sorted(rest)


def _block(header: bytes, group: list[tuple[int, bytes]]) -> tuple[Block | None, list[int]]:
    names = [name.strip() for name in header.decode("utf-8", "replace").split(",")]
    places = np.array([place for place, _ in group])
    if names[0] != "step" or len(set(names)) < len(names) or "" in names:
        return None, places.tolist()
    counts = np.array([body.count(b"\n") for _, body in group])
    commas = np.array([body.count(b",") for _, body in group])
    is_whole = commas == counts * (len(names) - 1)
    if not is_whole.all():
        # Rows torn by a kill are rare, so that doing the others again costs little.
        block, left = _block(header, [item for item, whole in zip(group, is_whole, strict=True) if whole])
        return block, [*places[~is_whole].tolist(), *left]
    if not group:
        return None, []
    rows = _numbers(b"".join(body for _, body in group), len(names), int(counts.sum()))
    if rows is None:
        return None, places.tolist()
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    is_rising = _is_rising(rows[:, 0], starts)
    if not is_rising.all():
        chosen = [item for item, rising in zip(group, is_rising, strict=True) if rising]
        block, left = _block(header, chosen)
        return block, [*places[~is_rising].tolist(), *left]
    return Block(places.tolist(), names, rows, starts), []


def _numbers(joined: bytes, columns: int, count: int) -> Array | None:
    """The cells of all rows; None where one is no number, or a row has more cells than the header."""
    import pandas as pd

    try:
        frame = pd.read_csv(io.BytesIO(joined), header=None, names=list(range(columns)), dtype=np.float64)
    except ValueError:  # such as 1.2.3; too many cells raise one, too, but in the first row they become the index
        return None
    return np.asarray(frame.to_numpy()) if isinstance(frame.index, pd.RangeIndex) and len(frame) == count else None


def _is_rising(steps: Array, starts: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return for each file whether its steps are numbers, each above the one before."""
    with np.errstate(invalid="ignore"):
        is_good = np.diff(steps, prepend=-np.inf) > 0
    is_good[starts] = np.isfinite(steps[starts])
    return np.logical_and.reduceat(is_good, starts)


def summaries(block: Block, left_out: set[str]) -> tuple[list[str], Array]:
    """Return the names of the columns, and files × columns × summary; NaN where a column has no number."""
    chosen = [index for index, name in enumerate(block.names) if name not in left_out]
    values, steps = block.rows[:, chosen], block.rows[:, 0]
    counts = np.diff(block.starts, append=len(values))
    rows = np.arange(len(values))[:, None]
    last = np.maximum.reduceat(np.where(np.isnan(values), -1, rows), block.starts)
    places = [last]
    for extreme in (np.fmin, np.fmax):
        best = np.repeat(extreme.reduceat(values, block.starts), counts, axis=0)
        # The first row that has it.
        places.append(np.minimum.reduceat(np.where(values == best, rows, len(values) - 1), block.starts))
    columns = np.arange(len(chosen))
    found = np.stack([part for where in places for part in (values[where, columns], steps[where])], axis=-1)
    found[last < 0] = np.nan
    return [block.names[index] for index in chosen], found


def summary_of(steps: Array, values: Array) -> Summary:
    """Return the summary of one column, of which at least one value is a number."""
    where = [np.flatnonzero(~np.isnan(values))[-1], np.nanargmin(values), np.nanargmax(values)]
    return [float(number) for index in where for number in (values[index], steps[index])]
