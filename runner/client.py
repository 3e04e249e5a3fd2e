"""The client's side: finding the daemon of an output directory, or starting it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runner import inbox, lock, process, protocol
from runner.errors import BusyError, InputError, RunnerError, SystemFaultError
from runner.plan import Journal
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from runner.protocol import Channel, Message

START_S = 30.0  # how long a daemon may take to come up on a slow machine
LEAVE_S = 5.0
_POLL_S = 0.01
STALE_S = 60.0  # after so long without a sign a daemon on another host counts as gone


def connect(output: Path) -> Channel | None:
    """A connection to the daemon that works in an output directory; None when none does.

    Raises:
        BusyError: one works there that does not listen to us: another user's, or on another host.
    """
    holder = lock.holder(output)
    if holder is None or not lock.is_held(output):
        return None
    if _is_elsewhere(holder):
        raise BusyError(f"{output}: a daemon works here on host {holder.host} (pid {holder.pid}); use `run` there.")
    if holder.uid != os.getuid():
        raise BusyError(f"{output}: a daemon of user {holder.uid} works here (pid {holder.pid}).")
    if not holder.socket:
        raise BusyError(f"{output}: `run -d` works here (pid {holder.pid}); wait for its end.")
    try:
        return protocol.Channel(Path(holder.socket))
    except protocol.ConnectionLostError:
        return None


def connect_or_start(output: Path) -> Channel:
    """A connection to the daemon of an output directory, which is started when none works there.

    Raises:
        SystemFaultError: it could not be started.
    """
    channel = connect(output)
    if channel is not None:
        return channel
    prepare(output)
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        start(output)
        channel = connect(output)
        if channel is not None:
            return channel
        # Another daemon was faster, and has left again.
        time.sleep(_POLL_S)
    raise SystemFaultError(f"The daemon did not start within {START_S:g} s; see {output / STATE_DIRECTORY}/daemon.log.")


def wait_until_left(output: Path) -> None:
    """Waits a moment for a daemon that has nothing left to do, so that the next command does not meet it."""
    end = time.monotonic() + LEAVE_S
    while lock.is_held(output) and time.monotonic() < end:
        time.sleep(_POLL_S)


def prepare(output: Path) -> None:
    """Makes the directory that every daemon needs.

    Raises:
        SystemFaultError: it cannot be made.
    """
    try:
        (output / STATE_DIRECTORY).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemFaultError(f"{error.filename}: {error.strerror}; choose another directory with -o.") from error


def start(output: Path) -> None:
    """Starts a daemon in a session of its own, which outlives the terminal; returns when it listens.

    Raises:
        SystemFaultError: it could not be started.
    """
    command = [sys.executable, "-P", "-m", "runner.serve", str(output.resolve())]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise SystemFaultError(f"The daemon did not start: {said or f'exit code {done.returncode}'}")


def reach(output: Path) -> Channel | None:
    """A connection to the daemon; one that was killed with work left is started anew. None: nothing is left to do."""
    channel = connect(output)
    if channel is None and Journal(output).is_open():
        channel = connect_or_start(output)
    return channel


def elsewhere(output: Path) -> lock.Holder | None:
    """Who holds an output directory on another host, or in another container, and has shown lately that it lives."""
    holder = lock.holder(output)
    if holder is None or not _is_elsewhere(holder):
        return None
    if holder.boot == process.this_host().boot:  # the same machine, whose locks are always seen
        return holder if lock.is_held(output) else None
    return holder if _is_fresh(output) else None


def command(output: Path, request: Message) -> Message | None:
    """Gives a daemon a word; returns its answer, None where it is on another host and will read it later.

    A daemon that was killed with work left is started anew.

    Raises:
        RunnerError: no daemon works there and nothing is left to do, or it refused.
    """
    if not output.is_dir():
        raise InputError(f"-o {output}: no such directory.")
    if elsewhere(output) is not None:
        inbox.drop(output, request)
        return None
    channel = reach(output)
    if channel is None and request["do"] == "retry" and Journal(output).is_done():
        channel = connect_or_start(output)
    if channel is None:
        raise RunnerError(f"{output}: no daemon works here; type `run`, which does what is left.")
    try:
        return channel.ask(request)
    finally:
        channel.close()


def _is_elsewhere(holder: lock.Holder) -> bool:
    host = process.this_host()
    return (holder.boot, holder.pid_namespace) != (host.boot, host.pid_namespace)


def _is_fresh(output: Path) -> bool:
    """Whether the holder of the lock has shown lately that it lives."""
    return time.time() - lock.lock_path(output).stat().st_mtime < STALE_S
