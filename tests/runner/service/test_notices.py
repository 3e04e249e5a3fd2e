"""When the user is told."""

from runner.events import Event, Kind
from runner.model import Job, JobState, Slot, Trial
from runner.scheduler import Scheduler
from runner.service.notices import Notices

PENDING, COMPLETED, FAILED = JobState.PENDING, JobState.COMPLETED, JobState.FAILED


class Sweep:
    """A scheduler with one slot, and what the user hears of it."""

    def __init__(self, *sweeps: str) -> None:
        self.scheduler = Scheduler([Slot("cpu 0")])
        self.told: list[tuple[str, str, str]] = []
        self.notices = Notices(self.scheduler, lambda *words: self.told.append(words))
        for index, sweep in enumerate(sweeps):
            trial = Trial(index, f"id{index}", f"T_{index}", f"o/T_{index}", f"o/T_{index}", (), sweep)
            self.scheduler.add(trial, {"train": PENDING})

    def run(self, kind: Kind, state: JobState, line: str = "", cause: str = "") -> None:
        """The next job runs and ends."""
        (start,) = self.scheduler.decide()
        self.scheduler.ended(start.job, state)
        self.notices.hear(Event(kind, start.job, 0.0, log="o/log.train.1", cause=cause, line=line))


def test_the_first_failure_of_a_sweep_is_told_once_with_its_line() -> None:
    sweep = Sweep("s", "s", "s")
    sweep.run(Kind.FAIL, FAILED, "ValueError: x", "traceback")
    sweep.run(Kind.FAIL, FAILED, "ValueError: y", "traceback")
    assert sweep.told == [("first-failure", "s", "s: train of T_0 failed: ValueError: x")]


def test_a_failure_without_a_line_is_told_by_its_cause() -> None:
    sweep = Sweep("s", "s")
    sweep.run(Kind.FAIL, FAILED, cause="signal")
    assert sweep.told[0][2] == "s: train of T_0 failed: signal"


def test_the_end_of_each_sweep_is_told_with_its_sum() -> None:
    sweep = Sweep("s", "s", "t")
    sweep.run(Kind.DONE, COMPLETED)
    assert sweep.told == []
    sweep.run(Kind.DONE, COMPLETED)
    assert sweep.told == [("sweep-ended", "s", "s: 2 jobs finished")]
    sweep.run(Kind.FAIL, FAILED, "x")
    assert sweep.told[1:] == [
        ("first-failure", "t", "t: train of T_2 failed: x"),
        ("sweep-ended", "t", "t: 1 job failed"),
    ]


def test_a_retry_is_no_end_and_no_failure() -> None:
    sweep = Sweep("s")
    (start,) = sweep.scheduler.decide()
    sweep.scheduler.ended(start.job, FAILED, again_at=0.5)
    sweep.notices.hear(Event(Kind.RETRY, start.job, 0.0, log="o/log.train.1", cause="oom"))
    assert sweep.told == []


def test_what_was_finished_before_is_no_news() -> None:
    sweep = Sweep()
    trial = Trial(0, "id", "T_0", "o", "o", (), "s")
    sweep.scheduler.add(trial, {"train": COMPLETED})
    sweep.notices.hear(Event(Kind.SKIP, Job(trial, "train"), 0.0))
    assert sweep.told == []


def test_a_pause_that_the_runner_made_is_told() -> None:
    sweep = Sweep("s")
    sweep.notices.paused("s", "its first 3 trials all failed")
    assert sweep.told == [("paused", "s", "its first 3 trials all failed")]
