"""Plain arithmetic over parameters, and what it refuses."""

import pytest

from runner import arithmetic
from runner.memory import lowered


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{batch}/2", 32.0),
        ("{batch} // 3", 21),
        ("-{batch} + 100 * (2 - 1)", 36),
        ("{batch} % 60 ** 1", 4),
        ("{lr}*{batch}", 6.4),
        ("{optim.lr} * 1e2", 50.0),
        ("7", 7),
    ],
)
def test_a_text_has_a_value(text: str, value: float) -> None:
    params = {"batch": 64, "lr": 0.1, "optim.lr": 0.5}
    assert arithmetic.parse(text).value(params) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    ["", "batch/2", "__import__('os')", "{batch}.real", "f({batch})", "{batch} if 1 else 2", "{batch},1", "'a'", "1j",
     "{batch}/", "x" * 1000, "True", "{batch} @ 2", "lambda: 1", "[1]", "{a}__class__"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no plain arithmetic; allowed: numbers"):
        arithmetic.parse(text)


@pytest.mark.parametrize(
    "text",
    ["{batch}/0", "{name}*2", "{flag}+1", "9**9999", "1e308*10", "(0-8)**0.5",
     "(10**100)**100", "(0-8)**0.5 // 2", "2 % (0-8)**0.5"],
)  # fmt: skip
def test_what_has_no_value_says_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        arithmetic.parse(text).value({"batch": 64, "name": "x", "flag": True})


def test_a_whole_number_stays_one() -> None:
    assert repr(lowered({"batch": 7, "lr": 0.1}, {"batch": "{batch}/2", "lr": "{lr}/2"})) == repr(
        {"batch": 3, "lr": 0.05}
    )
