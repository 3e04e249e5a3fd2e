"""One daemon at a time, and where it is to be found."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from runner import lock
from runner.errors import BusyError, SystemFaultError
from runner.lock import Holder, Lock

HOLDER = Holder(1, "host", "boot", "pid:[1]", 1000, "2026-01-01T00:00:00+0000", "/tmp/s")


def test_who_holds_the_lock_can_be_read_while_it_is_held_and_after_a_kill(tmp_path: Path) -> None:
    assert lock.holder(tmp_path) is None
    assert not lock.is_held(tmp_path)
    held = Lock(tmp_path)
    assert lock.is_held(tmp_path)
    assert lock.holder(tmp_path) is None  # it has not said yet
    held.tell(HOLDER)
    assert lock.holder(tmp_path) == HOLDER
    os.close(held._descriptor)  # as the system does for a killed process
    assert not lock.is_held(tmp_path)
    assert lock.holder(tmp_path) == HOLDER


def test_a_second_one_is_refused_until_the_first_gives_it_back(tmp_path: Path) -> None:
    first = Lock(tmp_path)
    first.tell(HOLDER)
    with pytest.raises(BlockingIOError):
        Lock(tmp_path)
    assert lock.holder(tmp_path) == HOLDER
    first.release()
    assert lock.holder(tmp_path) is None
    Lock(tmp_path).release()


def test_a_shorter_holder_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    held = Lock(tmp_path)
    held.tell(Holder(123456, "a" * 100, "b", "c", 0, "d", "e" * 100))
    held.tell(HOLDER)
    assert lock.holder(tmp_path) == HOLDER
    held.release()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"pid": 1}', b"\xff"])
def test_a_file_that_names_nobody_is_nobodys(tmp_path: Path, text: bytes) -> None:
    lock.lock_path(tmp_path).parent.mkdir()
    lock.lock_path(tmp_path).write_bytes(text)
    assert lock.holder(tmp_path) is None


def test_a_lock_whose_directory_was_removed_is_no_longer_in_place(tmp_path: Path) -> None:
    held = Lock(tmp_path / "output")
    assert held.is_in_place()
    shutil.rmtree(tmp_path / "output")
    assert not held.is_in_place()
    other = Lock(tmp_path / "output")
    assert not held.is_in_place()
    assert other.is_in_place()
    held.release()
    other.release()


def test_a_beat_is_seen_from_other_hosts(tmp_path: Path) -> None:
    held = Lock(tmp_path)
    os.utime(lock.lock_path(tmp_path), (0, 0))
    held.beat()
    assert lock.lock_path(tmp_path).stat().st_mtime > 1e9
    held.release()


def test_a_command_that_no_daemon_may_meet_is_refused_beside_one(tmp_path: Path) -> None:
    held = Lock(tmp_path)
    with pytest.raises(BusyError, match=r"a daemon works here; wait for its end"), lock.sole_user(tmp_path):
        pytest.fail("it was let in")
    held.release()
    with lock.sole_user(tmp_path):
        assert lock.is_held(tmp_path)
    assert not lock.is_held(tmp_path)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("a file")
    with pytest.raises(SystemFaultError, match="choose another directory with -o"):
        Lock(tmp_path / "output")
