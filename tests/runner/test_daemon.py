"""A daemon and the next one after a kill: single stories that users would miss first."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from runner import daemon as module
from runner import plans, records
from runner.commands import Commands
from runner.daemon import Daemon
from runner.errors import InputError
from runner.model import JobState
from runner.options import Retry, StageOptions
from runner.plan import Journal
from runner.service.shortage import HOLD_S
from tests.runner.standins import Clock, FakeExecutor, World, header, planned

if TYPE_CHECKING:
    from pathlib import Path

    from runner.events import Event

PENDING, RUNNING, COMPLETED = JobState.PENDING, JobState.RUNNING, JobState.COMPLETED
FAILED, CANCELED, INTERRUPTED = JobState.FAILED, JobState.CANCELED, JobState.INTERRUPTED


class Story:
    """An output directory with one daemon after the other."""

    def __init__(self, output: Path, clock: Clock) -> None:
        self.output = output
        (output / ".runner").mkdir()
        self.clock = clock
        self.world = World()
        self.journal = Journal(output)
        self.plans = 0
        self.said: list[str] = []
        self.events: list[Event] = []
        self.begin()

    def begin(self) -> None:
        """The next daemon."""
        self.executor = FakeExecutor(self.world)
        self.daemon = Daemon(self.executor, self.events.append, self.said.append, lambda *_: None)
        self.commands = Commands(self.daemon, self.journal, self.output, self.said.append)
        self.commands.restore()

    def settle(self) -> None:
        self.daemon.take(self.executor.poll())
        self.daemon.step()

    def run(
        self, *indices: int, stages: str = "ab", options: StageOptions | None = None, count: int = 1, command: str = "",
        **flags: Any,
    ) -> dict[str, int]:  # fmt: skip
        """Types `run`; returns what it changes. Without a `command`, each time with another one."""
        self.plans += 1
        given = dict.fromkeys("abc", options or StageOptions())
        command = command or f"run {self.plans}"
        trials = [planned(self.output, index, tuple(stages), command=command) for index in indices]
        plans.write(self.output, header(f"p{self.plans}", given, count, **flags), plans.Secrets({}), trials)
        request = {"plan": f"p{self.plans}", "size": self.journal.size(), "entry": {"kind": "plan", "time": "now"}}
        difference: dict[str, int] = self.commands.do("submit", request)["difference"]["counts"]
        self.settle()
        return difference

    def do(self, word: str, **request: Any) -> None:
        self.commands.do(word, request)
        self.settle()

    def end(self, name: str, stage: str, code: int | None) -> None:
        self.executor.end(self.world.find(name, stage), code)
        self.settle()

    def states(self, name: str) -> dict[str, JobState]:
        trial = next(trial for trial in self.daemon.scheduler.trials() if trial.name == name)
        return dict(self.daemon.scheduler.states(trial))

    def started(self) -> list[tuple[str, str]]:
        return [attempt.job for attempt in self.world.started]


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    clock = Clock()
    monkeypatch.setattr(module, "boot_seconds", clock)
    return Story(tmp_path, clock)


def test_an_attempt_that_was_retried_is_adopted(story: Story) -> None:
    story.run(0)
    story.end("T_0", "a", 1)
    story.do("retry", words=["T_0"])
    story.begin()
    story.settle()
    assert story.started() == [("T_0", "a")] * 2
    assert story.states("T_0") == {"a": RUNNING, "b": PENDING}
    story.end("T_0", "a", 0)
    assert story.world.jobs() == [("T_0", "b")]


@pytest.mark.parametrize("word", ["retry", "run"])
def test_a_cancellation_that_was_taken_back_ends_nothing_after_a_kill(story: Story, word: str) -> None:
    story.run(0, 1)
    story.do("cancel", words=["T_0"])
    story.end("T_0", "a", 143)
    story.end("T_1", "a", 1)
    if word == "retry":
        story.do("retry", words=["T_0"])
    else:
        story.run(0, is_full=False)
    story.begin()
    assert story.world.find("T_0", "a").signals == []


def test_a_cancellation_reaches_what_runs_also_after_a_kill(story: Story) -> None:
    story.run(0)
    story.do("cancel", words=["T_0"])
    story.begin()
    assert len(story.world.find("T_0", "a").signals) == 2
    story.end("T_0", "a", 143)
    assert story.states("T_0")["a"] is CANCELED
    assert story.daemon.is_done


def test_a_finished_stage_of_an_adopted_trial_stays_finished_when_it_is_asked_for_again(story: Story) -> None:
    story.run(0)
    story.end("T_0", "a", 0)
    story.begin()
    assert story.run(0) == {"running": 1}
    story.end("T_0", "b", 0)
    assert story.started() == [("T_0", "a"), ("T_0", "b")]
    assert story.daemon.is_done


def test_a_trial_that_runs_a_stage_no_longer_asked_for_goes_on_with_the_others(story: Story) -> None:
    story.run(0, stages="ab")
    story.run(0, stages="bc")
    story.end("T_0", "a", 0)
    story.end("T_0", "b", 0)
    story.end("T_0", "c", 0)
    assert story.daemon.is_done
    assert story.world.started[1].launch.command == "run 2"


def test_force_with_some_stages_leaves_the_others_finished(story: Story) -> None:
    story.run(0, 1, stages="ab", count=2)
    story.end("T_0", "a", 0)
    story.end("T_0", "b", 0)
    story.run(0, stages="b", is_full=False, is_forced=True, count=2)
    assert story.started()[2:] == [("T_0", "b"), ("T_0", "b")]


def test_an_automatic_retry_outlives_the_daemon(story: Story) -> None:
    story.run(0, options=StageOptions(retry=Retry(1, 60.0)))
    story.end("T_0", "a", 1)
    assert story.world.jobs() == []
    story.begin()
    story.settle()
    assert story.world.jobs() == [("T_0", "a")]
    story.end("T_0", "a", 1)
    assert story.states("T_0")["a"] is FAILED
    story.begin()
    story.settle()
    assert story.world.jobs() == []


def test_while_the_machine_is_short_of_room_the_daemon_waits_though_a_retry_is_due(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.run(0, 1, options=StageOptions(retry=Retry(1, 2.0)))
    story.end("T_0", "a", 1)

    def refuse(_launch: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(story.executor, "start", refuse)
    story.end("T_1", "a", 0)  # its next stage cannot start
    story.clock.now += 2.5
    assert story.daemon.step() == pytest.approx(HOLD_S - 2.5)
    story.run(2)
    assert [place.why_idle for place in story.daemon.places()] == [f"{story.output}/T_1: No space left on device"]


def test_a_failure_that_nobody_watched_has_its_cause_on_record(story: Story) -> None:
    story.run(0)
    attempt = story.world.find("T_0", "a")
    with open(attempt.launch.log_path, "w") as file:  # noqa: PTH123
        file.write("ValueError: no such thing\n")
    story.executor.end(attempt, 1)
    story.begin()
    last = records.read_attempts(f"{story.output}/T_0").last("a")
    assert last is not None
    assert last.end is not None
    assert (last.end["state"], last.end["cause"]) == ("failed", "traceback")


def test_what_is_no_longer_asked_for_comes_back_neither_by_a_retry_nor_by_a_kill(story: Story) -> None:
    story.run(0, 1)
    assert story.run(2) == {"new": 1, "kept": 1, "dropped": 1}
    story.do("retry")
    story.begin()
    assert sorted(trial.name for trial in story.daemon.scheduler.trials()) == ["T_0", "T_2"]
    assert story.states("T_0") == {"a": RUNNING}
    story.end("T_0", "a", 1)
    assert [trial.name for trial in story.daemon.scheduler.trials()] == ["T_2"]


def test_a_paused_daemon_with_a_retry_that_is_due_sleeps(story: Story) -> None:
    story.run(0, options=StageOptions(retry=Retry(1, 5.0)))
    story.do("pause", sweep=None)
    story.end("T_0", "a", 1)
    story.clock.now += 60.0
    assert story.daemon.step() is None


def test_a_pause_outlives_the_daemon(story: Story) -> None:
    story.do("pause", sweep=None)
    story.run(0)
    story.begin()
    story.settle()
    assert story.daemon.scheduler.paused is None
    assert story.started() == []
    story.do("resume")
    assert story.started() == [("T_0", "a")]


def test_a_waiting_trial_runs_what_it_was_planned_with_until_the_file_is_run_again(story: Story) -> None:
    story.run(0, 1)
    assert story.run(0, 1) == {"running": 1, "changed": 1}
    story.end("T_0", "a", 1)
    assert story.world.find("T_1", "a").launch.command == "run 2"


def test_other_options_of_a_waiting_trial_are_a_change(story: Story) -> None:
    story.run(0, 1, command="run")
    assert story.run(0, 1, command="run") == {"running": 1, "waiting": 1}
    assert story.run(0, 1, command="run", options=StageOptions(timeout_s=60)) == {"running": 1, "changed": 1}


def test_a_plan_that_was_made_before_another_run_is_stale(story: Story) -> None:
    story.run(0)
    assert story.commands.do("submit", {"plan": "p9", "size": 0, "entry": {"kind": "plan"}}) == {"stale": True}


def test_a_plan_asked_for_twice_is_taken_once(story: Story) -> None:
    story.run(0)
    answer = story.commands.do("submit", {"plan": "p1", "size": 0, "entry": {"kind": "plan"}})
    assert answer == {"difference": None}


def test_a_lost_plan_is_said_and_hides_no_other(story: Story) -> None:
    story.run(0, count=2)
    story.run(1, is_full=False, count=2)
    plans.delete(story.output, "p1")
    story.begin()
    assert len(story.said) == 1
    assert "is not taken up again" in story.said[0]
    assert [trial.name for trial in story.daemon.scheduler.trials()] == ["T_1"]


def test_an_unknown_word_and_an_unknown_sweep_are_bad_input(story: Story) -> None:
    with pytest.raises(InputError, match="the daemon does not know this"):
        story.commands.do("fly", {})
    with pytest.raises(InputError, match=r"x: no sweep with trials of its own\. Known: none"):
        story.commands.do("pause", {"sweep": "x"})


def test_the_limits_of_a_stage_end_its_attempt_politely_and_then_at_once(story: Story) -> None:
    story.run(0, options=StageOptions(timeout_s=60.0, grace_s=20.0))
    attempt = story.world.find("T_0", "a")
    story.clock.now += 61.0
    story.settle()
    assert attempt.signals == [15]
    story.clock.now += 19.0
    story.settle()
    assert attempt.signals == [15]
    story.clock.now += 2.0
    story.settle()
    assert attempt.signals == [15, 9]
    story.end("T_0", "a", None)
    assert story.states("T_0") == {"a": JobState.TIMEOUT, "b": JobState.BLOCKED}


def test_a_job_that_saves_its_state_again_and_again_at_once_is_given_up(story: Story) -> None:
    story.run(0)
    for _ in range(3):
        story.end("T_0", "a", 75)
    assert story.states("T_0") == {"a": INTERRUPTED, "b": PENDING}
    assert len(story.started()) == 3
