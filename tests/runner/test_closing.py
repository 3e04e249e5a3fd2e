"""What came of a run, counted by stage."""

from collections import Counter
from collections.abc import Iterable, Mapping

import pytest
from rich.console import Console

from runner.closing import counts_by_stage, print_failures
from runner.events import Event, Kind
from runner.model import Job, JobState, Trial
from runner.progress import Progress

ENDS = {
    JobState.COMPLETED: Kind.DONE,
    JobState.FAILED: Kind.FAIL,
    JobState.BLOCKED: Kind.BLOCK,
    JobState.INTERRUPTED: Kind.INTERRUPT,
    JobState.CANCELED: Kind.CANCEL,
    JobState.PRUNED: Kind.PRUNE,
    JobState.RUNNING: Kind.START,
}
FINAL: list[dict[str, Kind | None]] = [
    {"train": Kind.DONE, "test": Kind.DONE},
    {"train": Kind.DONE, "test": Kind.FAIL},
    {"train": Kind.FAIL, "test": Kind.BLOCK},
    {"train": Kind.INTERRUPT, "test": Kind.BLOCK},
    {"train": None, "test": None},
    {"avg": Kind.DONE},
]


def run_of(trials: Iterable[Mapping[str, Kind | None]]) -> tuple[list[Job], Progress]:
    """A run in which each job came to an event of a kind, or to none."""
    jobs: list[Job] = []
    progress = Progress(Counter(), 1)
    for index, kinds in enumerate(trials):
        trial = Trial(index, f"id{index}", f"T_{index}", f"output/T_{index}", f"output/T_{index}", tuple(kinds))
        for stage, kind in kinds.items():
            jobs.append(Job(trial, stage))
            if kind is not None:
                progress.handle(Event(kind, jobs[-1], 0.0))
    return jobs, progress


def test_every_job_is_counted_once_in_its_stage() -> None:
    counts = counts_by_stage(*run_of(FINAL))
    assert list(counts) == ["train", "test", "avg"]
    assert dict(counts["train"]) == {"completed": 2, "failed": 1, "interrupted": 1, "not run": 1}
    assert dict(counts["test"]) == {"completed": 1, "failed": 1, "blocked": 2, "not run": 1}
    assert dict(counts["avg"]) == {"completed": 1}


def test_what_was_finished_before_is_skipped_and_not_completed() -> None:
    before: list[dict[str, Kind | None]] = [{"train": Kind.SKIP, "test": Kind.DONE}, *FINAL[1:5], {"avg": Kind.SKIP}]
    counts = counts_by_stage(*run_of(before))
    assert (counts["train"]["completed"], counts["train"]["skipped"]) == (1, 1)
    assert (counts["avg"]["completed"], counts["avg"]["skipped"]) == (0, 1)
    assert sum(counts["train"].values()) == 5


def test_every_end_has_its_word() -> None:
    counts = counts_by_stage(*run_of([{"train": None}, *({"train": kind} for kind in ENDS.values())]))
    assert set(counts["train"].values()) == {1}
    assert sum(counts["train"].values()) == len(ENDS) + 1


@pytest.mark.parametrize(("kind", "word"), [(Kind.RETRY, "not run"), (Kind.WAIT, "not run"), (Kind.DROP, "canceled")])
def test_what_is_due_again_has_not_run_and_what_was_taken_out_is_canceled(kind: Kind, word: str) -> None:
    jobs, progress = run_of([{"train": Kind.FAIL}])
    progress.handle(Event(kind, jobs[0], 1.0))
    assert dict(counts_by_stage(jobs, progress)["train"]) == {word: 1}


def test_an_empty_plan_has_no_counts() -> None:
    assert counts_by_stage(*run_of([])) == {}


def test_what_many_failed_of_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [Trial(index, f"id{index}", f"T_{index}", f"o/T_{index}", f"o/T_{index}", ("a",)) for index in range(1500)]
    refused = [Event(Kind.FAIL, Job(trial, "a"), 0.0, cause="exit", line="no such partition") for trial in trials]
    own = Event(
        Kind.FAIL, Job(trials[3], "b"), 0.0, exit_code=1, log="o/T_3/log", cause="exit", line="no such partition"
    )
    print_failures(Console(width=200), [*refused, own])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Failed")] == [
        "Failed: a, T_0 and 1,499 more trials",
        "Failed: b, T_3",
    ]
    assert lines.count("  no such partition") == 2
    assert "more that failed" not in "".join(lines)
