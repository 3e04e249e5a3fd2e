"""Rows of numbers, each with names of its own, in little more memory than the numbers take."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

Row: TypeAlias = "dict[str, float]"

_STEPS = ("step", "global_step", "iteration", "iter", "epoch")
# Above it a float may be whole where the number was not.
_WHOLE_MAX = 2.0**53


@dataclass(slots=True)
class _Alike:
    """The rows with the same names: where they stand among all, and their numbers, one row after the other."""

    places: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[float] = field(default_factory=lambda: array("d"))


class _Block(NamedTuple):
    """The rows with the same names that have a step."""

    names: tuple[str, ...]
    places: NDArray[np.int64]
    steps: NDArray[np.float64]
    numbers: NDArray[np.float64]


class Rows:
    """The rows of a file, in its order.

    Their step is `step`, `global_step`, `iteration`, `iter` or `epoch`, whichever comes first in this list and is
    anywhere in the file. One without it, such as a line of settings before the first, is none of them. Where no row
    has a step, they are counted from 1.
    """

    def __init__(self, rows: Iterable[Mapping[str, float]]) -> None:
        self._alike: dict[tuple[str, ...], _Alike] = {}
        self._floats: set[str] = set()
        for place, row in enumerate(rows, start=1):
            names = tuple(row)
            alike = self._alike.get(names)
            if alike is None:
                alike = self._alike[names] = _Alike()
            alike.places.append(place)
            alike.numbers.extend(row.values())
            if not self._floats.issuperset(names):
                self._floats.update(name for name, number in row.items() if type(number) is float)
        known = {name for names in self._alike for name in names}
        self._step = next((name for name in _STEPS if name in known), None)

    def _blocks(self) -> Iterator[_Block]:
        import numpy as np

        for names, alike in self._alike.items():
            places = np.frombuffer(alike.places, dtype=np.int64)
            numbers = np.frombuffer(alike.numbers).reshape(len(places), len(names))
            if self._step is None:
                yield _Block(names, places, places.astype(float), numbers)
            elif self._step in names:
                steps = numbers[:, names.index(self._step)]
                has = ~np.isnan(steps)
                if has.all():
                    yield _Block(names, places, steps, numbers)
                elif has.any():
                    yield _Block(names, places[has], steps[has], numbers[has])

    def last(self) -> Row:
        """Return the last value of each number that was written, also where that is NaN."""
        last: Row = {}
        for block in sorted(self._blocks(), key=lambda block: int(block.places[-1])):
            last |= dict(zip(block.names, block.numbers[-1].tolist(), strict=True))
        if self._step is not None:
            last.pop(self._step, None)
        return last

    def frame(self) -> pd.DataFrame:
        """Return one row per step, steps ascending, with the last value of each column that is not NaN."""
        import numpy as np
        import pandas as pd

        blocks = sorted(self._blocks(), key=lambda block: int(block.places[0]))
        if not blocks:
            return pd.DataFrame(columns=["step"])
        steps, found = np.unique(np.concatenate([block.steps for block in blocks]), return_inverse=True)
        rows = np.split(found, np.cumsum([len(block.places) for block in blocks])[:-1])
        columns: dict[str, NDArray[Any]] = {"step": _whole(steps)}
        for name in dict.fromkeys(name for block in blocks for name in block.names if name != self._step):
            column = _column(name, blocks, rows, len(steps))
            columns[name] = column if name in self._floats else _whole(column)
        return pd.DataFrame(columns, copy=False)


def _column(name: str, blocks: list[_Block], rows: list[NDArray[np.intp]], length: int) -> NDArray[np.float64]:
    """What was written last in each row of the table; `rows` says in which one each row of each block is."""
    import numpy as np

    parts = [
        (block.places, row, block.numbers[:, block.names.index(name)])
        for block, row in zip(blocks, rows, strict=True)
        if name in block.names
    ]
    places, row, values = map(np.concatenate, zip(*parts, strict=True)) if len(parts) > 1 else parts[0]
    if len(parts) > 1:
        order = np.argsort(places)
        row, values = row[order], values[order]
    column = np.full(length, np.nan)
    has = ~np.isnan(values)
    # Of several values for a row the last one stays.
    column[row[has]] = values[has]
    return column


def _whole(numbers: NDArray[np.float64]) -> NDArray[Any]:
    """The numbers as integers, where that changes none of them."""
    import numpy as np

    is_whole = (np.abs(numbers) < _WHOLE_MAX).all() and not (numbers % 1).any()
    return numbers.astype(np.int64) if is_whole else numbers
