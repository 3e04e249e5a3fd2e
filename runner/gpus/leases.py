"""Leases on GPUs, for all daemons of all users of this machine.

A lease is a file in one directory, locked (flock) by whoever holds it. The lock belongs to the open file, so that a
child which inherits the descriptor holds it too: it ends when the last of them has ended, however that came about. A
file without a lock is what a dead holder left, and counts for nothing.

Each user makes files of his own and only reads those of others: with fs.protected_regular a foreign file cannot be
opened with O_CREAT in a directory that all may write to. The directory itself is locked while a lease is taken.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import json
import os
import re
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import SystemFaultError
from runner.gpus import lineage
from runner.gpus.eligibility import Claim

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

# The number is that of the format: daemons of other versions that write the same one share the GPUs with us.
DIRECTORY = Path("/tmp/params-runner-leases-1")
_MODE = 0o1777
_SUFFIX = ".lease"
_MAX_BYTES = 65536
# What reading somebody else's file may end in.
NO_RECORD = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)
_SHARE = re.compile(r"[0-9]{1,18}(/[0-9]{1,18})?")
_LOCK_TIMEOUT_S = 5.0  # somebody stopped (Ctrl-Z) within the fraction of a millisecond that it takes
_LOCK_POLL_S = 0.001
_DAY_S = 86400.0

WHOLE = Fraction(1)


@dataclass(frozen=True)
class LeaseRecord:
    """A lease that is held now: what part of which GPUs; `pid` is the root of the processes that may use them."""

    shares: Mapping[str, Fraction]  # by UUID
    uid: int
    pid: int
    since: float  # seconds of the epoch
    daemon: int = 0  # the pid of the daemon that has it

    @property
    def is_from_before(self) -> bool:
        """Whether another daemon of this user took it: where its attempt is ours, an earlier one."""
        return self.uid == os.getuid() and self.daemon != os.getpid()


class Lease:
    """A lease of this process; `fd` is for the child that is to hold it too."""

    def __init__(self, path: Path, fd: int, record: LeaseRecord) -> None:
        self.path = path
        self.fd = fd
        self.shares = record.shares

    def name_root(self, pid: int) -> None:
        """Says whose processes use the GPUs, once there are any: those in the session of `pid` or below it."""
        with suppress(OSError):  # it runs: until the next daemon adopts it, that of this one stands for it
            os.write(self.fd, _line({"pid": pid}))

    def release(self) -> None:
        """Lets go; as long as a child has the descriptor, the lease is still held."""
        os.close(self.fd)
        probe = open_foreign(self.path)
        if probe is not None:
            if not _is_held(probe):
                with suppress(OSError):  # without a lock it counts for nothing
                    self.path.unlink(missing_ok=True)
            os.close(probe)


class LeaseStore:
    """The leases of this machine."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path(os.environ.get("RUNNER_LEASES") or DIRECTORY)
        self._numbers = itertools.count()

    def take(self, shares: Mapping[str, Fraction]) -> Lease | None:
        """Leases a part of each of these GPUs (by UUID), or, where one has too little left, none of them."""
        with self._locked(fcntl.LOCK_EX):
            taken: dict[str, Fraction] = {}
            for path, record in self._look():
                if record is None:
                    with suppress(OSError):  # another user's; he removes it himself
                        Path(path).unlink()
                    continue
                for uuid, share in record.shares.items():
                    taken[uuid] = taken.get(uuid, Fraction(0)) + share
            if any(taken.get(uuid, 0) + share > WHOLE for uuid, share in shares.items()):
                return None
            return self._write(LeaseRecord(dict(shares), os.getuid(), os.getpid(), time.time(), os.getpid()))

    def shrink(self, pid: int, shares: Mapping[str, Fraction]) -> None:
        """Gives back what our lease with this root has beyond these shares, whatever process holds it."""
        with self._locked(fcntl.LOCK_EX):
            for path, record in list(self._look()):
                if record is not None and (record.pid, record.uid) == (pid, os.getuid()):
                    least = {uuid: min(share, shares.get(uuid, share)) for uuid, share in record.shares.items()}
                    _append(path, _line({"shares": _texts(least)}))

    def adopt(self, pids: Collection[int]) -> None:
        """Says that our leases with these roots are those of this daemon from now on."""
        with self._locked(fcntl.LOCK_EX):
            for path, record in list(self._look()):
                if record is not None and record.pid in pids and record.is_from_before:
                    with suppress(SystemFaultError):  # the next look tries again
                        _append(path, _line({"daemon": os.getpid()}))

    def held(self) -> list[LeaseRecord]:
        """All leases that are held now, of all users."""
        if not self.directory.exists():
            return []
        with self._locked(fcntl.LOCK_SH):
            return [record for _, record in self._look() if record is not None]

    def _write(self, record: LeaseRecord) -> Lease:
        path = self.directory / f"{record.uid}-{record.pid}-{time.time_ns()}-{next(self._numbers)}{_SUFFIX}"
        fd = None
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            os.fchmod(fd, 0o644)  # whatever the umask: others must be able to read it
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            line = {"shares": _texts(record.shares), "pid": record.pid, "since": record.since, "daemon": record.daemon}
            os.write(fd, _line(line))
        except OSError as error:
            if fd is not None:
                os.close(fd)
                with suppress(OSError):
                    path.unlink()
            raise SystemFaultError(f"{path}: {error.strerror}; no GPU can be leased.") from error
        return Lease(path, fd, record)

    def _look(self) -> Iterator[tuple[str, LeaseRecord | None]]:
        """Each lease file with its record; None where nobody holds it."""
        for entry in os.scandir(self.directory):
            if not entry.name.endswith(_SUFFIX):
                continue
            fd = open_foreign(entry.path)
            if fd is None:
                continue
            try:
                yield entry.path, _read(fd) if _is_held(fd) else None
            except NO_RECORD:
                continue
            finally:
                os.close(fd)

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        fd = self._open_directory()
        try:
            end_s = time.monotonic() + _LOCK_TIMEOUT_S
            while not _try_lock(fd, kind):
                if time.monotonic() > end_s:
                    raise SystemFaultError(f"{self.directory}: a process that does not go on has locked it; see lsof.")
                time.sleep(_LOCK_POLL_S)
            if not _is_still(self.directory, fd):  # what cleans /tmp removed it meanwhile
                os.close(fd)
                fd = self._open_directory()
                fcntl.flock(fd, kind)
            yield
        finally:
            os.close(fd)

    def _open_directory(self) -> int:
        path = self.directory
        try:
            if not path.exists():
                _make_directory(path)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise SystemFaultError(f"{path}: {error.strerror}; no GPU can be leased.") from error
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode != _MODE:
            os.close(fd)
            raise SystemFaultError(f"{path}: its mode is {mode:o} and must be {_MODE:o}, as that of /tmp.")
        return fd


def claims(records: Iterable[LeaseRecord], mine: Collection[int]) -> dict[str, list[Claim]]:
    """What is leased of each GPU, by UUID; the leases with these roots are ours."""
    found: dict[str, list[Claim]] = {}
    for record in records:
        for uuid, share in record.shares.items():
            claim = Claim(share, record.pid, lineage.user_name(record.uid), record.pid in mine)
            found.setdefault(uuid, []).append(claim)
    return found


def _make_directory(path: Path) -> None:
    old = os.umask(0)  # with its mode from its first moment, as others look at it too
    try:
        path.mkdir(_MODE, exist_ok=True)
    finally:
        os.umask(old)


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _texts(shares: Mapping[str, Fraction]) -> dict[str, str]:
    return {uuid: str(share) for uuid, share in shares.items()}


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _append(path: str, line: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
    except OSError as error:
        raise SystemFaultError(f"{path}: {error.strerror}; the lease stays as it is.") from error


def _read(fd: int) -> LeaseRecord:
    owner = os.fstat(fd)
    merged: dict[str, Any] = {}
    for line in os.read(fd, _MAX_BYTES).split(b"\n")[:-1]:
        merged |= json.loads(line)
    if owner.st_uid == os.getuid() and time.time() - owner.st_mtime > _DAY_S:
        os.utime(fd)  # what cleans /tmp goes by the age
    shares = {uuid: share_of_text(share) for uuid, share in merged["shares"].items()}
    daemon = int(merged.get("daemon", 0))  # an earlier version did not say
    return LeaseRecord(shares, owner.st_uid, int(merged["pid"]), float(merged["since"]), daemon)


@functools.lru_cache(maxsize=1024)
def share_of_text(text: str) -> Fraction:
    # Somebody else wrote it: `Fraction` itself would take 1e999999999, or what makes room by being negative.
    if not _SHARE.fullmatch(text) or not 0 < Fraction(text) <= WHOLE:
        raise ValueError(f"{text[:50]!r} is no part of a GPU")
    return Fraction(text)


def open_foreign(path: Path | str) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # gone meanwhile, or not for us to read
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(fd: int) -> bool:
    return not _try_lock(fd, fcntl.LOCK_SH)
