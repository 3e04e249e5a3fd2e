"""One `run` at a time in an output directory."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.errors import BusyError, SystemFaultError
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def sole_user(output: Path) -> Iterator[None]:
    """Holds the output directory; the lock ends with the process, however it ends."""
    state = output / STATE_DIRECTORY
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise SystemFaultError(f"{error.filename}: {error.strerror}; choose another directory with -o.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BusyError(
            f"{output}: another `run` works here; wait for it, or choose another directory with -o."
        ) from None
    finally:
        os.close(lock)
