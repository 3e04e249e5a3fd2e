"""Signals that ask the program to save and end. No torch: they are in place before it is imported."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from train.errors import EXIT_AGAIN, EXIT_INTERRUPTED

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@contextmanager
def unheard() -> Iterator[None]:
    """Keep the signals that ask for an end from processes that begin within: one for a whole group is for the run.

    They reach this process right behind it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stop:
    """Remembers the first signal that asked the run to stop; the training loop looks between two steps."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def install(self) -> Stop:
        for number in ASKING:
            signal.signal(number, self.receive)
        return self

    def receive(self, number: int, _frame: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)

    @property
    def name(self) -> str:
        return self.signal.name if self.signal else "nothing"

    @property
    def exit_code(self) -> int:
        return EXIT_INTERRUPTED if self.signal == signal.SIGINT else EXIT_AGAIN
