"""Grids: products, unions and zips of values, counted, indexed and walked through without being written out."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from runner.values import canonical, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runner.values import Params, Value


class Axis(Protocol):
    """One factor of a grid: settings in a row, each of the same or of different parameters."""

    @property
    def size(self) -> int:
        """The number of settings; not `len`, which ends at 2 ** 63."""

    def __getitem__(self, index: int) -> Params: ...
    def __iter__(self) -> Iterator[Params]: ...


@dataclass(frozen=True)
class Choices:
    """One parameter's values."""

    key: str
    values: Sequence[Value]

    @property
    def size(self) -> int:
        """The number of values."""
        return len(self.values)

    def __getitem__(self, index: int) -> Params:
        return {self.key: self.values[index]}

    def __iter__(self) -> Iterator[Params]:
        return ({self.key: value} for value in self.values)


@dataclass(frozen=True)
class Zip:
    """Parameters that go together: the first values of all, the second values of all, and so on."""

    columns: Mapping[str, Sequence[Value]]

    @property
    def size(self) -> int:
        """The length that all columns have."""
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> Params:
        return {key: values[index] for key, values in self.columns.items()}

    def __iter__(self) -> Iterator[Params]:
        return (dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True))


@dataclass(frozen=True)
class Union:
    """Sub-grids one after the other."""

    grids: Sequence[Grid]

    @property
    def size(self) -> int:
        """The number of combinations of all sub-grids."""
        return sum(grid.size for grid in self.grids)

    def __getitem__(self, index: int) -> Params:
        for grid in self.grids:
            if index < grid.size:
                return grid[index]
            index -= grid.size
        raise IndexError(index)

    def __iter__(self) -> Iterator[Params]:
        return itertools.chain.from_iterable(self.grids)


@dataclass(frozen=True)
class Grid:
    """The product of its axes, the last one varying fastest."""

    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        """The number of combinations."""
        return math.prod(axis.size for axis in self.axes)

    def __getitem__(self, index: int) -> Params:
        settings: list[Params] = []
        for axis in reversed(self.axes):
            index, place = divmod(index, axis.size)
            settings.append(axis[place])
        if index:
            raise IndexError(index)
        return _merge(reversed(settings))

    def __iter__(self) -> Iterator[Params]:
        return map(_merge, _product(self.axes))

    def leaves(self) -> Iterator[tuple[str, Sequence[Value]]]:
        """Every parameter with its values; one that stands in several sub-grids comes once for each."""
        for axis in self.axes:
            if isinstance(axis, Choices):
                yield axis.key, axis.values
            elif isinstance(axis, Zip):
                yield from axis.columns.items()
            elif isinstance(axis, Union):
                for grid in axis.grids:
                    yield from grid.leaves()

    def repeats(self) -> bool:
        """Whether one combination may come twice."""
        for axis in self.axes:
            if not isinstance(axis, Choices):
                return True
            if not isinstance(axis.values, range) and len(set(map(canonical, axis.values))) < len(axis.values):
                return True
        return False


Pattern: TypeAlias = "Mapping[str, frozenset[str]]"


@dataclass(frozen=True)
class Link:
    """A gather on which a sweep depends, through a value of the parameter `key` or through `_after`."""

    gather: str
    key: str
    place: str  # in the file, for messages


@dataclass(frozen=True)
class Search:
    """What makes a sweep the first round of a search: the command that gives the next grid, and where it ends."""

    command: str
    rounds: int | None = None
    trials: int | None = None
    hours: float | None = None  # of all trials together
    round_limit_s: float | None = None


@dataclass(frozen=True)
class Round:
    """The place of a grid in a search."""

    number: int  # from 1
    inputs: str  # what this round and those before it are made of
    is_decided: bool = False
    reopened: str = ""  # the limit that let the search go on after this round had ended it
    left_out: frozenset[str] = frozenset()  # trials of a decided round that did not complete: no gather reads them
    lost: frozenset[str] = frozenset()  # those of them that were not pruned: they stay as they are


@dataclass(frozen=True)
class Sweep:
    """One grid document: its grid without the excluded combinations, and the stages to run (all when None).

    A pattern of `exclude` gives the canonical values of some parameters; a combination that has them all is left out.
    """

    grid: Grid
    exclude: tuple[Pattern, ...] = ()
    title: str | None = None
    stages: tuple[str, ...] | None = None
    priority: int = 0
    links: tuple[Link, ...] = ()
    search: Search | None = None
    round: Round | None = None

    def combinations(self) -> Iterator[Params]:
        """Every combination that is not excluded."""
        return filter(self._is_included, self.grid) if self.exclude else iter(self.grid)

    def count(self) -> int:
        """The number of combinations."""
        return sum(1 for _ in self.combinations()) if self.exclude else self.grid.size

    def sample(self, size: int, seed: int) -> Iterator[Params]:
        """Up to `size` combinations drawn at random, in the grid's order; a larger `size` draws these and more."""
        found: dict[int, Params] = {}
        for index in _shuffled(self.grid.size, random.Random(seed)):
            if len(found) == size:
                break
            combination = self.grid[index]
            if self._is_included(combination):
                found[index] = combination
        return (found[index] for index in sorted(found))

    def _is_included(self, combination: Params) -> bool:
        return not any(
            all(key in combination and canonical(combination[key]) in values for key, values in pattern.items())
            for pattern in self.exclude
        )


_LISTED = 100_000


def _shuffled(size: int, generator: random.Random) -> Iterator[int]:
    """The numbers below `size` in random order; of very many only as many as are drawn, in constant memory each."""
    if size <= _LISTED:
        yield from generator.sample(range(size), size)
        return
    seen: set[int] = set()
    while len(seen) < size // 2:
        index = generator.randrange(size)
        if index not in seen:
            seen.add(index)
            yield index
    yield from (index for index in range(size) if index not in seen)


def _product(factors: Sequence[Axis]) -> Iterator[tuple[Params, ...]]:
    """itertools.product without its copies of the factors, so that a range of millions costs nothing."""
    if not factors:
        yield ()
        return
    *first, last = factors
    for head in _product(first):
        for item in last:
            yield (*head, item)


def _merge(settings: Iterable[Params]) -> Params:
    merged: Params = {}
    for setting in settings:
        merged.update(setting)
    return merged


@dataclass(frozen=True)
class Settings:
    """What a sweep leaves unset: the defaults, and the aliases, whose cases stand for groups of parameters."""

    default: Mapping[str, Value]
    alias: Mapping[str, Mapping[str, Params]]

    def resolve(self, combination: Params) -> Params:
        """A trial's parameters: the sweep's own ones first, each alias as what it stands for, then the defaults."""
        own = self._expand(combination) if self.alias else combination
        return own | {key: value for key, value in self.base.items() if key not in own}

    def targets(self, key: str) -> list[str]:
        """The parameters that a key sets: itself, or what an alias stands for."""
        return list(next(iter(self.alias[key].values()))) if key in self.alias else [key]

    @functools.cached_property
    def base(self) -> Params:
        """The defaults; the parameters of a default alias go before those that stand there by themselves."""
        plain = {key: value for key, value in self.default.items() if key not in self.alias}
        cases = {key: value for key, value in self.default.items() if key in self.alias}
        return plain | self._expand(cases)

    def _expand(self, params: Params) -> Params:
        expanded: Params = {}
        for key, value in params.items():
            if key in self.alias:
                expanded.update(self.alias[key][text_of(value)])
            else:
                expanded[key] = value
        return expanded


def trial_id(params: Mapping[str, Value], introduced: Mapping[str, Value]) -> str:
    """The trial's identity: a hash of its typed parameters, whatever their order.

    `introduced` holds the default with which each parameter was first given one in this output directory. A value equal
    to it adds nothing to the identity, so that a new parameter with a default leaves finished trials what they are.
    """
    told = {
        key: canonical(value)
        for key, value in params.items()
        if key not in introduced or canonical(introduced[key]) != canonical(value)
    }
    text = "\n".join(f"{canonical(key)}: {told[key]}" for key in sorted(told))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
