"""Children that are no attempts."""

from __future__ import annotations

import os
import subprocess

import pytest

from runner import children
from runner.executors.local import LocalExecutor


def test_a_command_is_known_until_it_was_reaped() -> None:
    child = children.start(["true"], stdout=subprocess.DEVNULL)
    assert children.is_ours(child.pid)
    assert not children.is_ours(os.getpid())
    child.wait()
    children.done(child)
    assert not children.is_ours(child.pid)


def test_what_cannot_be_started_leaves_nothing() -> None:
    before = set(children._pids)
    with pytest.raises(FileNotFoundError):
        children.start(["no-such-command"])
    assert children._pids == before


def test_whoever_reaps_attempts_leaves_commands_alone() -> None:
    executor = LocalExecutor()
    executor._children[1 << 22] = "an attempt that goes on"
    child = children.start(["bash", "-c", "exit 7"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert executor.poll() == []
    assert child.wait() == 7
    children.done(child)
