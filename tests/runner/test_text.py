"""Text of programs made harmless."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.text import printable


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


@given(text=st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x1b\x07[]();?0m\x9b"))))
def test_nothing_that_is_shown_is_a_control_character(text: str) -> None:
    assert all(character.isprintable() for character in printable(text))
