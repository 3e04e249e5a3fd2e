"""Processes of attempts that left their process group: found by their environment, or as orphans of this process.

Linux only. A program that clears its environment and turns itself into a daemon is found only by the process that
adopts orphans, the subreaper.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

TOKEN = "RUNNER_JOB"  # the environment variable that marks all processes of an attempt
_SCANS = 10  # at most: on a machine that forks all the time there is always a new process
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def become_subreaper() -> bool:
    """Makes this process the parent of orphaned descendants, in place of init; False where that is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.prctl(_PR_SET_CHILD_SUBREAPER, *(ctypes.c_ulong(value) for value in (1, 0, 0, 0)))
    return result == 0


def token_of(pid: int) -> str | None:
    """The token in the environment with which a process was started; None without one, or where it cannot be read.

    Raises nothing for a process that is gone, a zombie, or another user's.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY)
    except OSError:
        return None
    try:
        with os.fdopen(descriptor, "rb") as file:
            environment = b"\0" + file.read()
    except OSError:  # it ended meanwhile
        return None
    _, found, rest = environment.partition(f"\0{TOKEN}=".encode())
    return os.fsdecode(rest.partition(b"\0")[0]) if found else None


def strays(token: str) -> list[int]:
    """The pids of all processes whose environment holds the token, but for this process.

    One that forks or replaces itself meanwhile may still slip through: who ends them asks until nothing is found.
    """
    own, seen, found = os.getpid(), set[int](), list[int]()
    for _ in range(_SCANS):
        new = {int(name) for name in os.listdir("/proc") if name.isdigit()} - seen - {own}  # noqa: PTH208
        if not new:
            break
        found += [pid for pid in new if token_of(pid) == token]
        seen |= new
    return sorted(pid for pid in found if token_of(pid) == token)


def tokens() -> set[str]:
    """The tokens of all attempts of which a process lives."""
    found = {token_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
    return {token for token in found if token is not None}


def orphans(known: Collection[int]) -> list[int]:
    """The children of this process, zombies included, that are not `known`: what it adopted as subreaper.

    Empty on a kernel without CONFIG_PROC_CHILDREN.
    """
    children: set[int] = set()
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as file:  # noqa: PTH123 - called at every job's end
                children.update(map(int, file.read().split()))
        except OSError:  # the thread ended meanwhile
            continue
    return sorted(children.difference(known))
