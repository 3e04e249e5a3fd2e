"""Who waits for whom: kept by the keys of trials, so that an end costs no more than there are that wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Waits:
    """The open waits of some trials."""

    def __init__(self) -> None:
        self._others: dict[str, tuple[str, ...]] = {}  # of each that waits: for what
        self._open: dict[str, set[str]] = {}  # what of it has not come to an end
        self._followers: dict[str, dict[str, None]] = {}  # of each: who waits for it, in order

    def expect(self, key: str, others: Iterable[str], opened: Iterable[str]) -> None:
        """`key` waits for `others`, of which those `opened` have not come to an end; replaces what it waited for."""
        self.forget(key)
        self._others[key] = tuple(others)
        for other in self._others[key]:
            self._followers.setdefault(other, {})[key] = None
        self._open[key] = set(opened)

    def forget(self, key: str) -> None:
        """`key` waits for nothing any more."""
        self._open.pop(key, None)
        for other in self._others.pop(key, ()):
            del self._followers[other][key]

    def is_open(self, key: str) -> bool:
        """Whether something that it waits for has not come to an end."""
        return bool(self._open.get(key))

    def end(self, key: str) -> list[str]:
        """`key` has come to an end; returns who has nothing left to wait for because of it."""
        ready = []
        for follower in self._followers.get(key, ()):
            left = self._open[follower]
            if key in left:
                left.remove(key)
                if not left:
                    ready.append(follower)
        return ready

    def reopen(self, key: str) -> list[str]:
        """`key` is due again; returns who must wait again because of it."""
        again = []
        for follower in self._followers.get(key, ()):
            left = self._open[follower]
            if not left:
                again.append(follower)
            left.add(key)
        return again
