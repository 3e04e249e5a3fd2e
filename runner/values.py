"""Parameter values: their types, their text in a command line, and the form in which they are compared."""

from __future__ import annotations

import json
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool | None
Params: TypeAlias = dict[str, Value]


def text_of(value: Value) -> str:
    """The value as a program's argument: Python's `str`, so that floats keep all their digits."""
    return value if isinstance(value, str) else str(value)


def canonical(value: Value) -> str:
    """Equal for equal typed values only: 1e-3 and 0.001 are one, but 1, 1.0, True and '1' are four."""
    return json.dumps(value) if isinstance(value, str) else repr(value)
