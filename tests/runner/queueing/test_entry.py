"""The states of one trial's stages, and the counts that follow them."""

from __future__ import annotations

from collections import Counter

import pytest

from runner.model import Job, JobState, Terms, Trial
from runner.queueing.entry import Counts, Entry

PENDING, RUNNING, COMPLETED = JobState.PENDING, JobState.RUNNING, JobState.COMPLETED
FAILED, BLOCKED = JobState.FAILED, JobState.BLOCKED
STAGES = ("prepare", "train", "test")


def trial(sweep: str = "s") -> Trial:
    return Trial(0, "id", "T", "o/T", "o/T", (), sweep)


def made(**states: JobState) -> tuple[Entry, Counts]:
    counts: Counts = Counter()
    entry = Entry(trial(), {"train": Terms(gpus=2)}, 1, counts)
    entry.put(states)
    return entry, counts


def left(counts: Counts) -> dict[tuple[str, str, JobState], int]:
    return {key: count for key, count in counts.items() if count}


def test_the_first_stage_that_waits_is_due_on_its_terms() -> None:
    entry, _ = made(prepare=COMPLETED, train=PENDING, test=PENDING)
    assert (entry.due(), entry.due_terms()) == ("train", Terms(gpus=2))
    entry.move("train", RUNNING)
    assert (entry.due(), entry.due_terms()) == ("test", Terms())


def test_the_counts_follow_every_change() -> None:
    entry, counts = made(prepare=PENDING, train=PENDING)
    entry.move("prepare", RUNNING)
    assert left(counts) == {("s", "prepare", RUNNING): 1, ("s", "train", PENDING): 1}
    entry.take_back("prepare")
    assert left(counts) == {("s", "prepare", PENDING): 1, ("s", "train", PENDING): 1}
    entry.put({"test": COMPLETED}, trial("other"))
    assert left(counts) == {("other", "test", COMPLETED): 1}
    entry.put({})
    assert left(counts) == {}


def test_a_state_that_cannot_follow_is_refused_and_counts_nowhere() -> None:
    entry, counts = made(train=COMPLETED)
    with pytest.raises(AssertionError, match="train: finished to running"):
        entry.move("train", RUNNING)
    assert left(counts) == {("s", "train", COMPLETED): 1}


@pytest.mark.parametrize(("after", "moved"), [(None, STAGES), ("prepare", ("train", "test")), ("test", ())])
def test_stages_are_moved_together_all_or_those_after_one(after: str | None, moved: tuple[str, ...]) -> None:
    entry, _ = made(**dict.fromkeys(STAGES, PENDING))
    assert entry.move_all({PENDING}, BLOCKED, after) == [Job(entry.trial, stage) for stage in moved]
    assert [stage for stage, state in entry.states.items() if state is BLOCKED] == list(moved)


def test_only_stages_of_the_named_states_are_moved_together() -> None:
    entry, _ = made(prepare=COMPLETED, train=FAILED, test=BLOCKED)
    assert entry.move_all({FAILED, BLOCKED}, PENDING) == [Job(entry.trial, "train"), Job(entry.trial, "test")]
    assert entry.states == {"prepare": COMPLETED, "train": PENDING, "test": PENDING}
