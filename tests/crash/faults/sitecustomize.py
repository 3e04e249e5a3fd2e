"""On a daemon's PYTHONPATH this makes it kill itself at a call that was named, or live by a wrong clock.

`RUNNER_FAULTS` names a directory. Each daemon takes the first line of its file `points`: the number of a call that
changes something outside the process, and when to die: `before` it, `during` it (half of what is written is), `after`
it. What was killed is added to `fired`; what a daemon that was not killed has called, to `calls`. The file `clock`
there holds the seconds by which the daemon's clock is wrong, now.
"""

from __future__ import annotations

import datetime
import fcntl
import functools
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

VARIABLE = "RUNNER_FAULTS"
# What changes something that outlives the process, or that others see.
_OS = [
    "open", "write", "pwrite", "ftruncate", "fsync", "utime", "mkdir", "rename", "replace", "unlink",
    "rmdir", "posix_spawn", "kill", "killpg", "waitid", "waitpid", "wait4", "chdir",
]  # fmt: skip
_SOCKET = ["bind", "listen", "accept", "connect", "send", "sendall", "close"]
_TEXTS = {"write", "send", "sendall"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Fault:
    """Counts the calls of this process, and kills it at one of them."""

    def __init__(self, directory: Path, number: int, when: str) -> None:
        self._directory = directory
        self._number = number
        self._when = when
        self._names: list[str] = []
        self._kill = os.kill  # as it was

    def install(self) -> None:
        """Puts itself before the calls."""
        for name in _OS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        for name in _SOCKET:
            setattr(socket.socket, name, self._wrapped(name, getattr(socket.socket, name)))
        real = os._exit

        def leave(status: int) -> NoReturn:
            self._tell("calls", " ".join(self._names))
            real(status)

        os._exit = leave

    def _tell(self, name: str, text: str) -> None:
        with (self._directory / name).open("a") as file:  # not by a call that counts
            file.write(f"{text}\n")

    def _die(self) -> None:
        self._tell("fired", f"{self._number} {self._when} {self._names[-1]}")
        self._kill(os.getpid(), signal.SIGKILL)

    def _wrapped(self, name: str, real: Any) -> Any:
        @functools.wraps(real)
        def call(*arguments: Any, **named: Any) -> Any:
            if name == "open" and not arguments[1] & _WRITES:
                return real(*arguments, **named)
            self._names.append(name)
            is_it = len(self._names) == self._number
            if is_it and self._when == "before":
                self._die()
            if is_it and self._when == "during" and name in _TEXTS:
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                self._die()
            result = real(*arguments, **named)
            if is_it:
                self._die()
            return result

        return call


def take_point(directory: Path) -> tuple[int, str]:
    """The next point; the number 0 when there is none."""
    try:
        file = (directory / "points").open("r+")
    except FileNotFoundError:
        return 0, ""
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        first, *rest = file.read().splitlines() or ["0 never"]
        file.seek(0)
        file.truncate()
        file.write("".join(f"{line}\n" for line in rest))
        file.flush()
    number, when = first.split()
    return int(number), when


def shift_clock(directory: Path) -> None:
    """Makes every clock that can be set wrong by what the file `clock` says."""
    real = time.time
    real_date = datetime.datetime

    def shift_s() -> float:
        try:
            return float((directory / "clock").read_text())
        except (FileNotFoundError, ValueError):
            return 0.0

    class Shifted(real_date):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, zone: datetime.tzinfo | None = None) -> datetime.datetime:
            return real_date.fromtimestamp(time.time(), zone)

    time.time = lambda: real() + shift_s()
    datetime.datetime = Shifted  # type: ignore[misc]


def install(directory: Path) -> None:
    """Arms this process."""
    Fault(directory, *take_point(directory)).install()


if VARIABLE in os.environ and "runner.serve" in sys.orig_argv:
    if Path(os.environ[VARIABLE], "clock").exists():
        shift_clock(Path(os.environ[VARIABLE]))
    # The daemon is the fork of the process that starts it.
    os.register_at_fork(after_in_child=lambda: install(Path(os.environ[VARIABLE])))
