"""One attempt at a time on the user's terminal: for debuggers and prompts."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from runner import process
from runner.errors import InputError
from runner.executors.base import Ended
from runner.executors.local import process_of

if TYPE_CHECKING:
    from runner.executors.base import Launch
    from runner.process import ExitRecord
    from runner.records import Record


class ForegroundExecutor:
    """Starts children that share the terminal; Ctrl-C is theirs alone, as under a shell."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, launch: Launch) -> tuple[int, Record]:
        """Starts a child with this process's input and output."""
        arguments = process.shell_arguments(launch.command, launch.exit_record, leaves_at_ctrl_c=False)
        self._child = subprocess.Popen(arguments, executable=process.bash(), env=dict(launch.environment))
        return self._child.pid, {"pid": self._child.pid, "ticks": process.start_ticks(self._child.pid)}

    def adopt(self, record: Record | None, exit_record: ExitRecord) -> int | None:
        """An attempt that still runs cannot come to this terminal."""
        found = process.find(*process_of(record), exit_record)
        if found is not None:
            raise InputError(f"-d: an attempt of the trial still runs (pid {found[0]}); wait for it, or end it first.")
        return None

    def poll(self) -> list[Ended]:
        """The end of the child."""
        return self.wait(0)

    @property
    def poll_s(self) -> float | None:
        """Nothing tells of its end but `wait`."""
        return None

    def wait(self, timeout_s: float | None) -> list[Ended]:
        """Waits for the child."""
        if self._child is None:
            return []
        try:
            code = self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return []
        signal_number = -code if code < 0 else None
        ended = Ended(self._child.pid, code if code >= 0 else None, is_watched=True, signal=signal_number)
        self._child = None
        return [ended]

    def signal(self, native_id: int, number: int) -> None:
        """Signals the child's shell alone: its group is this process's own."""
        os.kill(native_id, number)

    def release(self, native_id: int) -> None:
        """Nothing is adopted."""

    def close(self) -> None:
        """Nothing is held."""
