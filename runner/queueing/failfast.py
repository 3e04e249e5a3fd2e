"""When a sweep pauses itself: its first trials all failed, and for the same cause."""

from __future__ import annotations


class FailFast:
    """Counts how the trials of each sweep end."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self._causes: dict[str, list[str | None]] = {}

    def must_pause(self, sweep: str, cause: str | None) -> bool:
        """Notes the end of a trial, `cause` None when it is complete; True once, when the limit is reached."""
        causes = self._causes.setdefault(sweep, [])
        if self.limit is None or len(causes) >= self.limit:
            return False
        causes.append(cause)
        return len(causes) == self.limit and None not in causes and len(set(causes)) == 1

    def forget(self) -> None:
        """Counts anew, because the user wants to go on."""
        self._causes.clear()
