"""Spreads the starts of a stage; without a clock."""

from __future__ import annotations


class Stagger:
    """When each stage was last started, and when the next start that is held back is due."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self.until: float | None = None

    def note(self, stage: str, now: float) -> None:
        """A stage was started."""
        self._last[stage] = now

    def end(self, stage: str, spread_s: float, places: int) -> float:
        """From when on the stage may start again, where its starts on so many places are spread over a time."""
        if not spread_s or stage not in self._last:
            return float("-inf")
        return self._last[stage] + spread_s / max(1, places)

    def hold(self, until: float) -> None:
        """Something is held back until then."""
        self.until = until if self.until is None else min(until, self.until)
