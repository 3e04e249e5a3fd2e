"""The exceptions that reach the user, and how they say where."""

import pytest

from runner.errors import BusyError, InputError, Place, RunnerError, SystemFaultError, did_you_mean


@pytest.mark.parametrize(("error", "code"), [(RunnerError, 1), (InputError, 2), (BusyError, 1), (SystemFaultError, 1)])
def test_every_failure_has_its_exit_code(error: type[RunnerError], code: int) -> None:
    assert error.exit_code == code
    assert issubclass(error, RunnerError)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place("a.yaml"), "a.yaml"),
        (Place("a.yaml", 3), "a.yaml, line 3"),
        (Place("a.yaml", 3, "default.lr"), "a.yaml, line 3, default.lr"),
        (Place("a.yaml", None, "lr"), "a.yaml, lr"),
    ],
)
def test_a_place_names_file_line_and_key(place: Place, text: str) -> None:
    assert str(place) == text


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("trian", " Did you mean 'train'?"),
        ("tests", " Did you mean 'test'?"),
        ("xyz", ""),
        ("", ""),
    ],
)
def test_the_nearest_word_is_proposed(word: str, hint: str) -> None:
    assert did_you_mean(word, (name for name in ("train", "test"))) == hint


def test_without_words_nothing_is_proposed() -> None:
    assert did_you_mean("train", []) == ""
