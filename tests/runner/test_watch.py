"""What a run shows: its lines, the ends of logs, and harmless text."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.events import Event, Kind
from runner.model import Job, Trial
from runner.watch import last_line, line, printable

TRIAL = Trial(6, "id", "Lr_1", "output/Lr_1", "output/Lr_1", {}, {})
JOB = Job(TRIAL, "train")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Event(Kind.START, JOB, 0.0, "gpu 0"), "START     gpu 0, train:  7/12, output/Lr_1"),
        (Event(Kind.START, JOB, 0.0, "gpu 0", attempt=3), "START     gpu 0, train:  7/12, attempt 3, output/Lr_1"),
        (Event(Kind.ADOPT, JOB, 0.0, "cpu 1"), "ADOPT     cpu 1, train:  7/12, output/Lr_1"),
        (Event(Kind.ADOPT, JOB, 0.0, "cpu 1", attempt=2), "ADOPT     cpu 1, train:  7/12, attempt 2, output/Lr_1"),
        (
            Event(Kind.DONE, JOB, 0.0, "cpu 1", 245.0, 0, 2),
            "DONE      cpu 1, train:  7/12, 4 min 05 s, output/Lr_1",
        ),
        (
            Event(Kind.FAIL, JOB, 0.0, "cpu 1", 0.5, 3, log="output/Lr_1/log.train.1"),
            "FAIL      cpu 1, train:  7/12, 0.50 s, exit code 3, output/Lr_1",
        ),
        (Event(Kind.SKIP, JOB, 0.0), "SKIP      train:  7/12, output/Lr_1"),
        (Event(Kind.BLOCK, JOB, 0.0), "BLOCK     train:  7/12, an earlier stage failed, output/Lr_1"),
        (Event(Kind.INTERRUPT, JOB, 0.0, "cpu 1", 9.0), "INTERRUPT cpu 1, train:  7/12, output/Lr_1"),
    ],
)
def test_an_event_is_one_line(event: Event, text: str) -> None:
    assert line(event, 12) == text


def test_the_numbers_of_trials_stand_below_each_other() -> None:
    event = Event(Kind.SKIP, JOB, 0.0)
    assert line(event, 7) == "SKIP      train: 7/7, output/Lr_1"
    assert line(event, 1000) == "SKIP      train:    7/1000, output/Lr_1"


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é☃ \U0001f600", "plain é☃ \U0001f600"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[1;38;5;200mx\x1b[K\x1b[2J\x1b[?25l", "x"),
        ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc"),
        ("a\x1b]0;never closed", "a"),
        ("a\x1b(Bb\x1b7c", "abc"),
        ("a\x1b[", "a"),
        ("a\x1b", "a·"),
        ("\x1b\x1b[31mx", "·x"),
        ("a\tb\nc\rd\0", "a·b·c·d·"),
        ("\x9b31m", "·31m"),
        ("\u202eright to left\u2066", "·right to left·"),
        ("\u2028\ufeff\udc80", "···"),
        ("", ""),
    ],
)
def test_a_programs_text_cannot_drive_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


@settings(deadline=None)
@given(text=st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x1b\x07[]();?0m\x9b"))))
def test_nothing_that_is_shown_is_a_control_character(text: str) -> None:
    assert all(character.isprintable() for character in printable(text))
