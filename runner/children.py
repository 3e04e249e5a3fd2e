"""Children of this process that are no attempts: whoever reaps what the kernel hands over must leave them alone."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_lock = threading.Lock()
_pids: set[int] = set()


def start(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a child, with the options of `subprocess.Popen`; whoever started it reaps it, and says so to `done`."""
    with _lock:  # whoever sees the child, sees it here, too
        child = subprocess.Popen(arguments, **options)
        _pids.add(child.pid)
    return child


def done(child: subprocess.Popen[bytes]) -> None:
    """The child has been reaped."""
    with _lock:
        _pids.discard(child.pid)


def is_ours(pid: int) -> bool:
    """Whether a process is such a child."""
    with _lock:
        return pid in _pids
