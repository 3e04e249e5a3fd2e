"""Attempts as processes of this machine."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from runner import children, process, strays
from runner.executors.base import Ended

if TYPE_CHECKING:
    from runner.executors.base import Launch
    from runner.process import ExitRecord
    from runner.records import Record

ADOPTED_POLL_S = 0.5  # the end of a process that is not our child must be asked for
_KILLED = 128 + signal.SIGKILL  # the exit code of a program whose shell outlived it


def process_of(record: Record | None) -> tuple[int | None, int | None]:
    """The pid and start time that a `process` record holds."""
    return (None, None) if record is None else (record["pid"], record["ticks"])


class LocalExecutor:
    """Starts children, and watches processes that an earlier daemon of this machine started.

    The end of a child is a SIGCHLD, which the caller turns into a `poll`.
    """

    def __init__(self) -> None:
        self._children: dict[int, str] = {}  # pid of the shell to the token of its attempt
        self._adopted: dict[int, tuple[int, str]] = {}  # pid to start time and token
        self._earlier = strays.tokens()  # of attempts that lived before, until they are adopted or ended
        self._oom_kills = _oom_kills()
        # What leaves its attempt's process group becomes our child when its parent is gone.
        self._is_subreaper = strays.become_subreaper()

    def start(self, launch: Launch) -> tuple[int, Record]:
        """Starts a child in its own session."""
        os.chdir(launch.cwd)
        os.umask(launch.umask)
        log = os.open(launch.log_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        token = launch.exit_record.token
        self._end_unrecorded(launch.exit_record.path)
        try:
            environment = {**launch.environment, strays.TOKEN: token}
            pid = process.spawn(launch.command, launch.exit_record, log, environment, launch.inherited)
        finally:
            os.close(log)
        self._children[pid] = token
        return pid, {"pid": pid, "ticks": process.start_ticks(pid)}

    def adopt(self, record: Record | None, exit_record: ExitRecord) -> int | None:
        """Watches the attempt's shell if it still lives."""
        found = process.find(*process_of(record), exit_record)
        if found is None:
            process.kill_all(exit_record.token)
            return None
        pid, ticks = found
        self._adopted[pid] = ticks, exit_record.token
        self._earlier.discard(exit_record.token)
        return pid

    def poll(self) -> list[Ended]:
        """Ends of children, and of adopted processes."""
        ended = []
        while self._children:
            over = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if over is None:
                break
            if children.is_ours(over.si_pid):
                break  # whoever started it reaps it at once; what is behind it comes with the next signal
            if over.si_pid in self._children:
                # What the command left behind in its group goes too; its unreaped leader keeps the number ours.
                process.signal_group(over.si_pid, signal.SIGKILL)
                ended.append(self._reap(over.si_pid))
            else:
                os.waitpid(over.si_pid, 0)
        if ended and self._is_subreaper:
            self._end_orphans()
        return ended + self._ended_adopted()

    @property
    def poll_s(self) -> float | None:
        """Adopted processes must be asked for."""
        return ADOPTED_POLL_S if self._adopted else None

    def signal(self, native_id: int, number: int) -> None:
        """Signals the attempt's process group, and what has left it."""
        process.signal_group(native_id, number)
        token = self._children.get(native_id) or self._adopted[native_id][1]
        for pid in strays.strays(token):
            if process.group_of(pid) != native_id:
                process.send(pid, number)

    def release(self, native_id: int) -> None:
        """Asks for its end no more."""
        self._adopted.pop(native_id, None)

    def close(self) -> None:
        """Nothing is held."""

    def _end_unrecorded(self, records: str) -> None:
        """Kills an earlier daemon's attempt of a trial that begins anew, as its command has deleted its records."""
        for token in [token for token in self._earlier if token.startswith(f"{records}:")]:
            process.kill_all(token)
            self._earlier.discard(token)

    def _reap(self, pid: int) -> Ended:
        _, status, usage = os.wait4(pid, 0)
        del self._children[pid]
        # The shell exits with the code that it recorded, unless a signal ended it.
        exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        was_oom_killed = False
        if killed_by == signal.SIGKILL or exit_code == _KILLED:
            before, self._oom_kills = self._oom_kills, _oom_kills()
            was_oom_killed = self._oom_kills > before
        cpu_s = round(usage.ru_utime + usage.ru_stime, 3)
        return Ended(pid, exit_code, cpu_s, round(usage.ru_maxrss / 1024, 1), True, killed_by, was_oom_killed)

    def _end_orphans(self) -> None:
        """Kills what attempts that are over have left in groups of their own."""
        living = {*self._children.values(), *(token for _, token in self._adopted.values())}
        for pid in strays.orphans(self._children):
            token = strays.token_of(pid)
            if token is not None and token not in living:
                process.send(pid, signal.SIGKILL)

    def _ended_adopted(self) -> list[Ended]:
        gone = [pid for pid, (ticks, _) in self._adopted.items() if not process.is_same(pid, ticks)]
        for pid in gone:
            _, token = self._adopted.pop(pid)
            # No process has the number of a group that still has members, unless it leads that group.
            if process.start_ticks(pid) is None:
                process.signal_group(pid, signal.SIGKILL)
            process.kill_all(token)
        return [Ended(pid) for pid in gone]


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:  # noqa: PTH123
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:  # a container that does not show it
        return 0
