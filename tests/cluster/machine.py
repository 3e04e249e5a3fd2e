"""What both batch systems need of the machine: Debian's packages, free ports and daemons."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TIMEOUT_S = 30.0
POLICY = Path("/usr/sbin/policy-rc.d")
INSTALLING = Path("/run/lock/run-tests-cluster")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class UnavailableError(Exception):
    """Why no batch system can be started on this machine, in one line."""


def install(packages: Mapping[str, str]) -> None:
    """Installs the packages whose command is missing, without letting them start anything by themselves."""
    if os.geteuid() != 0:
        raise UnavailableError(f"a batch system can only be started by root, not by user {os.geteuid()}")
    with INSTALLING.open("w") as lock:  # another one may be started beside this
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [package for package, command in packages.items() if shutil.which(command, path=SYSTEM_PATH) is None]
        if missing:
            _install(missing)


def _install(missing: Sequence[str]) -> None:
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"no {', '.join(missing)} here, and no apt-get to install it: not a Debian machine")
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *words]
            told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if told.returncode and words[0] == "install":  # an update may fail where the lists are good enough
                last = (told.stderr.strip() or told.stdout.strip()).splitlines()[-1]
                raise UnavailableError(f"apt-get cannot install {' '.join(missing)}: {last}")
    finally:
        if ours:
            POLICY.unlink()


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def call(*command: str | Path, **environment: str) -> str:
    """Runs a command to its end and returns what it printed; says everything when it fails."""
    told = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "PATH": f"{os.environ['PATH']}:{SYSTEM_PATH}", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if told.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {told.returncode}\n{told.stdout}{told.stderr}")
    return told.stdout


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Polls until `condition` holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(0.05)


def works(*command: str | Path, **environment: str) -> bool:
    """Whether a command succeeds."""
    try:
        call(*command, **environment)
    except RuntimeError:
        return False
    return True


@dataclass(frozen=True)
class Daemon:
    """A process in the background that outlives us: its pid stands in `run/NAME.pid`, what it says in `log/NAME`."""

    directory: Path
    name: str
    command: Sequence[str | Path] = ()

    def start(self, **environment: str) -> None:
        """Starts it, unless it runs already."""
        if self.process() is not None:
            return
        self._pid_file().parent.mkdir(exist_ok=True)
        log = self.directory / "log" / self.name
        log.parent.mkdir(exist_ok=True)
        self._pid_file().unlink(missing_ok=True)
        # In a session of its own, and nobody's child: no zombie is left to us when it is killed.
        words = ["setsid", "--fork", "sh", "-c", 'echo $$ > "$0"; exec "$@"', self._pid_file(), *self.command]
        with log.open("a") as output:
            subprocess.run(
                [str(word) for word in words],
                # As from an init: our environment must not reach a job by way of the daemon that starts it.
                env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=True,
            )
        wait_for(lambda: self.process() is not None, f"{self.name} to start (see {log})")

    def kill(self) -> None:
        """`kill -9`; returns when it is gone, with what it started if it is a host."""
        process = self.process()
        if process is None:
            return
        with suppress(psutil.NoSuchProcess):
            family = [process, *process.children(recursive=True)]
            process.kill()
            wait_for(lambda: not any(map(_alive, family)), f"the end of {self.name}")

    def process(self) -> psutil.Process | None:
        """Its process, if it is alive: a later process with the same pid is another one."""
        try:
            process = psutil.Process(int(self._pid_file().read_text()))
            ours = process.create_time() <= self._pid_file().stat().st_mtime + 1
            return process if ours and _alive(process) else None
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None

    def _pid_file(self) -> Path:
        return self.directory / "run" / f"{self.name}.pid"


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
