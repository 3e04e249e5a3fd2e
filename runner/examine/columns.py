"""What is on record of many trials, in columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.examine.cachefile import Signature
from runner.examine.tables import ABSENT, ordered, varies

PARAM, METRICS, VALUES, FACTS = GROUPS = ("param", "metrics", "values", "facts")
SUMMARY = 6
"""Of one metric: the last value and its step, the lowest and its step, the highest and its step."""

Column = list[Any] | NDArray[Any]
"""An entry for each trial, ABSENT where it has none; an array where all are floats, or all are whole numbers.

In METRICS an array has six numbers for each trial, with NaN for what is not there; where a trial's last value is text,
the column is a list of such sixes, with None.
"""
Shape = tuple[tuple[Any, ...], ...]
"""The names that a trial has in each group, in its own order."""
Record = Mapping[str, Mapping[Any, Any]]
"""Of one trial: group → name → entry."""


@dataclass
class Trials:
    """Trials in their order: `names`, the directories within the output directory; what else is known has their order.

    A Trials is never changed, so that many may have one.
    """

    names: list[str] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    columns: dict[str, dict[Any, Column]] = field(default_factory=lambda: {group: {} for group in GROUPS})

    def __len__(self) -> int:
        return len(self.names)

    def titles(self, group: str) -> list[Any]:
        """Return the names of a group's columns, in the order in which the trials have them."""
        place = GROUPS.index(group)
        return list(dict.fromkeys(name for shape in dict.fromkeys(self.shapes) for name in shape[place]))

    def column(self, group: str, name: Any) -> Column:
        """Return a column with None where a trial has no entry."""
        column = self.columns[group].get(name)
        if column is None:
            return [None] * len(self)
        return column if isinstance(column, np.ndarray) else [None if entry is ABSENT else entry for entry in column]

    def parameters(self, varying: bool = False) -> list[Any]:
        """Return the sorted names of the parameters; with `varying`, of those that tell the trials apart."""
        names = ordered(self.titles(PARAM))
        return [name for name in names if varies(self.columns[PARAM][name])] if varying else names

    def take(self, rows: Sequence[int]) -> Trials:
        """Return the trials of these places, in this order."""
        shapes = [self.shapes[row] for row in rows]
        columns: dict[str, dict[Any, Column]] = {}
        for place, group in enumerate(GROUPS):
            has = {name for shape in set(shapes) for name in shape[place]}
            columns[group] = {name: _take(column, rows) for name, column in self.columns[group].items() if name in has}
        return Trials([self.names[row] for row in rows], [self.signatures[row] for row in rows], shapes, columns)


def _take(column: Column, rows: Sequence[int]) -> Column:
    return column[np.asarray(rows, dtype=np.intp)] if isinstance(column, np.ndarray) else [column[row] for row in rows]


class Builder:
    """Trials that are read one after the other, at most `size`.

    Columns have their whole length from the beginning: small pieces that are kept, among large ones that are not, would
    leave memory in which nothing large fits any more.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._trials = Trials()
        self._shapes: dict[Shape, Shape] = {}
        self._columns: dict[str, dict[Any, list[Any]]] = {group: {} for group in GROUPS if group != METRICS}
        self._metrics: dict[str, NDArray[np.float64]] = {}
        self._texts: dict[str, dict[int, list[Any]]] = {}

    def __len__(self) -> int:
        return len(self._trials)

    def add(self, name: str, signature: Signature, record: Record) -> None:
        """Add a trial; a metric that is None has been summarized."""
        row = len(self)
        shape = tuple(tuple(record[group]) for group in GROUPS)
        self._trials.names.append(name)
        self._trials.signatures.append(signature)
        self._trials.shapes.append(self._shapes.setdefault(shape, shape))
        for group, columns in self._columns.items():
            for title, entry in record[group].items():
                column = columns.get(title)
                if column is None:
                    column = columns[title] = [ABSENT] * self._size
                column[row] = entry
        for title, entry in record[METRICS].items():
            if entry is not None and isinstance(entry[0], str):
                self._texts.setdefault(title, {})[row] = entry
            elif entry is not None:
                self.summarize(title, [row], np.array([entry], dtype=float))

    def summarize(self, metric: str, rows: Sequence[int], summaries: NDArray[np.float64]) -> None:
        """Set a metric's six numbers for the trials of these rows, which may be added later."""
        column = self._metrics.get(metric)
        if column is None:
            column = self._metrics[metric] = np.full((self._size, SUMMARY), np.nan)
        column[rows] = summaries

    def trials(self) -> Trials:
        """Return the trials that were added."""
        count = len(self)
        for group, columns in self._columns.items():
            for title in list(columns):
                self._trials.columns[group][title] = packed(columns.pop(title)[:count])
        metrics: dict[Any, Column] = {title: column[:count] for title, column in self._metrics.items()}
        for title, texts in self._texts.items():
            numbers = metrics.get(title)
            entries = [ABSENT] * count if numbers is None else _entries(METRICS, numbers)
            metrics[title] = [texts.get(row, entry) for row, entry in enumerate(entries)]
        self._trials.columns[METRICS] = metrics
        return self._trials


def packed(column: list[Any]) -> Column:
    """Return a column that holds no metric in as little memory as it may have."""
    kinds = set(map(type, column))
    if kinds == {float}:
        return np.array(column)
    if kinds == {int} and max(map(int.bit_length, column)) < 64:
        return np.array(column, dtype=np.int64)
    if str in kinds:  # such as a host's name, which all trials share
        known: dict[str, str] = {}
        return [known.setdefault(entry, entry) if type(entry) is str else entry for entry in column]
    return column


def join(parts: Iterable[Trials]) -> Trials:
    """Return the trials of all parts, one part after the other."""
    parts = [part for part in parts if len(part)]
    if len(parts) == 1:
        return parts[0]
    shapes: dict[Shape, Shape] = {}
    sizes = list(map(len, parts))
    columns: dict[str, dict[Any, Column]] = {}
    for group in GROUPS:
        titles = dict.fromkeys(name for part in parts for name in part.columns[group])
        columns[group] = {
            name: _joined(group, [part.columns[group].get(name) for part in parts], sizes) for name in titles
        }
    return Trials(
        [name for part in parts for name in part.names],
        [signature for part in parts for signature in part.signatures],
        [shapes.setdefault(shape, shape) for part in parts for shape in part.shapes],
        columns,
    )


def _joined(group: str, columns: Sequence[Column | None], sizes: Sequence[int]) -> Column:
    if group == METRICS and not any(isinstance(column, list) for column in columns):
        return np.concatenate(
            [
                np.full((size, SUMMARY), np.nan) if column is None else column
                for column, size in zip(columns, sizes, strict=True)
            ]
        )
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    if len(arrays) == len(columns) and len({array.dtype for array in arrays}) == 1:
        return np.concatenate(arrays)
    joined: list[Any] = []
    for column, size in zip(columns, sizes, strict=True):
        joined += [ABSENT] * size if column is None else _entries(group, column)
    return joined if group == METRICS else packed(joined)


def _entries(group: str, column: Column) -> list[Any]:
    if isinstance(column, list):
        return column
    if group != METRICS:
        return list(column.tolist())
    # What is there has a step; the last value may be NaN itself.
    return [
        ABSENT if math.isnan(step) else [last, step, *(None if number != number else number for number in extremes)]
        for last, step, *extremes in column.tolist()
    ]
