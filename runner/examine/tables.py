"""Which columns a table of experiments has, and how its rows are printed."""

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from runner.examine.columns import Column


def several(names: str | Iterable[str]) -> list[str]:
    """The names; one that stands alone is not taken for its letters."""
    return [names] if isinstance(names, str) else list(names)


def identity(value: Any) -> Hashable:
    """Return what two values share only if they are the same parameter value.

    1, 1.0, True and "1" are four values; a NaN equals itself; lists and mappings are compared by content.
    """
    if isinstance(value, Mapping):
        entries = [(repr(identity(key)), identity(entry)) for key, entry in value.items()]
        return ("mapping", tuple(sorted(entries, key=lambda entry: entry[0])))
    if isinstance(value, list | tuple):
        return ("sequence", tuple(identity(entry) for entry in value))
    return (type(value).__name__, repr(value))


def is_private(key: Any) -> bool:
    """Return whether a key of `param` is the runner's own (`_name`, `_time`, …)."""
    return isinstance(key, str) and key.startswith("_")


def ordered(keys: Iterable[Any]) -> list[Any]:
    """Return the distinct keys sorted, by their text where they can't be compared."""
    distinct = list(dict.fromkeys(keys))
    try:
        return sorted(distinct)
    except TypeError:
        return sorted(distinct, key=str)


def parameter_names(params: Sequence[Mapping[Any, Any]], varying: bool = False) -> list[Any]:
    """Return the sorted names of the parameters; with `varying`, of those that tell the trials apart.

    A parameter that only some of the trials have varies.
    """
    keys = dict.fromkeys(itertools.chain.from_iterable(params))
    names = ordered(key for key in keys if not is_private(key))
    if not varying:
        return names
    return [name for name in names if varies([param.get(name, ABSENT) for param in params])]


_INT_BITS = 63
ABSENT: Any = object()
"""What stands in a column for a trial that has no entry there, not even None."""


def varies(column: "Sequence[Any] | NDArray[Any]") -> bool:
    """Return whether two of the values differ, as `identity` sees it; arrays are of 8-byte numbers."""
    if not isinstance(column, Sequence):
        is_nan = column != column
        bits = column.view("i8")  # which tell -0.0 from 0.0
        return bool((bits[1:] != bits[:1]).any() and not is_nan.all())
    kinds = set(map(type, column))
    if len(kinds) != 1:
        return bool(kinds)
    if kinds <= {int, bool, str, type(None)}:
        return len(set(column)) > 1
    return len({identity(value) for value in set(column)} if kinds == {float} else set(map(identity, column))) > 1


def typed(column: "Column") -> Any:
    """Return a column that keeps what its values are: whole numbers and booleans stay so where a trial has none."""
    import numpy as np
    import pandas as pd

    if not isinstance(column, list):
        return column
    kinds = set(map(type, column))
    is_wide = int in kinds and any(type(value) is int and value.bit_length() > _INT_BITS for value in column)
    if kinds == {int, type(None)} and not is_wide:
        return pd.array(column, dtype="Int64")
    if kinds == {bool, type(None)}:
        return pd.array(column, dtype="boolean")
    if kinds <= {int, float, type(None)} and kinds & {float} and not is_wide:
        return np.array(column, dtype=float)  # None is NaN there
    if (kinds <= {int} and not is_wide) or kinds <= {bool}:
        return column
    return pd.Series(column, dtype="object").array


def print_rows(headers: Sequence[Any], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table as tab-separated lines; tabs and line ends within a value are written as \\t and \\n."""
    for row in [headers, *rows]:
        print("\t".join(str(cell).translate(_TSV_ESCAPES) for cell in row))


_TSV_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})
