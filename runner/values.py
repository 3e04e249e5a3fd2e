"""Parameter values: their types, their text in a command line, and the form in which they are compared."""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

Value: TypeAlias = str | int | float | bool | None
Params: TypeAlias = dict[str, Value]

NAME = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
"""A parameter's name; dots nest it in the configuration file of the trial."""


def text_of(value: Value) -> str:
    """The value as a program's argument: Python's `str`, so that floats keep all their digits."""
    return value if isinstance(value, str) else str(value)


def canonical(value: Value) -> str:
    """Equal for equal typed values only: 1e-3 and 0.001 are one, but 1, 1.0, True and '1' are four."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def shown(value: Any) -> str:
    """A value in a message; a long one is cut."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print numbers of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:199]}…"


MAX_BITS = 4096  # Python refuses to print much longer whole numbers


def is_parameter_name(name: str) -> bool:
    """Whether a user's parameter may have this name; those that begin with _ are the runner's."""
    return re.fullmatch(NAME, name) is not None and not name.startswith("_")


def check_scalar(value: Any) -> Any:
    """Returns the value; raises ValueError, with the rest of a sentence, for one that no parameter may have."""
    if isinstance(value, dict | list):
        kind = "a mapping" if isinstance(value, dict) else "a list"
        raise ValueError(f"is {kind}; allowed: one string, number, boolean or null; in quotes it is a string")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a NUL character, which no program's argument can hold")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError(f"is a number of more than {MAX_BITS} bits")
    return value
