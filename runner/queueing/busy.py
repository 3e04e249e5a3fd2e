"""The share of time in which each place was busy: sums of times that are told, without a clock."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class BusyTimes:
    """A place is busy while at least one attempt is there; it counts from when it was first there."""

    def __init__(self) -> None:
        self._first_s: dict[str, float] = {}
        self._since_s: dict[str, float] = {}
        self._sum_s: dict[str, float] = {}
        self._count: Counter[str] = Counter()

    def see(self, labels: Collection[str], now: float) -> None:
        """These places are there."""
        for label in labels:
            self._first_s.setdefault(label, now)

    def start(self, label: str, now: float) -> None:
        """An attempt has begun there."""
        self.see((label,), now)
        if not self._count[label]:
            self._since_s[label] = now
        self._count[label] += 1

    def end(self, label: str, now: float) -> None:
        """An attempt there is over."""
        self._count[label] -= 1
        if not self._count[label]:
            self._sum_s[label] = self._sum_s.get(label, 0.0) + now - self._since_s.pop(label)

    def is_busy(self, label: str) -> bool:
        """Whether an attempt is there."""
        return self._count[label] > 0

    def share(self, label: str, now: float) -> float:
        """The part of the time, from 0 to 1."""
        first_s = self._first_s.get(label, now)
        busy_s = self._sum_s.get(label, 0.0) + now - self._since_s.get(label, now)
        return busy_s / (now - first_s) if now > first_s else 0.0
