"""Which trials a user's words name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol, TypeVar

from runner.errors import InputError, did_you_mean
from runner.gather import PREFIXES

if TYPE_CHECKING:
    from collections.abc import Sequence


class Named(Protocol):
    """What has a name and a place in the plan."""

    @property
    def name(self) -> str:
        """The name of its directory."""

    @property
    def index(self) -> int:
        """Its place, from 0."""


T = TypeVar("T", bound=Named)


def named(trials: Sequence[T], words: Sequence[str]) -> list[T]:
    """The trials that the words name: by name, by number as shown, by * and ?, or by the beginning of one name.

    Raises:
        InputError: a word names none, or, as a beginning, several.
    """
    found: dict[int, T] = {}
    for word in words:
        for trial in _of(trials, _name(word)):
            found[id(trial)] = trial
    return list(found.values())


def _name(word: str) -> str:
    """The name in a path: its last part, or, of a unit such as `gather.law/all`, the last two."""
    *_, above, last = ["", *word.removesuffix("/").split("/")]
    return f"{above}/{last}" if above.startswith(PREFIXES) else last


def _of(trials: Sequence[T], word: str) -> list[T]:
    exact = [trial for trial in trials if trial.name == word]
    if exact:
        return exact
    if any(character in word for character in "*?"):
        pattern = word.replace("[", "[[]")
        matching = [trial for trial in trials if fnmatchcase(trial.name, pattern)]
    elif word.isdecimal():
        matching = [trial for trial in trials if trial.index == int(word) - 1]
    else:
        matching = [trial for trial in trials if trial.name.startswith(word)]
        if len(matching) > 1:
            some = ", ".join(trial.name for trial in matching[:5]) + (" …" if len(matching) > 5 else "")
            raise InputError(f"{word}: the beginning of {len(matching)} names: {some}; write more of it, or {word}*.")
    if not matching:
        raise InputError(f"{word}: no such trial.{did_you_mean(word, [trial.name for trial in trials])}")
    return matching
