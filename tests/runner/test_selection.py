"""Which trials a user's words name."""

import pytest

from runner.errors import InputError
from runner.model import Trial
from runner.selection import named

NAMES = ["Lr_0.1-Seed_0", "Lr_0.1-Seed_1", "Lr_0.01-Seed_0", "Act_relu", "7", "a[1]"]
TRIALS = [Trial(index, f"id{index}", name, f"o/{name}", f"o/{name}", ()) for index, name in enumerate(NAMES)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["Lr_0.1-Seed_1"], ["Lr_0.1-Seed_1"]),
        (["1", "4"], ["Lr_0.1-Seed_0", "Act_relu"]),
        (["7"], ["7"]),  # a name comes before a number
        (["Act"], ["Act_relu"]),
        (["Lr_0.1*"], ["Lr_0.1-Seed_0", "Lr_0.1-Seed_1"]),
        (["*Seed_?"], ["Lr_0.1-Seed_0", "Lr_0.1-Seed_1", "Lr_0.01-Seed_0"]),
        (["a[1*"], ["a[1]"]),
        (["output/Act_relu/"], ["Act_relu"]),
        (["Act_relu", "4", "*relu"], ["Act_relu"]),  # each once
        (["Act", "1"], ["Act_relu", "Lr_0.1-Seed_0"]),
        (["*"], NAMES),
        ([], []),
    ],
)
def test_words_are_names_numbers_patterns_or_beginnings(words: list[str], found: list[str]) -> None:
    assert [trial.name for trial in named(TRIALS, words)] == found


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("Act_rely", r"Act_rely: no such trial\. Did you mean 'Act_relu'\?"),
        ("0", r"0: no such trial"),
        ("99", r"99: no such trial"),
        ("x*", r"x\*: no such trial"),
        ("seed", r"seed: no such trial"),
        ("Lr_0.1", r"Lr_0\.1: the beginning of 2 names: Lr_0\.1-Seed_0, Lr_0\.1-Seed_1; write more of it, or Lr_0"),
    ],
)
def test_a_word_that_names_none_or_several_is_refused(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        named(TRIALS, ["Act_relu", word])
    assert caught.value.exit_code == 2
