"""A daemon with a gather over some trials, and a trial that depends on it: who waits, and who runs again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runner import plans
from runner.commands import Commands
from runner.daemon import Daemon
from runner.events import Event, Kind
from runner.model import JobState, Needs, PlannedTrial
from runner.options import StageOptions
from runner.plan import Journal
from tests.runner.standins import FakeExecutor, World, header, planned

if TYPE_CHECKING:
    from pathlib import Path

LAW = "gather.law/all"
COMPLETED, FAILED, BLOCKED, PENDING = JobState.COMPLETED, JobState.FAILED, JobState.BLOCKED, JobState.PENDING
MEMBERS = [("T_0", "a"), ("T_1", "a"), ("T_2", "a")]
UNIT, LAST = ("all", "law"), ("T_9", "a")


class Story:
    """An output directory with one daemon after the other, three members, their gather, and what comes after it."""

    def __init__(self, output: Path) -> None:
        self.output = output
        (output / ".runner").mkdir()
        self.world = World()
        self.journal = Journal(output)
        self.plans = 0
        self.events: list[Event] = []
        self.begin()

    def begin(self) -> None:
        """The next daemon."""
        self.executor = FakeExecutor(self.world)
        self.daemon = Daemon(self.executor, self.events.append, lambda _: None, lambda *_: None)
        self.commands = Commands(self.daemon, self.journal, self.output, lambda _: None)
        self.commands.restore()
        self.step()

    def step(self) -> None:
        self.daemon.take(self.executor.poll())
        self.daemon.step()

    def run(self, members: int = 3, need: int | None = None, count: int = 1, stages: str = "a", **flags: Any) -> None:
        """Types `run`."""
        self.plans += 1
        trials = [planned(self.output, index, stages) for index in range(members)]
        needs = Needs(members=tuple(trial.key for trial in trials), need=members if need is None else need)
        last = replace(planned(self.output, 9, "a"), needs=Needs(after=(LAW,), reads=(f"{self.output}/{LAW}/made",)))
        options = dict.fromkeys((*stages, "a", "law"), StageOptions())
        head = header(f"p{self.plans}", options, count, **flags)
        plans.write(self.output, head, plans.Secrets({}), [*trials, self.unit(needs), last])
        request = {"plan": head.plan_id, "size": self.journal.size(), "entry": {"kind": "plan", "time": "now"}}
        self.commands.do("submit", request)
        self.step()

    def unit(self, needs: Needs) -> PlannedTrial:
        directory = f"{self.output}/{LAW}"
        plain = planned(self.output, 5, ("law",))
        return replace(plain, name=LAW, output=directory, directory=directory, needs=needs)

    def do(self, word: str, **request: Any) -> None:
        self.commands.do(word, request)
        self.step()

    def end(self, job: tuple[str, str], code: int | None = 0) -> None:
        """An attempt ends; a gather makes the same file each time."""
        if job == UNIT:
            (self.output / LAW / "made").write_text("1")
        self.executor.end(self.world.find(*job), code)
        self.step()

    def finish(self) -> None:
        """Everything ends well."""
        while self.world.living:
            self.end(next(iter(self.world.living.values())).job)

    def state(self, name: str) -> JobState:
        trial = self.daemon.scheduler.trial(name)
        assert trial is not None
        (state,) = self.daemon.scheduler.states(trial).values()
        return state

    def started(self) -> list[tuple[str, str]]:
        return [attempt.job for attempt in self.world.started]

    def told(self, kind: Kind) -> dict[str, str]:
        return {event.job.trial.key: event.line for event in self.events if event.kind is kind}


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def test_a_gather_comes_after_its_members_and_before_what_depends_on_it(story: Story) -> None:
    story.run()
    assert not story.daemon.is_done
    story.finish()
    assert story.started() == [*MEMBERS, UNIT, LAST]
    assert story.daemon.is_done


def test_who_comes_later_hears_why_something_is_blocked(story: Story) -> None:
    story.run()
    story.end(MEMBERS[0], 1)
    story.finish()
    heard = {event[1]: event[-1] for event in story.commands.watched({})["events"] if event[0] == Kind.BLOCK}
    assert heard == story.told(Kind.BLOCK)
    assert heard[LAW].startswith("2 of 3 trials are complete, needed are 3")


@pytest.mark.parametrize("is_killed", [False, True])
def test_of_the_plans_of_two_rounds_the_later_one_counts_in_whatever_order_they_come(
    story: Story, is_killed: bool
) -> None:
    story.run(2)
    for number, members in ((3, 4), (2, 3)):  # two searches whose rounds were decided at once
        story.plans = number - 1
        story.run(members, is_full=False, begun_by="p1")
    if is_killed:
        story.begin()
    while UNIT not in story.world.jobs():
        story.end(story.world.jobs()[0])
    assert len((story.output / LAW / "trials.jsonl").read_text().splitlines()) == 4


def test_daemons_that_are_killed_after_each_event_start_the_same_once(story: Story) -> None:
    story.run(count=2)
    while story.world.living:
        story.end(min(attempt.job for attempt in story.world.living.values()))
        story.begin()
    assert Counter(story.started()) == Counter([*MEMBERS, UNIT, LAST])
    assert [story.state(name) for name in ("T_0", LAW, "T_9")] == [COMPLETED] * 3
    story.run()
    assert story.daemon.is_done
    assert len(story.started()) == 5


def test_what_failed_is_left_out_only_when_all_have_ended(story: Story) -> None:
    story.run(need=2)
    story.end(MEMBERS[0], 1)
    story.end(MEMBERS[1])
    assert story.started() == MEMBERS
    story.end(MEMBERS[2])
    story.finish()
    assert story.started() == [*MEMBERS, UNIT, LAST]


def test_too_few_block_the_gather_and_what_depends_on_it_with_a_reason(story: Story) -> None:
    story.run()
    story.end(MEMBERS[0], 1)
    story.finish()
    assert story.daemon.is_done
    assert (story.state(LAW), story.state("T_9")) == (BLOCKED, BLOCKED)
    assert story.told(Kind.BLOCK) == {
        LAW: "2 of 3 trials are complete, needed are 3 (T_0 failed)",
        "T_9": "gather.law/all is blocked",
    }
    story.do("retry", words=["T_0"])
    assert (story.state(LAW), story.state("T_9")) == (PENDING, PENDING)
    story.finish()
    assert story.started()[-3:] == [MEMBERS[0], UNIT, LAST]


def test_a_member_that_is_made_anew_while_the_gather_runs_makes_it_run_again(story: Story) -> None:
    story.run(need=2)
    story.end(MEMBERS[0], 1)
    story.end(MEMBERS[1])
    story.end(MEMBERS[2])
    assert story.world.jobs() == [UNIT]
    story.do("retry", words=["T_0"])
    story.end(UNIT)
    assert story.state(LAW) is PENDING  # what it made is of two members
    story.end(MEMBERS[0])
    assert story.world.jobs() == [UNIT]
    story.finish()
    assert story.started() == [*MEMBERS, UNIT, MEMBERS[0], UNIT, LAST]


def test_a_plan_with_more_members_while_the_gather_runs_makes_it_run_again(story: Story) -> None:
    story.run(count=2)
    for job in MEMBERS:
        story.end(job)
    story.run(members=4, count=2)
    assert story.world.jobs() == [("T_3", "a"), UNIT]
    story.end(UNIT)
    assert story.state(LAW) is PENDING
    story.end(("T_3", "a"))
    story.finish()
    assert story.started()[3:] == [UNIT, ("T_3", "a"), UNIT, LAST]


@pytest.mark.parametrize(("before", "after"), [("a", "ab"), ("ab", "a")])
def test_a_gather_over_what_ran_when_stages_were_edited_runs_once(story: Story, before: str, after: str) -> None:
    for stages in (before, after, after):
        story.run(stages=stages)
        if stages == before:
            assert story.started() == [("T_0", "a")]
        else:
            story.finish()
    assert story.started().count(UNIT) == 1


def test_equal_content_runs_nothing_again_that_reads_it(story: Story) -> None:
    story.run()
    story.finish()
    story.run(members=4)
    story.finish()
    assert story.started() == [*MEMBERS, UNIT, LAST, ("T_3", "a"), UNIT]
    (story.output / LAW / "made").write_text("2")
    story.run(members=4)
    story.finish()
    assert story.started()[-1] == LAST


def test_a_gather_that_is_canceled_stays_so_until_it_is_retried(story: Story) -> None:
    story.run()
    story.end(MEMBERS[0])
    story.do("cancel", words=[LAW])
    story.finish()
    assert (story.state(LAW), story.state("T_9")) == (JobState.CANCELED, BLOCKED)
    story.begin()
    assert story.state(LAW) is JobState.CANCELED
    story.do("retry", words=[LAW])
    story.finish()
    assert story.started() == [*MEMBERS, UNIT, LAST]


def test_retry_of_all_starts_no_gather_before_its_members(story: Story) -> None:
    story.run()
    story.end(MEMBERS[0], 1)
    story.end(MEMBERS[1])
    story.do("cancel", words=[LAW])
    story.end(MEMBERS[2])
    story.do("retry")
    assert story.world.jobs() == [MEMBERS[0]]
    story.finish()
    assert story.started()[-3:] == [MEMBERS[0], UNIT, LAST]


def test_a_daemon_that_is_stopped_blocks_nothing(story: Story) -> None:
    story.run()
    story.do("stop", now=True)
    story.end(MEMBERS[0], 143)
    assert story.told(Kind.BLOCK) == {}
    assert story.state(LAW) is PENDING


def test_members_that_nobody_asks_for_any_more_hold_nothing_up(story: Story) -> None:
    story.run()
    story.end(MEMBERS[0])
    story.run(members=1)
    story.end(MEMBERS[1])  # it ran when it was left out
    story.finish()
    assert story.started() == [*MEMBERS[:2], UNIT, LAST]
    assert story.state(LAW) is COMPLETED


def test_a_forced_gather_runs_once_more_and_only_once(story: Story) -> None:
    story.run()
    story.finish()
    story.run(is_forced=True)
    story.finish()
    assert story.started() == [*MEMBERS, UNIT, LAST] * 2
    story.begin()
    assert story.daemon.is_done
