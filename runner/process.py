"""Processes of attempts: the shell that records the exit code, starting it, knowing it again, and ending it.

Linux only: processes are identified through /proc.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner import strays
from runner.errors import SystemFaultError

if TYPE_CHECKING:
    from collections.abc import Mapping

# The exit code is written by a trap, so that neither `exit` nor a syntax error in the command prevents it. What could
# replace the shell or its traps runs in a subshell; a fork for every command would cost a fifth of a trivial job.
#
# A signal to the group reaches this shell and the program. The shell outlives it, so that the program may save its
# state and have its own exit code recorded; what the command still had to do is left out, and a program that leaves
# with 0 then has not made the command complete. Ignoring the signals would not do: programs inherit that, while traps
# are reset in them; not, however, in a fork of this shell that is signalled before it has become a program.
WRAPPER = """_runner_command=$1 _runner_record=$2 _runner_prefix=$3 _runner_signals=$4
set --
_runner_leave='_runner_code=$?; wait; exit $((_runner_code ? _runner_code : 143))'
trap '_runner_code=$?; ((BASHPID == $$)) && builtin echo "$_runner_prefix$_runner_code}" >> "$_runner_record"' EXIT
trap : INT USR1 USR2
trap "$_runner_leave" $_runner_signals
case $_runner_command in
*exec*|*trap*|*source*|*'. '*|*eval*|*enable*|*_runner_*)
(trap : INT USR1 USR2
trap "$_runner_leave" $_runner_signals
eval "$_runner_command");;
*) eval "$_runner_command";;
esac"""


@dataclass(frozen=True)
class Host:
    """The machine, boot and pid namespace in which a pid means something."""

    name: str
    boot: str
    pid_namespace: str


@functools.cache
def this_host() -> Host:
    """The host of this process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return Host(socket.gethostname(), boot, os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - no path


@functools.cache
def bash() -> str:
    """The shell of all commands."""
    found = shutil.which("bash")
    if found is None:
        raise SystemFaultError("bash was not found on the PATH; commands of params.yaml are bash commands.")
    return found


@dataclass(frozen=True)
class ExitRecord:
    """Where the shell writes the exit code: a line of `prefix`, the code and a brace, added to the file `path`.

    Both together are the attempt's alone; by them its shell is found again.
    """

    path: str
    prefix: str
    token: str = ""  # in the environment of every process of the attempt


def shell_arguments(command: str, exit_record: ExitRecord, leaves_at_ctrl_c: bool = True) -> list[str]:
    """The arguments of the shell that runs a command and records its exit code.

    On a terminal a debugger may use Ctrl-C for itself; the shell then does not end the command because of it.
    """
    signals = "HUP INT QUIT TERM" if leaves_at_ctrl_c else "HUP QUIT TERM"
    return [bash(), "-c", WRAPPER, "run", command, exit_record.path, exit_record.prefix, signals]


def spawn(
    command: str, exit_record: ExitRecord, log: int, environment: Mapping[str, str], inherited: int | None = None
) -> int:
    """Starts a command in a session of its own; standard output and error go to the descriptor `log`.

    The descriptor `inherited` stays open in it. Returns the pid of its shell, which is also its process group.
    """
    kept = [] if inherited is None else [(os.POSIX_SPAWN_DUP2, inherited, inherited)]
    return os.posix_spawn(
        bash(),
        shell_arguments(command, exit_record),
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
            *kept,
        ],
        setsid=True,
        # Python ignores these two, and an ignored signal stays ignored in a child.
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        stat = os.read(descriptor, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in b"ZX" else int(fields[19])


def boot_seconds() -> float:
    """The clock that no one sets: seconds since boot, without those in which the machine was suspended."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def started_at(pid: int) -> float | None:
    """When a process started, on that clock; for how long it was suspended since then counts as its time."""
    ticks = start_ticks(pid)
    suspended_s = time.clock_gettime(time.CLOCK_BOOTTIME) - boot_seconds()
    return None if ticks is None else ticks / os.sysconf("SC_CLK_TCK") - suspended_s


def is_same(pid: int, ticks: int) -> bool:
    """Whether the process that started at `ticks` still lives under this pid."""
    return start_ticks(pid) == ticks


def find(pid: int | None, ticks: int | None, exit_record: ExitRecord) -> tuple[int, int] | None:
    """The pid and start time of an attempt's shell, if it lives; None for `pid`: its start was not recorded."""
    if pid is None:
        pid = _shell_that_writes(exit_record)
        ticks = None if pid is None else start_ticks(pid)
    return None if pid is None or ticks is None or not is_same(pid, ticks) else (pid, ticks)


def _shell_that_writes(exit_record: ExitRecord) -> int | None:
    wanted = [os.fsencode(exit_record.path), exit_record.prefix.encode()]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile, or not ours to read
            continue
        if arguments[2:3] == [WRAPPER.encode()] and arguments[5:7] == wanted:
            return int(entry.name)
    return None


def send(pid: int, number: int) -> None:
    """Signals a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def group_of(pid: int) -> int | None:
    """The process group of a process; None when it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def kill_all(token: str) -> None:
    """Kills every process of an attempt, wherever it went."""
    for pid in strays.strays(token):
        send(pid, signal.SIGKILL)


def signal_group(group: int, number: int) -> None:
    """Signals a process group, of which nothing may be left, or only what another user owns."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
