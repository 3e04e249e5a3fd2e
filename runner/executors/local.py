"""Attempts as processes of this machine."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

from runner import process
from runner.executors.base import Ended

if TYPE_CHECKING:
    from runner.executors.base import Launch
    from runner.process import ExitRecord
    from runner.records import Record

_WAKE_UPS = 4096  # bytes; what is left after one read only wakes the next wait
ADOPTED_POLL_S = 0.5  # the end of a process that is not our child must be asked for


def process_of(record: Record | None) -> tuple[int | None, int | None]:
    """The pid and start time that a `process` record holds."""
    return (None, None) if record is None else (record["pid"], record["ticks"])


class LocalExecutor:
    """Starts children, and watches processes that an earlier daemon of this machine started."""

    def __init__(self) -> None:
        self._children: set[int] = set()
        self._adopted: dict[int, int] = {}  # pid to start time
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The wake-up descriptor makes every handled signal, SIGCHLD among them, end the wait.
        self._old_wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._old_handler = signal.signal(signal.SIGCHLD, lambda *_: None)

    def start(self, launch: Launch) -> tuple[int, Record]:
        """Starts a child in its own session."""
        log = os.open(launch.log_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        try:
            pid = process.spawn(launch.command, launch.exit_record, log, launch.environment)
        finally:
            os.close(log)
        self._children.add(pid)
        return pid, {"pid": pid, "ticks": process.start_ticks(pid)}

    def adopt(self, record: Record | None, exit_record: ExitRecord) -> int | None:
        """Watches the attempt's shell if it still lives."""
        found = process.find(*process_of(record), exit_record)
        if found is None:
            return None
        pid, ticks = found
        self._adopted[pid] = ticks
        return pid

    def wait(self, timeout_s: float | None) -> list[Ended]:
        """Ends of children at once, of adopted processes within half a second."""
        ended = self._reap()
        if ended:
            return ended
        if self._adopted:
            timeout_s = ADOPTED_POLL_S if timeout_s is None else min(timeout_s, ADOPTED_POLL_S)
        woken, _, _ = select.select([self._wake_read], [], [], timeout_s)
        if woken:
            os.read(self._wake_read, _WAKE_UPS)
        return self._reap()

    def signal(self, native_id: int, number: int) -> None:
        """Signals the attempt's process group."""
        process.signal_group(native_id, number)

    def close(self) -> None:
        """Restores the process's signal handling."""
        signal.signal(signal.SIGCHLD, self._old_handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _reap(self) -> list[Ended]:
        ended = []
        while self._children:
            over = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if over is None:
                break
            # What the command left behind in its group goes too; its unreaped leader keeps the group's number ours.
            process.signal_group(over.si_pid, signal.SIGKILL)
            _, status, usage = os.wait4(over.si_pid, 0)
            if over.si_pid in self._children:
                self._children.remove(over.si_pid)
                # The shell exits with the code that it recorded, unless a signal ended it.
                exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
                cpu_s = round(usage.ru_utime + usage.ru_stime, 3)
                peak_rss_mib = round(usage.ru_maxrss / 1024, 1)
                ended.append(Ended(over.si_pid, exit_code, cpu_s, peak_rss_mib))
        return ended + self._ended_adopted()

    def _ended_adopted(self) -> list[Ended]:
        gone = [pid for pid, ticks in self._adopted.items() if not process.is_same(pid, ticks)]
        for pid in gone:
            del self._adopted[pid]
            # No process has the number of a group that still has members, unless it leads that group.
            if process.start_ticks(pid) is None:
                process.signal_group(pid, signal.SIGKILL)
        return [Ended(pid) for pid in gone]
