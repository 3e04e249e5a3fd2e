"""The ends of logs."""

from pathlib import Path

import pytest

from runner.logtail import last_line, read_tail


@pytest.mark.parametrize(
    ("content", "last"),
    [
        (b"", ""),
        (b"\n \n\t\n", ""),
        (b"one", "one"),
        (b"one\ntwo\n\n  \n", "two"),
        (b"one\n  two ", "two"),
        (b"10%\r50%\r100%", "100%"),
        (b"10%\r50%\r100%\r\n", "100%"),
        (b"one\n10%\r100%\ntwo\r\n", "two"),
        (b"epoch\n10%\r", "10%"),
        ("é☃\n".encode(), "é☃"),
        (b"bad \xff byte\n", "bad � byte"),
        (b"x" * 20_000 + b"\nend\n", "end"),
        (b"start\n" + b"y" * 20_000, "y" * 8192),
    ],
)
def test_the_last_line_of_a_log_is_what_a_terminal_would_show(tmp_path: Path, content: bytes, last: str) -> None:
    log = tmp_path / "log"
    log.write_bytes(content)
    assert last_line(str(log)) == last


def test_a_log_that_is_not_there_yet_says_nothing(tmp_path: Path) -> None:
    assert last_line(str(tmp_path / "log")) == ""
    assert read_tail(str(tmp_path / "log")) == ""


def test_a_directory_in_the_place_of_a_log_says_nothing(tmp_path: Path) -> None:
    assert read_tail(str(tmp_path)) == ""


def test_only_the_end_of_a_huge_log_of_anything_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(bytes(range(256)) * 8000 + b"\nend")
    tail = read_tail(str(log))
    assert tail.endswith("\nend")
    assert len(tail) <= 65536
