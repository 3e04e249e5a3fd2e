"""Gathers, stages that run once over many trials: which unit a trial uses, what a unit needs, who waits in a circle."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.naming import MAX_NAME_BYTES, MAX_VALUE_CHARACTERS, component, with_hash
from runner.values import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runner.grid import Pattern
    from runner.template import Template
    from runner.values import Params, Value

ALL = "all"
PLACEHOLDER = re.compile(r"\{_gather\.([^{}]*)\}")
PREFIXES = ("gather.", "search.")  # of directories that hold no trial, but units
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]*\Z")
_PERCENTAGE = re.compile(r"(\d{1,3})\s*%\Z", re.ASCII)


@dataclass(frozen=True)
class Gather:
    """A gather of params.yaml: `of` are titles of sweeps, `where` gives the canonical values of some parameters."""

    name: str
    template: Template
    of: tuple[str, ...]
    where: Pattern
    by: tuple[str, ...]
    need: int | str
    place: str  # in the file, for messages

    def takes(self, params: Params) -> bool:
        """Whether a trial of its sweeps is one of its members."""
        return all(key in params and canonical(params[key]) in values for key, values in self.where.items())

    def unit(self, params: Params) -> str:
        """The name of the unit to which a trial with these parameters belongs, which is its directory's, too."""
        return f"gather.{self.name}/{_group({key: params[key] for key in self.by})}"


def _group(values: Params) -> str:
    name = "-".join(component(key, value) for key, value in values.items()) or ALL
    # Two values may look the same in a name: 1, 1.0 and '1'.
    if len(name.encode()) > MAX_NAME_BYTES or not all(map(_is_plain, values.values())):
        text = "\n".join(f"{key}: {canonical(value)}" for key, value in values.items())
        return with_hash(name, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
    return name


def _is_plain(value: Value) -> bool:
    if isinstance(value, str):
        is_whole = len(value) <= MAX_VALUE_CHARACTERS
        return is_whole and bool(_PLAIN.match(value)) and value not in {"T", "F", "None", "nan", "inf"}
    return not (isinstance(value, float) and value.is_integer())


def gather_of(unit: str) -> str:
    """The gather of a unit's name."""
    return unit.partition("/")[0].removeprefix("gather.")


def names_in(value: object) -> list[str]:
    """The gathers that a value of a grid names as `{_gather.NAME}`."""
    return PLACEHOLDER.findall(value) if isinstance(value, str) else []


def expand(params: Params, gathers: Mapping[str, Gather], output: str) -> tuple[Params, dict[str, list[str]]]:
    """A trial's parameters with the directories of gathers in them, and for each unit the places that they name.

    Raises:
        KeyError: a parameter by which a gather is grouped is not the trial's.
    """
    places: dict[str, list[str]] = {}
    expanded = dict(params)
    for key, value in params.items():
        if not names_in(value):
            continue
        text = str(value)
        for name in names_in(text):
            unit = gathers[name].unit(params)
            directory = f"{output}/{unit}"
            text = text.replace(f"{{_gather.{name}}}", directory)
            places.setdefault(unit, []).append(text[text.index(directory) :])
        expanded[key] = text
    return expanded, places


def readable(value: Value) -> Value:
    """The value as it stands in a directory's name: the gather's name in place of its placeholder."""
    return PLACEHOLDER.sub(r"\1", value) if isinstance(value, str) else value


def readable_values(values: Sequence[Value]) -> Sequence[Value]:
    """The same for all values of a parameter."""
    return values if isinstance(values, range) else [readable(value) for value in values]


def needed(need: int | str, count: int) -> int:
    """How many of `count` members must be complete; a percentage is rounded up.

    Raises:
        ValueError: with the rest of a sentence: it is no such number.
    """
    if need == ALL:
        return count
    if isinstance(need, int) and not isinstance(need, bool) and need > 0:
        return need
    match = _PERCENTAGE.match(need) if isinstance(need, str) else None
    if match is None or not 0 < int(match[1]) <= 100:
        raise ValueError("is no such number; allowed: all, a number above 0, or a percentage such as 80%")
    return math.ceil(count * int(match[1]) / 100)


def cycle(follows: Mapping[str, Iterable[str]]) -> list[str] | None:
    """A circle in a graph, its first name again at its end; None when there is none."""
    done: set[str] = set()
    for start in follows:
        path: list[str] = []
        ways: list[Iterator[str]] = [iter([start])]
        while ways:
            name = next(ways[-1], None)
            if name is None:
                ways.pop()
                if path:
                    done.add(path.pop())
            elif name in path:
                return [*path[path.index(name) :], name]
            elif name not in done:
                path.append(name)
                ways.append(iter(follows.get(name, ())))
    return None


def sentence(complete: int, need: int, count: int, others: Sequence[str]) -> str:
    """Why a gather cannot run: how many of its members are complete, and what some others came to."""
    shown = "; ".join(others[:3]) + (f" and {len(others) - 3:,} more" if len(others) > 3 else "")
    shown = shown or "a search brought no more, or lost them"
    return f"{complete:,} of {count:,} trials are complete, needed are {need:,} ({shown})"
