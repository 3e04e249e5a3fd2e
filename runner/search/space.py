"""The space of a search: each parameter's range or choices, from arguments (`lr=1e-5:1e-1:log`) or a YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from runner.errors import InputError, did_you_mean
from runner.values import Value, canonical, is_parameter_name, shown
from runner.yamlfile import load, parse_documents, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from optuna.distributions import BaseDistribution

RANGE_KEYS = ("low", "high", "log", "step")
ARGUMENT = "NAME=LOW:HIGH, NAME=LOW:HIGH:log, NAME=LOW:HIGH:STEP or NAME=VALUE,VALUE,…"


@dataclass(frozen=True)
class Choices:
    """One of some values, without an order."""

    values: tuple[Value, ...]

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def points(self) -> list[Value]:
        """Its values, for a grid."""
        return list(self.values)

    def key(self, value: Value) -> str:
        """Equal for equal values."""
        return canonical(value)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if both, and the step, are whole."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)

    def points(self) -> list[Value]:
        """Its values, for a grid; none where it has no step."""
        step = self.step or (1 if self.is_whole else None)
        if step is None:
            return []
        count = int((self.high - self.low) / step + 1e-9) + 1
        return [self.low + number * step for number in range(count)]

    def key(self, value: Value) -> str:
        """Equal for equal numbers; 1 and 1.0 are one here."""
        return repr(float(value)) if isinstance(value, int | float) else canonical(value)


Space = dict[str, "Choices | Range"]


def of_arguments(arguments: Sequence[str]) -> Space:
    """The space that `NAME=…` arguments describe; raises InputError with the argument and what is allowed."""
    space: Space = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not text:
            raise InputError(f"{argument!r} is no parameter of a space: {ARGUMENT}.")
        try:
            if "," in text or ":" not in text:
                found: Any = [load(part) for part in text.split(",")]
            else:
                low, high, *rest = text.split(":")
                last = {"log": True} if rest == ["log"] else {"step": load(rest[0])} if len(rest) == 1 else {}
                if len(rest) > 1:
                    raise InputError(f"{argument!r} has too many parts: {ARGUMENT}.")
                found = {"low": load(low), "high": load(high), **last}
        except yaml.YAMLError as error:
            raise InputError(f"{argument!r} holds no value that YAML can read: {ARGUMENT}.") from error
        space[name] = _axis(f"{argument!r}", name, found)
    return space


def of_file(path: Path) -> Space:
    """The space of a YAML file: parameters to lists of choices or {low, high, log, step}; raises InputError."""
    documents = parse_documents(str(path), read_text(path))
    if len(documents) != 1 or not isinstance(documents[0].value, dict):
        raise InputError(f"{path}: needed is one mapping of parameters to lists or {{low, high, log, step}}.")
    document = documents[0]
    return {name: _axis(str(document.place((name,))), name, found) for name, found in document.value.items()}


def _axis(place: str, name: str, found: Any) -> Choices | Range:
    if not is_parameter_name(str(name)):
        raise InputError(f"{place}: {name!r} is no parameter name; allowed: letters, digits, -, _ and dots inside.")
    if isinstance(found, list) and found and not any(isinstance(value, list | dict) for value in found):
        return Choices(tuple(found))
    if not isinstance(found, dict):
        raise InputError(f"{place}: {shown(found)} is neither a list of values nor {{low, high, log, step}}.")
    for key in found:
        if key not in RANGE_KEYS:
            raise InputError(
                f"{place}: no key {key!r}.{did_you_mean(str(key), RANGE_KEYS)} Allowed: {', '.join(RANGE_KEYS)}."
            )
    return _range(place, found)


def _range(place: str, found: Mapping[str, Any]) -> Range:
    low, high, log, step = (found.get(key) for key in RANGE_KEYS)
    for key, value in (("low", low), ("high", high), ("step", 1 if step is None else step)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise InputError(f"{place}: {key} is {shown(value)}; needed is a number.")
    assert low is not None
    assert high is not None
    if low > high or (log and (low <= 0 or step is not None)) or (step is not None and step <= 0):
        raise InputError(f"{place}: needed are low up to high, above 0 and without a step with log, a step above 0.")
    return Range(low, high, bool(log), step)


def grid_of(space: Space) -> Mapping[str, list[Value]]:
    """The points of each parameter; raises InputError for one that has no step."""
    for name, axis in space.items():
        if not axis.points():
            raise InputError(f"{name}: a grid needs a step, or a list of values.")
    return {name: axis.points() for name, axis in space.items()}
