"""Commands from another host of the same file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.inbox import Inbox, drop


def folder(output: Path) -> Path:
    return output / ".runner" / "inbox"


def test_without_requests_there_is_nothing_to_take(tmp_path: Path) -> None:
    assert list(Inbox(tmp_path).take()) == []
    assert not folder(tmp_path).exists()


def test_requests_are_taken_once_and_in_their_order(tmp_path: Path) -> None:
    for number in range(5):
        drop(tmp_path, {"do": "cancel", "words": [f"é{number}"]})
    assert [request["words"] for request in Inbox(tmp_path).take()] == [[f"é{number}"] for number in range(5)]
    assert list(Inbox(tmp_path).take()) == []
    assert list(folder(tmp_path).iterdir()) == []


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[1]", b"7", b"null"])
def test_what_is_no_request_is_put_aside_and_hides_no_other(tmp_path: Path, text: bytes) -> None:
    drop(tmp_path, {"do": "pause"})
    (folder(tmp_path) / "0.json").write_bytes(text)
    assert list(Inbox(tmp_path).take()) == [{"do": "pause"}]
    assert [path.name for path in folder(tmp_path).iterdir()] == ["0.damaged"]


def test_what_is_half_written_or_somebody_elses_kind_is_left_alone(tmp_path: Path) -> None:
    folder(tmp_path).mkdir(parents=True)
    for name in ("1.part", "notes.txt"):
        (folder(tmp_path) / name).write_text('{"do": "stop"}')
    assert list(Inbox(tmp_path).take()) == []
    assert sorted(path.name for path in folder(tmp_path).iterdir()) == ["1.part", "notes.txt"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_another_users_request_is_left_alone(tmp_path: Path) -> None:
    drop(tmp_path, {"do": "stop"})
    (path,) = folder(tmp_path).iterdir()
    os.chown(path, 65534, 65534)
    assert list(Inbox(tmp_path).take()) == []
    assert path.exists()
