"""Files that only grow."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import appendfile
from runner.appendfile import append_line, whole_lines

LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=6)


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert whole_lines(tmp_path / "log") == []


def test_lines_are_added_in_order(tmp_path: Path) -> None:
    for line in (b"one\n", b"\n", b"three \0 \xff\n"):
        append_line(tmp_path / "log", line)
    assert (tmp_path / "log").read_bytes() == b"one\n\nthree \0 \xff\n"
    assert whole_lines(str(tmp_path / "log")) == [b"one", b"", b"three \0 \xff"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(lines=LINES, data=st.data())
def test_a_tail_torn_at_any_byte_is_cut_away_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "log"
    text = b"".join(line + b"\n" for line in lines)
    cut = text[: data.draw(st.integers(0, len(text)))]
    path.write_bytes(cut)
    whole = lines[: cut.count(b"\n")]
    assert whole_lines(path) == whole
    append_line(path, b"new\n")
    assert whole_lines(path) == [*whole, b"new"]
    assert path.read_bytes() == b"".join(line + b"\n" for line in [*whole, b"new"])


@pytest.mark.parametrize("torn", [1, 7, 8, 9, 15, 16, 17, 100])
@pytest.mark.parametrize("before", [b"", b"first\n", b"first\nsecond\n"])
def test_a_torn_tail_of_many_blocks_is_cut_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, torn: int
) -> None:
    monkeypatch.setattr(appendfile, "_BLOCK", 8)
    path = tmp_path / "log"
    path.write_bytes(before + b"x" * torn)
    append_line(path, b"new\n")
    assert path.read_bytes() == before + b"new\n"


def test_a_durable_line_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    append_line(tmp_path / "log", b"one\n")
    assert synced == []
    append_line(tmp_path / "log", b"two\n", is_durable=True)
    assert len(synced) == 1


def test_a_write_that_the_system_cuts_up_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole_write(descriptor, data[:3]))
    append_line(tmp_path / "log", b"0123456789\n")
    assert (tmp_path / "log").read_bytes() == b"0123456789\n"


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        append_line(tmp_path, b"x\n")
    with pytest.raises(IsADirectoryError):
        whole_lines(tmp_path)
