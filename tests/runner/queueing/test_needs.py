"""What waits for others: why it cannot run, and what of it never will as things are."""

from __future__ import annotations

import pytest

from runner.model import JobState, Needs, Trial
from runner.queueing.needs import blocked, problem

DONE, FAILED, WAITS = {JobState.COMPLETED}, {JobState.COMPLETED, JobState.FAILED}, {JobState.PENDING}


def trial(name: str, needs: Needs) -> Trial:
    return Trial(0, name, name, name, name, ("sum",), needs=needs)


def test_what_is_missing_is_told() -> None:
    states = {"a": DONE, "b": FAILED, "c": WAITS}
    assert problem(Needs(members=("a", "b", "c"), need=1), states.get) is None
    assert problem(Needs(members=("a", "b", "c", "d"), need=3), states.get) == (
        "1 of 4 trials are complete, needed are 3 (b failed; c has not run; d is no longer asked for)"
    )
    assert problem(Needs(after=("a", "c")), states.get) == "c has not run"


@pytest.mark.parametrize(
    ("other", "need", "is_blocked"),
    [(WAITS, 2, False), (FAILED, 2, True), (FAILED, 1, False), ({JobState.INTERRUPTED}, 2, False)],
)
def test_what_may_still_come_does_not_block(other: set[JobState], need: int, is_blocked: bool) -> None:
    gather = trial("law", Needs(members=("a", "b"), need=need))
    found = blocked([gather], {"a": DONE, "b": other, "law": WAITS})
    assert list(found) == ["law"] * is_blocked


def test_what_follows_something_blocked_is_blocked_in_any_order() -> None:
    last, second = trial("last", Needs(after=("second",))), trial("second", Needs(after=("law",)))
    gather = trial("law", Needs(members=("a",), need=1))
    states = {"a": FAILED, "law": WAITS, "second": WAITS, "last": WAITS}
    assert blocked([last, second, gather], states) == {
        "law": "0 of 1 trials are complete, needed are 1 (a failed)",
        "second": "law is blocked",
        "last": "second is blocked",
    }


def test_what_is_complete_is_not_blocked() -> None:
    gather = trial("law", Needs(members=("a",), need=1))
    assert blocked([gather], {"a": FAILED, "law": DONE}) == {}
