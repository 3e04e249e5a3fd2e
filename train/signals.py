"""Signals that ask the program to save and end. No torch: they are in place before it is imported."""

from __future__ import annotations

import signal
from types import FrameType

from train.errors import EXIT_AGAIN, EXIT_INTERRUPTED


class Stop:
    """Remembers the first signal that asked the run to stop; the training loop looks between two steps."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def install(self) -> Stop:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
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
