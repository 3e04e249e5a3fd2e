"""The settings of a table of trials: which parameters it has, and which rows share their values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runner.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
SEED = "seed"


def parameters(table: pd.DataFrame, without: Iterable[str]) -> list[Any]:
    """Return the names of the table's parameters.

    Raises:
        InputError: the table doesn't come from `wide_table`, so that nothing says which columns are parameters.
    """
    left_out = set(without)
    if "parameters" not in table.attrs:
        raise InputError("the table says nowhere which columns are parameters: set table.attrs['parameters'].")
    return [name for name in table.attrs["parameters"] if name not in left_out and name in table.columns]


def check_columns(table: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise InputError for a name that no column has."""
    from runner.errors import did_you_mean

    for name in names:
        if name in table.attrs.get("constants", ()):
            raise InputError(f"{name}: is the same in all of these trials, and so no column of their table.")
        if name not in table.columns:
            raise InputError(f"{name}: no such column.{did_you_mean(str(name), map(str, table.columns))}")


def groups(table: pd.DataFrame, names: Sequence[str]) -> list[tuple[tuple[Hashable, ...], pd.DataFrame]]:
    """The rows of each combination of values, in the order in which they come."""
    return [(key, table.iloc[chosen]) for key, chosen in members(table, names).items()]


def members(table: pd.DataFrame, names: Sequence[str]) -> dict[tuple[Hashable, ...], list[int]]:
    """The places of the rows of each combination of values; a missing value is a value."""
    places: dict[tuple[Hashable, ...], list[int]] = {}
    columns = [[key_of(value) for value in table[name]] for name in names]
    for place, key in enumerate(zip(*columns, strict=True) if columns else [()] * len(table)):
        places.setdefault(key, []).append(place)
    return places


def key_of(value: Any) -> Hashable:
    """What stands for a value in a key of `groups`: None for a missing one, text for lists and mappings."""
    import pandas as pd

    if isinstance(value, list | dict | tuple | set):
        return str(value)
    missing = pd.isna(value)
    return None if missing else value.item() if isinstance(value, np.generic) else value


def numbers(column: pd.Series[Any]) -> Array:
    """A column's numbers; NaN for what is none."""
    import pandas as pd

    found: Array = pd.to_numeric(column, errors="coerce").to_numpy(float, na_value=np.nan)
    return found
