"""A trial's directory name: readable, bounded, and never shared by two trials.

The rules are mlrunner's (`Norm_new-Moment_0.1`). Where they would give two parameters or values the same text, the
name ends in a short hash of the trial's id.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.values import Value

MAX_NAME_BYTES = 143  # what eCryptfs allows, the least of the file systems in use
MAX_VALUE_CHARACTERS = 100
HASH_LENGTH = 8
UNNAMED = "default"

_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]")


def short_key(key: str) -> str:
    """`label_smoothing` becomes `LaSmoothing`: words but the last are cut to two letters, all are capitalised."""
    separator = "-" if "-" in key else "_"
    *first, last = key.split(separator)
    return "".join(word[:2].title() if len(word) > 2 else word for word in first) + last.title()


def short_value(value: Value) -> str:
    """The value in a directory's name; `T` and `F` for booleans, numbers short but with all their digits."""
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, (int, float)):
        return _short_number(value)
    text = str(value)
    return _UNSAFE.sub("_", re.sub(r"^[/.]+", "", text))[-MAX_VALUE_CHARACTERS:]


def _short_number(value: float) -> str:
    if abs(value) > 1e300:  # beyond it `g` overflows on whole numbers
        return repr(value)
    brief = f"{value:g}"
    return brief if float(brief) == value or value != value else repr(value)


def component(key: str, value: Value) -> str:
    """One parameter's part of the name."""
    return f"{short_key(key)}_{short_value(value)}"


def _is_in_range(owner: tuple[str, type, Value], text: str, ranges: Sequence[tuple[str, Sequence[Value]]]) -> bool:
    """Whether a number of another parameter's range, or of another type, has the text of this value."""
    try:
        number = int(float(short_value(owner[2])))
    except (ValueError, OverflowError):
        return False
    return any(
        number in values and component(key, number) == text and owner != (key, int, number) for key, values in ranges
    )


class Namer:
    """Names trials so that no two share one, given every parameter value that may occur.

    A name depends on the trial and on the set of values alone, not on the order in which trials are named.
    """

    def __init__(self, leaves: Sequence[tuple[str, Sequence[Value]]]) -> None:
        """`leaves`: each parameter of each sweep with its values; repeated ones are welcome."""
        ranges = [(key, values) for key, values in leaves if isinstance(values, range)]
        owners: dict[str, tuple[str, type, Value]] = {}
        self._ambiguous: set[str] = set()
        # A value with one of these inside could be mistaken for the next parameter.
        heads = {f"-{short_key(key)}_" for key, _ in leaves}
        for key, values in leaves:
            # The numbers of a range differ among themselves; it may be too long to be looked at one by one.
            for value in () if isinstance(values, range) else values:
                text = component(key, value)
                owner = (key, type(value), value)
                is_double = owners.setdefault(text, owner) != owner or _is_in_range(owner, text, ranges)
                if is_double or any(head in text for head in heads):
                    self._ambiguous.add(text)
        keys: dict[str, str] = {}
        self._ambiguous_keys = {key for key, _ in ranges if keys.setdefault(short_key(key), key) != key}
        self._ambiguous_keys |= {keys[short_key(key)] for key in self._ambiguous_keys}

    def name(self, params: Mapping[str, Value], trial_id: str) -> str:
        """The directory name for the parameters that the sweep sets, in their order."""
        parts = [component(key, value) for key, value in params.items()]
        name = "-".join(parts) or UNNAMED
        too_long = len(name.encode()) > MAX_NAME_BYTES
        reserved = name.startswith(".") or name in {"param", "stat"}
        is_ambiguous = not self._ambiguous.isdisjoint(parts) or not self._ambiguous_keys.isdisjoint(params)
        if too_long or reserved or is_ambiguous:
            return with_hash(name, trial_id)
        return name


def with_hash(name: str, trial_id: str) -> str:
    """The name cut to fit and ended by a hash, so that it is the trial's alone."""
    suffix = f"-{trial_id[:HASH_LENGTH]}"
    room = MAX_NAME_BYTES - len(suffix)
    return name.encode()[:room].decode(errors="ignore").lstrip(".") + suffix
