"""What came of a run, counted by stage."""

from runner.closing import counts_by_stage
from runner.model import JobState

FINAL = [
    {"train": JobState.COMPLETED, "test": JobState.COMPLETED},
    {"train": JobState.COMPLETED, "test": JobState.FAILED},
    {"train": JobState.FAILED, "test": JobState.BLOCKED},
    {"train": JobState.INTERRUPTED, "test": JobState.BLOCKED},
    {"train": JobState.PENDING, "test": JobState.PENDING},
    {"avg": JobState.COMPLETED},
]


def test_every_job_is_counted_once_in_its_stage() -> None:
    counts = counts_by_stage(FINAL, {})
    assert list(counts) == ["train", "test", "avg"]
    assert dict(counts["train"]) == {"completed": 2, "failed": 1, "interrupted": 1, "not run": 1}
    assert dict(counts["test"]) == {"completed": 1, "failed": 1, "blocked": 2, "not run": 1}
    assert dict(counts["avg"]) == {"completed": 1}


def test_what_was_finished_before_is_skipped_and_not_completed() -> None:
    counts = counts_by_stage(FINAL, {"train": 1, "avg": 1})
    assert (counts["train"]["completed"], counts["train"]["skipped"]) == (1, 1)
    assert (counts["avg"]["completed"], counts["avg"]["skipped"]) == (0, 1)
    assert sum(counts["train"].values()) == 5


def test_every_end_has_its_word() -> None:
    ends = [state for state in JobState if state is not JobState.RUNNING]
    counts = counts_by_stage([{"train": state} for state in ends], {})
    assert set(counts["train"].values()) == {1}
    assert sum(counts["train"].values()) == len(ends)


def test_an_empty_plan_has_no_counts() -> None:
    assert counts_by_stage([], {}) == {}
