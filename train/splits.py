"""The names of splits: `train`, `train[90%:]`, `train[:100]`, `train+val`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.errors import TrainError, nearest

NAME = re.compile(r"(?P<name>[\w.-]+)(\[(?P<first>-?(\d+|\d+(\.\d+)?%))?:(?P<last>-?(\d+|\d+(\.\d+)?%))?\])?")


@dataclass(frozen=True)
class Part:
    """The examples `first` to `last` - 1 of a split."""

    name: str
    first: int
    last: int


def parse_split(text: str, sizes: Mapping[str, int]) -> list[Part]:
    """Return the parts that a text names, of splits with these sizes; a percentage is rounded to an example."""
    parts = []
    for term in text.split("+"):
        match = NAME.fullmatch(term.strip())
        if match is None:
            raise TrainError(f"split {text!r}: {term!r} is none; allowed are such as train, train[90%:], train[:100]")
        name = match["name"]
        if name not in sizes:
            hint = nearest(name, sizes) or f": allowed are {', '.join(sizes)}"
            raise TrainError(f"split {text!r}: the data has no {name!r}{hint}")
        first, last = (
            _edge(match[key], sizes[name], default) for key, default in (("first", 0), ("last", sizes[name]))
        )
        if first >= last:
            raise TrainError(f"split {text!r}: it is empty, as {name} has {sizes[name]} examples")
        parts.append(Part(name, first, last))
    return parts


def _edge(text: str | None, size: int, default: int) -> int:
    if text is None:
        return default
    edge = round(float(text[:-1]) * size / 100) if text.endswith("%") else int(text)
    return min(max(edge + size if text.startswith("-") else edge, 0), size)


def shuffled(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows in an order that is always the same, so that any part of a sorted set is like the whole."""
    return np.random.default_rng(len(rows)).permutation(rows)


def with_test_split(n: int) -> dict[str, NDArray[np.int64]]:
    """Set a fifth of `n` rows apart as the test split."""
    rows = shuffled(np.arange(n))
    return {"train": rows[n // 5 :], "test": rows[: n // 5]}


def spaced(rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return `limit` of the rows, evenly spaced (0: all)."""
    n = min(limit or len(rows), len(rows))
    return rows[np.arange(n) * len(rows) // n]
