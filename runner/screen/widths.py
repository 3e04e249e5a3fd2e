"""What of a wide table of results is shown on a narrow screen: parts of long texts, and the columns that tell most."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

from rich.cells import cell_len

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_GAP = 2  # cells of the screen between two columns
_SHORT = 12  # so many cells are left of a long text at least, and of a header on one line
_WORD_END = re.compile(r"[^\w.]")


@dataclass(frozen=True)
class Column:
    """A column as text; what is no `is_text` is never shortened, and what is no `is_parameter` never left out."""

    header: str
    cells: tuple[str, ...]
    is_parameter: bool
    is_text: bool

    @cached_property
    def widest(self) -> int:
        """The cells of the screen that it takes as it is."""
        return max(1, *map(cell_len, (self.header, *self.cells)))

    @cached_property
    def least(self) -> int:
        """Those that it needs, its header on several lines."""
        values = 0 if self.is_text else max(map(cell_len, self.cells), default=0)
        return max(values, min(self.widest, _SHORT))


@dataclass(frozen=True)
class Fitted:
    """Tables to be shown one below the other, each of columns with their widths, and the headers that are in none."""

    tables: list[list[tuple[Column, int]]]
    left_out: list[str]


def taken(widths: Iterable[int]) -> int:
    """The cells of the screen that a table takes whose columns have these widths."""
    return sum(width + _GAP for width in widths) - _GAP


def whole(columns: Sequence[Column]) -> Fitted:
    """All columns as they are."""
    return Fitted([[(column, column.widest) for column in columns]], [])


def fit(columns: Sequence[Column], width: int) -> Fitted:
    """What is shown on a screen of `width` cells.

    Texts are shortened first; then the parameters go that tell least. Metrics that one parameter leaves no room for
    come in further tables, each with the parameters that half of the screen has room for.
    """
    if taken(column.widest for column in columns) <= width:
        return whole(columns)
    parameters = [column for column in columns if column.is_parameter]
    metrics = [column for column in columns if not column.is_parameter]
    kept = _most_telling(parameters, width - sum(column.least + _GAP for column in metrics))
    if _least(kept + metrics) > width:
        kept = _most_telling(parameters, width // 2)
    groups = _groups(metrics, width - _least(kept) - _GAP)
    left_out = [column.header for column in parameters if column not in kept]
    return Fitted([_narrowed(kept + group, width) for group in groups], left_out)


def _least(columns: Iterable[Column]) -> int:
    return taken(column.least for column in columns)


def _most_telling(parameters: Sequence[Column], room: int) -> list[Column]:
    """The parameters that are left of which there is room for; one at least."""
    kept = list(parameters)
    while len(kept) > 1 and _least(kept) > room:
        del kept[_least_telling(kept)]
    return kept


def _least_telling(parameters: Sequence[Column]) -> int:
    """The place of a column without which all rows still differ as they do; else the seed; else where most still do."""

    def differing(columns: Sequence[Column]) -> int:
        return len(set(zip(*(column.cells for column in columns), strict=True)))

    def worth(place: int) -> tuple[bool, bool, int, int, int]:
        column, left = parameters[place], differing([*parameters[:place], *parameters[place + 1 :]])
        # Of equals the widest goes, as then the fewest must.
        return left < differing(parameters), column.header != "seed", -left, -column.least, -place

    return min(range(len(parameters)), key=worth)


def _groups(metrics: Sequence[Column], room: int) -> list[list[Column]]:
    """The metrics of each table; one at least, however wide it is."""
    groups: list[list[Column]] = [[]]
    for column in metrics:
        if groups[-1] and _least([*groups[-1], column]) > room:
            groups.append([])
        groups[-1].append(column)
    return groups


def _narrowed(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """The columns of one table: the widest are made as narrow as they must be."""

    def widths(most: int) -> list[int]:
        return [max(column.least, min(column.widest, most)) for column in columns]

    most = next((most for most in range(width, _SHORT, -1) if taken(widths(most)) <= width), _SHORT)
    return [
        (replace(column, cells=tuple(shortened(column.cells, size))) if column.is_text else column, size)
        for column, size in zip(columns, widths(most), strict=True)
    ]


def shortened(texts: Sequence[str], width: int) -> list[str]:
    """Texts in at most `width` cells of the screen.

    They are cut where most of them stay different: if that is all the same at their left, as the end of a path says
    most; otherwise also at the right without what all end with, in the middle, or at the right.

    >>> shortened(["adamw", "/home/me/data/large.bin", "/home/me/data/small.bin"], 10)
    ['adamw', '…large.bin', '…small.bin']
    >>> shortened(["/home/me/lr_0.1-seed_0/checkpoints", "/home/me/lr_0.01-seed_0/checkpoints"], 10)
    ['…e/lr_0.1…', '…/lr_0.01…']
    """
    is_long = [cell_len(text) > width for text in texts]
    alike = _common_ending([text for text, cut in zip(texts, is_long, strict=True) if cut])
    ways: tuple[Callable[[str], str], ...] = (
        lambda text: "…" + _ending(text, width - 1),
        lambda text: "…" + _ending(text.removesuffix(alike), width - 2) + "…",
        lambda text: without_middle(text, width),
        lambda text: _beginning(text, width - 1) + "…",
    )
    found = [[way(text) if cut else text for text, cut in zip(texts, is_long, strict=True)] for way in ways]
    return max(found, key=lambda some: len(set(some)))


def without_middle(text: str, width: int) -> str:
    """A text of which a narrow column shows the beginning and the end.

    >>> without_middle("Lr_0.1-Momentum_0.9-Seed_3", 14)
    'Lr_0.1…-Seed_3'
    """
    if cell_len(text) <= width:
        return text
    half = (width - 1) // 2
    return _beginning(text, half) + "…" + _ending(text, width - 1 - half)


def _common_ending(texts: Sequence[str]) -> str:
    """What all texts end with, in whole words."""
    places = takewhile(lambda characters: len(set(characters)) == 1, zip(*map(reversed, texts), strict=False))
    ending = "".join(characters[0] for characters in places)[::-1]
    found = _WORD_END.search(ending)
    return ending[found.start() :] if found else ""


def _ending(text: str, cells: int) -> str:
    kept = text[-cells:]
    while cell_len(kept) > cells:
        kept = kept[1:]
    return kept


def _beginning(text: str, cells: int) -> str:
    kept = text[:cells]
    while cell_len(kept) > cells:
        kept = kept[:-1]
    return kept
