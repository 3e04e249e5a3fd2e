"""The YAML of `param` and `stat`, read in microseconds where it is as plain as the runner writes it.

A YAML parser takes a third of a millisecond for such a file, and there are many. What is not plain is left to it, so
that the result is always the one of `yamlfile.load`.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from runner import yamlfile

_ENTRY = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*):(?: (.+))?")
_NESTED = re.compile(r"  ([A-Za-z_][A-Za-z0-9_.-]*): (.+)")
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+(?:e[-+]?[0-9]+)?")
_DOUBLE_QUOTED = re.compile(r'"(?:[^"\\]|\\["\\])*"')
_SINGLE_QUOTED = re.compile(r"'[^']*'")
_PLAIN = re.compile(r"[A-Za-z0-9_./~](?:(?!: | #).)*(?<![: ])")


_NESTING = object()


class _NotPlainError(Exception):
    """The text needs the YAML parser."""


def load(text: str) -> Any:
    """Return the value of a YAML text, as `yamlfile.load` does; raises yaml.YAMLError and ValueError as it does."""
    try:
        return _plain_mapping(text)
    except _NotPlainError:
        return yamlfile.load(text)


def _plain_mapping(text: str) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    inner: dict[Any, Any] | None = None
    for line in text.rstrip("\n").split("\n"):
        if inner is not None and line[:2] == "  ":
            entry = _NESTED.fullmatch(line)
            if entry is None:
                raise _NotPlainError
            inner[_word(entry[1])] = _value(entry[2])
            continue
        if inner == {}:
            raise _NotPlainError
        inner = None
        if line[:1] == "_":  # one of the runner's own, which differs from trial to trial
            key, value = _read_entry(line)
        elif line or not mapping:
            key, value = _entry(line)
        else:
            continue
        if value is _NESTING:
            value = inner = {}
        mapping[key] = value
    if inner == {}:
        raise _NotPlainError
    return mapping


def _read_entry(line: str) -> tuple[Any, Any]:
    entry = _ENTRY.fullmatch(line)
    if entry is None:
        raise _NotPlainError
    if entry[2] is None:
        return _word(entry[1]), _NESTING
    return _word(entry[1]), _value(entry[2])


# The same few lines stand in the files of many trials.
_entry = functools.lru_cache(maxsize=16384)(_read_entry)


def _value(text: str) -> Any:
    if text[0] == '"':
        if not _DOUBLE_QUOTED.fullmatch(text) or not text.isprintable():
            raise _NotPlainError
        return json.loads(text) if "\\" in text else text[1:-1]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if not text.isprintable():
        raise _NotPlainError
    if _SINGLE_QUOTED.fullmatch(text):
        return text[1:-1]
    if not _PLAIN.fullmatch(text):
        raise _NotPlainError
    # Nothing but a string has a space inside.
    return text if " " in text else _word(text)


@functools.lru_cache(maxsize=65536)
def _word(text: str) -> Any:
    try:
        return yamlfile.load(text)
    except ValueError as error:  # a number that Python refuses
        raise _NotPlainError from error
