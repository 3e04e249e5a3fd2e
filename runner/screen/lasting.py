"""Standard output that outlives its reader: a closed pipe or terminal must not end the work."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator


class _LastingStream:
    """Writes to a stream, and to nowhere once that fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._mute()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._mute()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _mute(self) -> None:
        # What is still in the buffer, and all that follows, goes nowhere.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Makes `sys.stdout` last within."""
    stream = sys.stdout
    sys.stdout = cast("TextIO", _LastingStream(stream))
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = stream
