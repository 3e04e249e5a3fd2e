"""The state of the code while attempts start: looked at anew now and then, since people edit while trials wait."""

from __future__ import annotations

import time
from pathlib import Path

from runner.code import provenance

REFRESH_S = 10.0
_SHARE = 0.02  # of the daemon's time, at most, goes into looking


class CodeWatch:
    """Knows by which hash the code of a directory is on record."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, str | None]] = {}  # directory to when to look again, and the hash

    def state(self, output: str, directory: str) -> str | None:
        """The hash of the code in a directory and its environment, written down under `output`; None: not known."""
        began = time.monotonic()
        look_at, known = self._known.get(directory, (began, None))
        if began < look_at:
            return known
        try:
            found: str | None = provenance.record(Path(output), Path(directory))
        except OSError:  # a full disk must not keep a trial from starting
            found = known
        now = time.monotonic()
        self._known[directory] = now + max(REFRESH_S, (now - began) / _SHARE), found
        return found
