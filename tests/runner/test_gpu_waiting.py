"""What daemons tell each other of what they wait for."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from runner.errors import SystemFaultError
from runner.gpus.fairness import Wish
from runner.gpus.waiting import FRESH_S, WaitingRoom

if TYPE_CHECKING:
    from pathlib import Path

WISH = Wish(2, Fraction(1, 3), frozenset({"GPU-a", "GPU-b"}))

TELLS = """
import sys
from fractions import Fraction
from pathlib import Path
from runner.gpus.fairness import Wish
from runner.gpus.waiting import WaitingRoom
room = WaitingRoom(Path(sys.argv[1]))
for now_s in map(float, sys.argv[2:]):
    room.tell(Wish(2, Fraction(1, 3), frozenset({"GPU-a", "GPU-b"})), now_s)
"""


def other_tells(directory: Path, *times: float) -> int:
    """Another daemon says at these times what it waits for, and is killed; returns its pid."""
    process = subprocess.Popen([sys.executable, "-c", TELLS, str(directory), *map(str, times)])
    assert process.wait() == 0
    return process.pid


def test_others_see_who_waits_since_when_and_for_what(tmp_path: Path) -> None:
    pid = other_tells(tmp_path, 100.0, 107.0)
    (waiter,) = WaitingRoom(tmp_path).others(110.0)
    assert (waiter.uid, waiter.pid, waiter.since_s, waiter.wish) == (os.getuid(), pid, 100.0, WISH)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_daemon_that_is_no_more_does_not_wait(tmp_path: Path) -> None:
    other_tells(tmp_path, 100.0)
    assert WaitingRoom(tmp_path).others(100.5 + FRESH_S) == []
    assert list(tmp_path.iterdir()) == []


def test_who_waits_no_more_says_so(tmp_path: Path) -> None:
    room = WaitingRoom(tmp_path)
    room.tell(WISH, 100.0)
    room.tell(WISH, 101.0)
    assert room.since_s == 100.0
    assert room.others(101.0) == []  # nobody but itself
    room.tell(None, 102.0)
    assert list(tmp_path.iterdir()) == []
    room.tell(WISH, 103.0)
    assert room.since_s == 103.0


def test_without_a_directory_of_leases_nobody_has_anything_to_leave(tmp_path: Path) -> None:
    room = WaitingRoom(tmp_path / "none")
    room.tell(WISH, 100.0)
    assert room.others(100.0) == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 60_000,
        b'{"pid": 1, "since": 1, "at": 100, "count": 0, "share": "1", "cards": []}',
        b'{"pid": 1, "since": NaN, "at": 100, "count": 1, "share": "1", "cards": []}',
        b'{"pid": 1, "since": 1, "at": NaN, "count": 1, "share": "1", "cards": []}',
        b'{"pid": 1, "since": 1, "at": 100, "count": 1, "share": "1e9999999", "cards": []}',
        b'{"pid": 1, "since": 1, "at": 100, "count": 1, "share": "1", "cards": 5}',
        b'{"pid": 1, "since": 1, "at": 100, "count": 1e999, "share": "1", "cards": []}',
    ],
)
def test_what_is_not_to_be_understood_is_passed_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "7-7.wait").write_bytes(content)
    os.mkfifo(tmp_path / "8-8.wait")
    (tmp_path / "9-9.wait").symlink_to("/dev/zero")
    assert WaitingRoom(tmp_path).others(100.0) == []


def test_a_directory_that_takes_no_file_is_told(tmp_path: Path) -> None:
    room = WaitingRoom(tmp_path)
    (tmp_path / f"{os.getuid()}-{os.getpid()}.new").mkdir()
    with pytest.raises(SystemFaultError, match="nobody can see that this run waits"):
        room.tell(WISH, 100.0)


def test_what_cannot_be_removed_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = WaitingRoom(tmp_path)
    room.tell(WISH, 100.0)
    other_tells(tmp_path, 100.0)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("runner.gpus.waiting.os.unlink", refuse)
    room.tell(None, 101.0)
    assert room.others(100.5 + FRESH_S) == []


def test_what_is_no_directory_is_an_empty_one(tmp_path: Path) -> None:
    room = WaitingRoom(tmp_path / "leases")
    (tmp_path / "leases").touch()
    assert room.others(100.0) == []
    room.tell(None, 100.0)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_somebody_put_where_it_writes_is_not_followed(tmp_path: Path, kind: str) -> None:
    leases, victim = tmp_path / "leases", tmp_path / "victim"
    leases.mkdir()
    victim.write_text("precious")
    trap = leases / f"{os.getuid()}-{os.getpid()}.new"
    if kind == "link":
        trap.symlink_to(victim)
    else:
        os.mkfifo(trap)
    WaitingRoom(leases).tell(WISH, 100.0)
    assert victim.read_text() == "precious"
    (path,) = leases.iterdir()
    assert json.loads(path.read_text())["at"] == 100.0
