"""Ends what a killed process has left: programs in sessions of their own, which not every batch system ends."""

from __future__ import annotations

import os
import signal

from runner import process


class Guard:
    """A process that outlives this one just long enough to kill the attempts that are still on its list."""

    def __init__(self) -> None:
        read, self._write = os.pipe()
        if os.fork() == 0:
            os.close(self._write)
            _watch(read)
        os.close(read)

    def add(self, token: str) -> None:
        """An attempt has begun; the token is in the environment of each of its processes."""
        os.write(self._write, f"+{token}\n".encode())

    def remove(self, token: str) -> None:
        """The attempt is over."""
        os.write(self._write, f"-{token}\n".encode())


def _watch(read: int) -> None:
    """Waits for the end of the process that holds the other end of the pipe; never returns."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    tokens: set[str] = set()
    with os.fdopen(read, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            (tokens.add if line[0] == "+" else tokens.discard)(line[1:-1])
    for token in tokens:
        process.kill_all(token)
    os._exit(0)
