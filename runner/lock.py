"""One daemon at a time in an output directory, and where it is to be found."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import BusyError, SystemFaultError
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Holder:
    """Who holds an output directory; `socket` is empty for one that takes no commands."""

    pid: int
    host: str
    boot: str
    pid_namespace: str
    uid: int
    started: str
    socket: str = ""


def lock_path(output: Path) -> Path:
    """The file whose lock is held."""
    return output / STATE_DIRECTORY / "lock"


class Lock:
    """The lock of an output directory; it ends with the process, however it ends."""

    def __init__(self, output: Path) -> None:
        """
        Raises:
            SystemFaultError: the directory cannot be written.
            BlockingIOError: another process holds it.
        """
        self._path = lock_path(output)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise SystemFaultError(f"{error.filename}: {error.strerror}; choose another directory with -o.") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise
        if not self.is_in_place():  # it was removed, with the directory, between the two
            os.close(self._descriptor)
            raise BlockingIOError(0, "removed", str(self._path))

    def is_in_place(self) -> bool:
        """Whether the file that is held is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))  # noqa: PTH116
        except OSError:
            return False

    def tell(self, holder: Holder) -> None:
        """Writes who holds it."""
        text = json.dumps(asdict(holder)).encode() + b"\n"
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def beat(self) -> None:
        """Shows other hosts that its holder lives."""
        os.utime(self._descriptor)

    def release(self) -> None:
        """Gives it back; nobody is said to hold it any more."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder(output: Path) -> Holder | None:
    """Who holds an output directory, or held it when it was killed."""
    try:
        return Holder(**json.loads(lock_path(output).read_bytes()))
    except (OSError, ValueError, TypeError):  # nobody, or just being written
        return None


def is_held(output: Path) -> bool:
    """Whether somebody on this machine, or on one that shares locks with it, holds the directory now."""
    try:
        descriptor = os.open(lock_path(output), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def sole_user(output: Path) -> Iterator[None]:
    """Holds the output directory for a command that no daemon may meet.

    Raises:
        BusyError: a daemon works there.
        SystemFaultError: the directory cannot be written.
    """
    try:
        lock = Lock(output)
    except BlockingIOError:
        raise BusyError(
            f"{output}: a daemon works here; wait for its end (`run wait`), or end it: `run stop`."
        ) from None
    try:
        yield
    finally:
        lock.release()
