"""In what two texts differ, line by line; they may be of any length."""

from __future__ import annotations

import difflib
from itertools import islice
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COMPARED_MAX = 2000
"""The lines of each that are compared, from the first difference on: with their number the time grows as its square."""
_LINE_CHARS = 1 << 16


def lines_of(file: TextIO) -> Iterator[str]:
    """The lines of a text without their ends; one that is longer than anybody reads is cut into several."""
    while line := file.readline(_LINE_CHARS):
        yield line.removesuffix("\n")


def difference(a: Iterable[str], b: Iterable[str], compared: int) -> tuple[list[str], bool]:
    """What `diff -U0` prints, and whether that is all: so many lines of each are compared, from the first other one on.

    What follows is read no further.
    """
    common, left, right = _from_first_difference(iter(a), iter(b), compared + 1)
    is_all = max(len(left), len(right)) <= compared
    left, right = left[:compared], right[:compared]
    found = []
    for tag, i, i_end, j, j_end in difflib.SequenceMatcher(None, left, right).get_opcodes():
        if tag != "equal":
            found.append(f"@@ -{_place(common + i, i_end - i)} +{_place(common + j, j_end - j)} @@")
            found += [f"-{line}" for line in left[i:i_end]] + [f"+{line}" for line in right[j:j_end]]
    return found, is_all


def _from_first_difference(a: Iterator[str], b: Iterator[str], count: int) -> tuple[int, list[str], list[str]]:
    """How many lines at the beginning are the same, and so many of each after them."""
    common = 0
    while True:
        left, right = next(a, None), next(b, None)
        if left is None or left != right:
            break
        common += 1
    rest = [[] if first is None else [first, *islice(more, count - 1)] for first, more in ((left, a), (right, b))]
    return common, rest[0], rest[1]


def _place(before: int, count: int) -> str:
    """Where some lines stand, as diff says it."""
    return str(before + 1) if count == 1 else f"{before + (count > 0)},{count}"
