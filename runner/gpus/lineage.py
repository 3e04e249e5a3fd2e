"""Whose a process is, as /proc shows it to everybody."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

_MAX_DEPTH = 64


def of(pid: int) -> tuple[int, ...]:
    """The process itself, its session and its ancestors, as far as they can be seen; empty when it cannot."""
    found: list[int] = []
    while pid > 1 and len(found) < _MAX_DEPTH:
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:  # gone, or in another pid namespace
            break
        fields = stat[stat.rindex(b")") + 2 :].split()
        found += [pid] if found else [pid, int(fields[3])]
        pid = int(fields[1])
    return tuple(found)


def user(pid: int) -> str | None:
    """The name of the user whose process this is, or the number where it has no name."""
    try:
        uid = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - no path
    except OSError:
        return None
    return user_name(uid)


def user_name(uid: int) -> str:
    """The name of a user, or the number where there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def command(pid: int) -> str | None:
    """The command line; of a process without one the name."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        line = line.rstrip(b"\0").replace(b"\0", b" ") or Path(f"/proc/{pid}/comm").read_bytes()
    except OSError:
        return None
    return os.fsdecode(line).strip()
