"""What the daemons of this machine wait for: each tells the others in a file beside the leases.

Whoever waits writes his file anew at each look; one that was not written lately is that of a daemon that is no more.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from runner.errors import SystemFaultError
from runner.gpus.fairness import Waiter, Wish
from runner.gpus.leases import NO_RECORD, open_foreign, share_of_text

if TYPE_CHECKING:
    from pathlib import Path

_SUFFIX = ".wait"
_MAX_BYTES = 65536
FRESH_S = 5.0


class WaitingRoom:
    """The daemons that wait for GPUs; all times are on the clock since boot."""

    def __init__(self, directory: Path) -> None:
        """`directory` is that of the leases."""
        self._directory = directory
        self._path = directory / f"{os.getuid()}-{os.getpid()}{_SUFFIX}"
        self.since_s = math.inf  # when this daemon began to wait, or when it last got something

    def tell(self, wish: Wish | None, now_s: float) -> None:
        """Says what this daemon waits for; None: nothing."""
        if wish is None:
            self.since_s = math.inf
            with suppress(OSError):  # what cannot be removed is soon too old
                self._path.unlink(missing_ok=True)
            return
        self.since_s = min(self.since_s, now_s)
        wanted = {"count": wish.count, "share": str(wish.share), "cards": sorted(wish.cards)}
        if self._directory.is_dir():  # otherwise nobody has anything
            self._write(json.dumps({"pid": os.getpid(), "since": self.since_s, "at": now_s, **wanted}).encode())

    def others(self, now_s: float) -> list[Waiter]:
        """The other daemons that wait."""
        found = []
        try:
            entries = list(os.scandir(self._directory))
        except OSError:  # nobody has made it yet, or it was removed
            return []
        for entry in entries:
            if entry.name.endswith(_SUFFIX) and entry.name != self._path.name:
                waiter = _read(entry.path, now_s)
                if waiter is not None:
                    found.append(waiter)
        return found

    def _write(self, content: bytes) -> None:
        new = self._path.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)  # others may put a link there
            try:
                os.fchmod(fd, 0o644)  # whatever the umask: others must be able to read it
                os.write(fd, content)
            finally:
                os.close(fd)
            new.replace(self._path)
        except OSError as error:
            raise SystemFaultError(f"{new}: {error.strerror}; nobody can see that this run waits.") from error


def _read(path: str, now_s: float) -> Waiter | None:
    """Who waits; None where it is not to be understood, or not so any more."""
    fd = open_foreign(path)
    if fd is None:
        return None
    try:
        record = json.loads(os.read(fd, _MAX_BYTES))
        wish = Wish(int(record["count"]), share_of_text(record["share"]), frozenset(map(str, record["cards"])))
        waiter = Waiter(os.fstat(fd).st_uid, int(record["pid"]), float(record["since"]), wish)
        is_fresh = abs(now_s - float(record["at"])) <= FRESH_S
    except NO_RECORD:
        return None
    finally:
        os.close(fd)
    if not is_fresh and waiter.uid == os.getuid():
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - what scandir gives
    return waiter if is_fresh and waiter.wish.count > 0 and math.isfinite(waiter.since_s) else None
