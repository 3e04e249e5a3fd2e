"""Finding real processes that left their group: with a session of their own, as daemons, with their outputs closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from runner.strays import orphans, strays, token_of, tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# Forks twice, leaves its session and closes all that it has open, as daemons do.
DAEMON = """
import os, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
print(os.getpid(), flush=True)
os.closerange(0, 256)
time.sleep(600)
"""


@pytest.fixture
def token() -> Iterator[str]:
    """A token of this test; what carries it is killed in the end."""
    own = uuid.uuid4().hex
    yield own
    for pid in strays(own):
        os.kill(pid, signal.SIGKILL)


def start(token: str, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env={**os.environ, "RUNNER_JOB": token}, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    "script",
    ["exec sleep 600", "setsid sleep 600 & wait", "(exec >&- 2>&- <&-; exec setsid sleep 600) & wait"],
)
def test_a_process_is_found_wherever_it_went(token: str, script: str, until: Callable[..., None]) -> None:
    process = start(token, "bash", "-c", script)
    try:
        until(lambda: any(_name(pid) == "sleep" for pid in strays(token)), lambda: strays(token))
        assert all(token_of(pid) == token for pid in strays(token))
        assert strays(token[:-1]) == []
        assert token in tokens()
    finally:
        process.kill()
        process.wait()
        _close(process)


def test_a_daemon_is_found_after_its_parents_are_gone(token: str, until: Callable[..., None]) -> None:
    daemon = int(start(token, sys.executable, "-c", DAEMON).communicate()[0])
    until(lambda: strays(token) == [daemon], lambda: strays(token))
    os.kill(daemon, signal.SIGKILL)
    until(lambda: strays(token) == [], lambda: strays(token))


def test_a_process_without_the_token_has_none() -> None:
    assert token_of(os.getpid()) == os.environ.get("RUNNER_JOB")
    assert token_of(2**22 + 1) is None


def test_a_zombie_has_no_token(token: str) -> None:
    process = start(token, "true")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert token_of(process.pid) is None
    assert process.pid not in strays(token)
    assert process.pid in orphans([])
    process.wait()
    _close(process)
    assert process.pid not in orphans([])


def test_the_name_of_another_variable_does_not_count(until: Callable[..., None]) -> None:
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, "NOT_RUNNER_JOB": "x", "A": "RUNNER_JOB=x"})
    try:
        until(lambda: _name(process.pid) == "sleep", lambda: _name(process.pid))
        assert token_of(process.pid) is None
    finally:
        process.kill()
        process.wait()


SUBREAPER = f"""
import subprocess, sys, time
from runner.strays import become_subreaper, orphans
assert become_subreaper()
known = subprocess.Popen(["sleep", "600"])
told = subprocess.run(["env", "-i", sys.executable, "-c", {DAEMON!r}], check=True, stdout=subprocess.PIPE)
daemon, end = int(told.stdout), time.monotonic() + 30
# Its parent, between the two forks, may be there still, on its way out.
while daemon not in orphans([known.pid]) and time.monotonic() < end:
    time.sleep(0.01)
print(known.pid, daemon, *orphans([known.pid]), flush=True)
sys.stdin.read()
known.kill()
"""


def test_a_subreaper_adopts_a_daemon_that_cleared_its_environment() -> None:
    process = subprocess.Popen([sys.executable, "-c", SUBREAPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    known, daemon, *adopted = map(int, process.stdout.readline().split())
    try:
        assert daemon in adopted
        assert known not in adopted
        assert token_of(daemon) is None
    finally:
        os.kill(daemon, signal.SIGKILL)
        process.communicate()
    assert process.returncode == 0


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.stdout.close()


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


AS_NOBODY = """
import os, sys
from runner.process import signal_group
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
signal_group(int(sys.argv[1]), 0)
"""


def test_a_group_of_another_user_is_left_alone() -> None:
    words = [sys.executable, "-c", AS_NOBODY, str(os.getpgrp())]
    subprocess.run(words, check=True, start_new_session=True)
