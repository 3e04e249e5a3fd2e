"""Durations, and options as a plan's file keeps them."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.options import Retry, StageOptions, seconds


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, 0.0),
        (90, 90.0),
        (0.5, 0.5),
        ("30s", 30.0),
        ("30 s", 30.0),
        ("250ms", 0.25),
        ("20m", 1200.0),
        ("20min", 1200.0),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
        ("1h 30m", 5400.0),
        ("1h30m10s", 5410.0),
        (" 2 h ", 7200.0),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_has_units(written: object, expected: float) -> None:
    assert seconds(written) == expected


@pytest.mark.parametrize(
    "written",
    ["", " ", "30", "1.5", "s", "-5s", "5 weeks", "5x", "1h foo", "h1", "1e3s", -1, -0.5, math.inf, math.nan, True,
     None, [30], {"s": 30}, "٣s"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"is no duration; allowed: a number of seconds, or a text such as 30s"):
        seconds(written)


RETRIES = st.builds(
    Retry,
    st.integers(0, 9),
    st.floats(0, 1e6),
    st.lists(st.sampled_from(["timeout", "oom", "signal"])).map(tuple),
)
TIMES = st.floats(0, 1e9)
OPTIONS = st.builds(
    StageOptions,
    timeout_s=st.none() | TIMES,
    retry=RETRIES,
    grace_s=TIMES,
    stall_s=st.none() | TIMES,
    stagger_s=TIMES,
    env=st.dictionaries(st.text(), st.text(), max_size=3),
    cwd=st.none() | st.text(),
    gpus=st.none() | st.just(0),
    keep=st.dictionaries(st.text(), st.integers(0, 9), max_size=3),
)


@given(OPTIONS)
def test_options_come_back_from_a_plans_file(options: StageOptions) -> None:
    assert StageOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_options_that_nobody_gave_take_no_room() -> None:
    assert StageOptions().to_json() == {}


@pytest.mark.parametrize(
    ("retry", "failures", "cause", "allowed"),
    [
        (Retry(), 1, "timeout", False),
        (Retry(2), 1, None, True),
        (Retry(2), 2, "signal", True),
        (Retry(2), 3, "signal", False),
        (Retry(2, on=("timeout",)), 1, "timeout", True),
        (Retry(2, on=("timeout",)), 1, "signal", False),
        (Retry(2, on=("timeout",)), 1, None, False),
    ],
)
def test_a_retry_is_for_so_many_failures_of_the_named_causes(
    retry: Retry, failures: int, cause: str | None, allowed: bool
) -> None:
    assert retry.allows(failures, cause) is allowed
