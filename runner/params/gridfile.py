"""A grid document of params.yaml to a Sweep."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any

from runner.errors import InputError, did_you_mean
from runner.gather import names_in
from runner.grid import Choices, Grid, Link, Sweep, Union, Zip
from runner.params import searchfile
from runner.values import canonical, check_scalar, is_parameter_name, shown, text_of
from runner.yamlfile import Document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.grid import Axis, Pattern, Settings
    from runner.values import Value
    from runner.yamlfile import KeyPath

SWEEP_KEYS = frozenset({"_title", "_cmd", "_zip", "_exclude", "_priority", "_after", "_search"})
GRID_KEYS = frozenset({"_zip"})
RANGES = frozenset({"_range", "_linspace", "_logspace"})
LIST = "LIST"
_MAX_POINTS = 10_000_000


@dataclass(frozen=True)
class Known:
    """What a grid may refer to: the stages, and the cases of each alias."""

    stages: Sequence[str]
    settings: Settings


def parse_round(document: Document, known: Known) -> Sweep:
    """Reads the grid of a search's later round.

    Raises:
        InputError: it is not as it must be.
    """
    value = document.value
    for key in ("_title", "_search") if isinstance(value, dict) else ():
        if key in value:
            raise InputError(f"{document.place((key,))}: belongs to the search's first grid, in params.yaml.")
    return parse_sweep(document, known)


def parse_sweep(document: Document, known: Known) -> Sweep:
    """Reads one grid document.

    Raises:
        InputError: it is not as it must be.
    """
    if not isinstance(document.value, dict):
        raise InputError(f"{document.place()}: a grid must be a mapping of parameters to their values.")
    reader = _Reader(document, known)
    grid = reader.grid(document.value, (), SWEEP_KEYS)
    return Sweep(
        grid=grid,
        exclude=reader.exclude(grid),
        title=reader.title(),
        stages=reader.stages(),
        priority=reader.priority(),
        links=reader.links(),
        search=searchfile.read(document),
    )


def always_set(grid: Grid, settings: Settings) -> frozenset[str]:
    """The parameters that every combination of a grid sets, those of its aliases included."""
    names: set[str] = set()
    for axis in grid.axes:
        if isinstance(axis, Union):
            names |= frozenset.intersection(*(always_set(branch, settings) for branch in axis.grids))
        else:
            names |= {name for key in _keys(axis) for name in settings.targets(key)}
    return frozenset(names)


def _keys(axis: Axis) -> set[str]:
    if isinstance(axis, Choices):
        return {axis.key}
    if isinstance(axis, Zip):
        return set(axis.columns)
    assert isinstance(axis, Union)
    return {key for grid in axis.grids for inner in grid.axes for key in _keys(inner)}


def _meet(pattern: frozenset[str], values: Sequence[Value]) -> bool:
    """Whether a pattern names, in canonical form, any of an axis's values."""
    if isinstance(values, range):  # may be very long
        return any(text.lstrip("-").isdecimal() and int(text) in values for text in pattern)
    return not pattern.isdisjoint(map(canonical, values))


class _Reader:
    """Reads the parts of one document; `path` is where a part stands in it."""

    def __init__(self, document: Document, known: Known) -> None:
        self._document = document
        self._known = known
        self._links: list[Link] = []

    def grid(self, mapping: Mapping[str, Any], path: KeyPath, own_keys: frozenset[str]) -> Grid:
        axes: list[Axis] = []
        owner: dict[str, str] = {}
        for key, value in mapping.items():
            for axis in self._axes(key, value, (*path, key), own_keys):
                self._claim(axis, key, (*path, key), owner)
                axes.append(axis)
        return Grid(tuple(axes))

    def _axes(self, key: str, value: Any, path: KeyPath, own_keys: frozenset[str]) -> list[Axis]:
        if key == "_zip":
            return self._zips(value, path)
        if key in own_keys:
            return []
        if key.startswith("_"):
            hint = did_you_mean(key, own_keys)
            allowed = ", ".join(sorted(own_keys))
            raise self._error(path, f"keys that begin with _ belong to the runner.{hint} Allowed here: {allowed}.")
        if key.startswith(LIST):
            return [self._union(value, path)]
        return [Choices(self._name(key, path), self._values(key, value, path))]

    def _claim(self, axis: Axis, key: str, path: KeyPath, owner: dict[str, str]) -> None:
        for name in sorted({target for own in _keys(axis) for target in self._known.settings.targets(own)}):
            if name in owner:
                other = owner[name]
                raise self._error(path, f"sets the parameter `{name}`, which `{other}` sets too; remove one of them.")
            owner[name] = key

    def _name(self, key: str, path: KeyPath) -> str:
        if not is_parameter_name(key):
            raise self._error(path, f"{key!r} is no parameter name; allowed: letters, digits, -, _ and dots inside.")
        return key

    def _union(self, value: Any, path: KeyPath) -> Union:
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            raise self._error(path, f"{value!r} is no list of sub-grids; allowed: mappings of parameters to values.")
        return Union([self.grid(item, (*path, index), GRID_KEYS) for index, item in enumerate(value)])

    def _zips(self, value: Any, path: KeyPath) -> list[Axis]:
        items = value if isinstance(value, list) else [value]
        if not items or not all(isinstance(item, dict) and item for item in items):
            raise self._error(path, "takes mappings of parameters to lists of equal length.")
        return [
            self._zip(item, (*path, index) if isinstance(value, list) else path) for index, item in enumerate(items)
        ]

    def _zip(self, mapping: Mapping[str, Any], path: KeyPath) -> Zip:
        columns = {
            self._name(key, (*path, key)): self._values(key, value, (*path, key)) for key, value in mapping.items()
        }
        lengths = {key: len(values) for key, values in columns.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise self._error(path, f"these go together and need as many values each, but {told}.")
        return Zip(columns)

    def _values(self, key: str, value: Any, path: KeyPath) -> Sequence[Value]:
        if isinstance(value, dict):
            values = self._range(value, path)
        elif isinstance(value, list):
            values = value
        else:
            values = [value]
        if not values:
            raise self._error(path, "the list of values is empty; a grid over it has no trial.")
        if not isinstance(values, range):
            for index, item in enumerate(values):
                self._check_value(key, item, (*path, index) if isinstance(value, list) else path)
        elif key in self._known.settings.alias:
            self._check_value(key, values[0], path)
        return values

    def _check_value(self, key: str, value: Any, path: KeyPath) -> None:
        try:
            check_scalar(value)
        except ValueError as error:
            raise self._error(path, f"{shown(value)} {error}.") from None
        self._links += [Link(name, key, str(self._document.place(path))) for name in names_in(value)]
        cases = self._known.settings.alias.get(key)
        if cases is not None and text_of(value) not in cases:
            hint = did_you_mean(text_of(value), cases)
            raise self._error(path, f"the alias `{key}` has no case {value!r}.{hint} Allowed: {', '.join(cases)}.")

    def _range(self, mapping: Mapping[str, Any], path: KeyPath) -> Sequence[Value]:
        kind = next(iter(mapping), "")
        if len(mapping) != 1 or kind not in RANGES:
            allowed = f"a value, a list of values, or one of {', '.join(sorted(RANGES))}"
            raise self._error(path, f"{mapping!r} is a mapping; allowed: {allowed}.{did_you_mean(kind, RANGES)}")
        numbers = mapping[kind]
        try:
            return _RANGE_OF[kind](numbers)
        except (ValueError, TypeError) as error:
            raise self._error((*path, kind), f"{shown(numbers)} {error}.") from None

    def exclude(self, grid: Grid) -> tuple[Pattern, ...]:
        value = self._document.value.get("_exclude", [])
        items = value if isinstance(value, list) else [value]
        known: dict[str, list[Sequence[Value]]] = {}
        for key, values in grid.leaves():
            known.setdefault(key, []).append(values)
        return tuple(self._pattern(item, ("_exclude", index), known) for index, item in enumerate(items))

    def _pattern(self, item: Any, path: KeyPath, known: Mapping[str, list[Sequence[Value]]]) -> Pattern:
        if not isinstance(item, dict) or not item:
            raise self._error(path, f"{item!r} is no pattern; allowed: a mapping such as {{seed: 2, size: small}}.")
        pattern: dict[str, frozenset[str]] = {}
        for key, value in item.items():
            if key not in known:
                hint = did_you_mean(key, known)
                raise self._error((*path, key), f"the grid has no parameter `{key}`.{hint} It has: {', '.join(known)}.")
            values = self._values(key, value, (*path, key))
            if isinstance(values, range) and len(values) > _MAX_POINTS // 10:
                raise self._error((*path, key), f"{shown(value)} names too many values to be excluded one by one.")
            pattern[key] = frozenset(map(canonical, values))
            if not any(_meet(pattern[key], axis) for axis in known[key]):
                place = self._document.place((*path, key))
                self._document.warnings.append(f"{place}: {shown(value)} is no value of the grid; nothing is left out")
        return pattern

    def title(self) -> str | None:
        title = self._document.value.get("_title")
        if title is not None and (not isinstance(title, str) or not title.strip()):
            raise self._error(("_title",), f"{title!r} is no title; allowed: a string.")
        return title

    def stages(self) -> tuple[str, ...] | None:
        if "_cmd" not in self._document.value:
            return None
        given = self._document.value["_cmd"]
        wanted = given if isinstance(given, list) else [given]
        known = self._known.stages
        if not wanted:
            raise self._error(("_cmd",), "the list is empty; leave `_cmd` out to run all stages.")
        for stage in wanted:
            if stage not in known:
                hint = did_you_mean(str(stage), known)
                raise self._error(("_cmd",), f"no stage {stage!r}.{hint} Allowed: {', '.join(known)}.")
        return tuple(stage for stage in known if stage in wanted)

    def priority(self) -> int:
        priority = self._document.value.get("_priority", 0)
        if type(priority) is not int:
            raise self._error(
                ("_priority",), f"{priority!r} is no priority; allowed: a whole number, higher ones first."
            )
        return priority

    def links(self) -> tuple[Link, ...]:
        given = self._document.value.get("_after", [])
        names = given if isinstance(given, list) else [given]
        if not all(isinstance(name, str) for name in names):
            raise self._error(("_after",), f"{given!r} is no gather's name; allowed: one, or a list of them.")
        place = str(self._document.place(("_after",)))
        return (*self._links, *(Link(name, "_after", place) for name in names))

    def _error(self, path: KeyPath, message: str) -> InputError:
        return InputError(f"{self._document.place(path)}: {message}")


# --- ranges ---


def _numbers(value: Any, *counts: int) -> list[int | float]:
    is_list = isinstance(value, list) and len(value) in counts
    if not is_list or any(isinstance(item, bool) or not isinstance(item, int | float) for item in value):
        raise ValueError(f"is not what it takes: {' or '.join(map(str, counts))} numbers")
    if not all(abs(item) <= sys.float_info.max for item in value):  # NaN is not, either
        raise ValueError("holds a number that is not finite, or too large")
    return list(value)


def _range(value: Any) -> Sequence[Value]:
    """[start, end] or [start, end, step], the end left out; of decimals as they are written."""
    start, end, step = (*_numbers(value, 2, 3), 1)[:3]
    if step == 0:
        raise ValueError("has a step of 0")
    first, last, stride = (Decimal(str(item)) for item in (start, end, step))
    count = max(0, int(((last - first) / stride).to_integral_value(ROUND_CEILING)))
    if all(isinstance(item, int) for item in (start, end, step)):
        if count > sys.maxsize:
            raise ValueError(f"has more than {sys.maxsize} values")
        return range(int(start), int(end), int(step))
    _check_count(count)
    return [float(first + index * stride) for index in range(count)]


def _linspace(value: Any) -> Sequence[Value]:
    """[first, last, count], both ends included."""
    return _between(value, lambda first, last, share: first * (1 - share) + last * share)


def _logspace(value: Any) -> Sequence[Value]:
    """[first, last, count], both ends included, each value the same factor from the one before."""
    first, last, _ = _numbers(value, 3)
    if first <= 0 or last <= 0:
        raise ValueError("has an end that is not above 0")
    return _between(value, lambda first, last, share: first ** (1 - share) * last**share)


def _between(value: Any, at: Callable[[float, float, float], float]) -> Sequence[Value]:
    first, last, count = _numbers(value, 3)
    if not isinstance(count, int) or count < 1:
        raise ValueError("has a third number that is no count")
    _check_count(count)
    # Without the last digits, which the arithmetic made: 0.001, not 0.0010000000000000002. The ends are as written.
    inner = [float(f"{at(first, last, index / (count - 1)):.12g}") for index in range(1, count - 1)]
    return [float(first), *inner, float(last)][:count]


def _check_count(count: int) -> None:
    if count > _MAX_POINTS:
        raise ValueError(f"has more than {_MAX_POINTS} values")


_RANGE_OF = {"_range": _range, "_linspace": _linspace, "_logspace": _logspace}
