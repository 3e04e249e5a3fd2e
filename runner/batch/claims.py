"""Who runs a task of a batch: one process at a time, also when the batch system begins a task anew elsewhere while its
first copy, cut off from it, goes on.

Each copy claims the task under the next number; a claim's file can be made only once. Its holder touches it while it
lives, and looks whether there is a later claim: then it ends what it runs, at once, and says so. The later one begins
when the earlier one has said so, or shows no sign of life any more.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner import process
from runner.appendfile import append_line, whole_lines

if TYPE_CHECKING:
    from pathlib import Path

    from runner.executors.batch import Here

REVOKED = "revoked"
ENDED = "ended"  # how a task was over that the batch system ended
_LOOK_S = 0.2


@dataclass(frozen=True)
class Standing:
    """What a claim's file says: who claimed the task, and whether that is over."""

    holder: dict[str, Any]
    lines: list[list[Any]]  # what happened, as it was told
    is_over: bool
    was_ended: bool  # the batch system ended it: because of its time limit, for somebody else, or at somebody's word
    fault: str = ""  # why the task could not be run

    @property
    def is_revoked(self) -> bool:
        """Whether the daemon took the task back before anybody began it."""
        return bool(self.holder.get(REVOKED))


def path_of(folder: Path, task: int, number: int) -> Path:
    """The file of a task's claim; the first claim is number 0."""
    return folder / f"{task}.{number}.jsonl"


def latest(folder: Path, task: int) -> int | None:
    """The number of a task's last claim; None: nobody has begun it."""
    number = 0
    while path_of(folder, task, number).exists():
        number += 1
    return number - 1 if number else None


def standing(path: Path) -> Standing:
    """What a claim has come to; of a damaged file as much as can be read."""
    holder, *rest = [*map(_read, whole_lines(path))] or [None]
    told = [line for line in rest if isinstance(line, list)]
    overs = [line for line in rest if isinstance(line, dict) and "over" in line]
    faults = [str(line["fault"]) for line in overs if line.get("fault")]
    was_ended = any(line["over"] == ENDED for line in overs)
    return Standing(holder if isinstance(holder, dict) else {}, told, bool(overs), was_ended, "".join(faults[:1]))


def _read(line: bytes) -> object:
    try:
        found: object = json.loads(line)
    except ValueError:
        return None
    return found


def revoke(folder: Path, task: int, number: int = 0) -> bool:
    """Takes a task back that nobody has begun, or not for this time; False: somebody has."""
    try:
        return _make(path_of(folder, task, number), {REVOKED: True, "at": time.time()})
    except FileNotFoundError:  # somebody has removed the batch: nobody can begin it any more
        return True


def _make(path: Path, first: dict[str, Any]) -> bool:
    """Makes a claim's file, whole from its first moment on; False: it is there already."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    part.write_text(json.dumps(first) + "\n", encoding="utf-8")
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    finally:
        part.unlink()
    return True


class Claim:
    """A task that this process runs."""

    def __init__(self, folder: Path, task: int, number: int) -> None:
        self._folder, self._task, self._number = folder, task, number
        self.path = path_of(folder, task, number)

    @property
    def name(self) -> str:
        """What the attempts' records say of it."""
        return f"{self._folder.name}/{self._task}.{self._number}"

    @property
    def is_lost(self) -> bool:
        """Whether a later copy has the task, or the batch is no more."""
        return path_of(self._folder, self._task, self._number + 1).exists() or not self.path.exists()

    def beat(self) -> None:
        """Shows that this process lives."""
        os.utime(self.path)

    def tell(self, line: list[Any]) -> None:
        """Keeps what has happened."""
        append_line(self.path, json.dumps(line).encode() + b"\n")

    def over(self, how: str, fault: str = "") -> None:
        """Says that nothing of the task runs here any more; `fault`: why it never could."""
        if self.path.exists():  # otherwise the batch is no more
            append_line(self.path, json.dumps({"over": how, "at": time.time(), "fault": fault}).encode() + b"\n")


def take(folder: Path, task: int, here: Here, lease_s: float) -> Claim | None:
    """Claims a task, and waits until an earlier copy of it is at its end; None: it is not to be run, or not here."""
    host = process.this_host()
    own = {"host": host.name, "boot": host.boot, "pid_namespace": host.pid_namespace, "pid": os.getpid()}
    own |= {"ticks": process.start_ticks(os.getpid()), "job": here.id.job, "restart": here.restart, "at": time.time()}
    while folder.is_dir():
        before = latest(folder, task)
        if before is not None and not _may_follow(path_of(folder, task, before), here):
            return None
        number = 0 if before is None else before + 1
        if _make(path_of(folder, task, number), own):
            claim = Claim(folder, task, number)
            if before is not None:
                with suppress(FileNotFoundError):  # the batch is no more
                    _wait_for_end(path_of(folder, task, before), claim, lease_s)
            return None if claim.is_lost else claim
    return None


def _may_follow(path: Path, here: Here) -> bool:
    """Whether the batch system has begun the task anew: another job of the same array is one too many."""
    earlier = standing(path)
    return not earlier.is_revoked and earlier.holder.get("job") == here.id.job


def _wait_for_end(path: Path, claim: Claim, lease_s: float) -> None:
    """Waits until the holder of a claim has ended, is dead, or has shown no sign of life for so long."""
    sign, seen = beat_of(path), time.monotonic()
    while not claim.is_lost and not is_at_end(path):
        if (now := beat_of(path)) != sign:
            sign, seen = now, time.monotonic()
        if time.monotonic() - seen >= lease_s:
            return
        claim.beat()
        time.sleep(_LOOK_S)


def is_at_end(path: Path) -> bool:
    """Whether the holder of a claim has said so, or is a process of this machine that is no more."""
    found = standing(path)
    if found.is_over or found.is_revoked:
        return True
    host, holder = process.this_host(), found.holder
    is_here = (holder.get("boot"), holder.get("pid_namespace")) == (host.boot, host.pid_namespace)
    return is_here and not process.is_same(holder["pid"], holder["ticks"])


def beat_of(path: Path) -> float:
    """When the holder of a claim last showed that it lives, by the file system's clock."""
    # Opening asks a network file system for what is true now; looking at the name alone may not.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
