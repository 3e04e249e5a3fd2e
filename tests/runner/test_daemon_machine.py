"""Words to a daemon, ends of attempts and crashes in any order: what a user relies on holds after each."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runner import appendfile, daemon, plans, records
from runner import plan as journals
from runner.commands import Commands
from runner.daemon import Daemon
from runner.model import JobState
from runner.options import Retry, StageOptions
from runner.plan import Journal
from tests.runner.standins import Attempt, Clock, FakeExecutor, World, header, planned

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.model import Trial

PENDING, RUNNING, COMPLETED = JobState.PENDING, JobState.RUNNING, JobState.COMPLETED
STAGES = ("a", "b", "c")
DELAY_S = 5.0
RETRIES = 1
# Neither decides anything: whether a job was canceled or blocked, and whether one that is due was begun.
_MEANING = {JobState.BLOCKED: JobState.CANCELED, JobState.INTERRUPTED: JobState.PENDING}

TRIALS = st.fixed_dictionaries(
    {},
    optional={
        index: st.tuples(
            st.sampled_from([STAGES, STAGES, ("a",), ("b", "c"), ("a", "c")]),
            st.sampled_from(["s0", "s1"]),
            st.sampled_from([0, 0, 1]),
            st.sampled_from(["true", "false"]),
        )
        for index in range(4)
    },
)
# An exit code, or None for an attempt that was killed.
ENDS = st.sampled_from([0, 0, 0, 1, 75, None])


class Crash(BaseException):
    """The daemon is killed here."""


class OpenedPlan(plans.Plan):
    """A plan whose file is closed once; what a killed process had open is closed by the system."""

    opened: list[OpenedPlan] = []  # noqa: RUF012 - of the machine that runs

    def __init__(self, output: Path, plan_id: str) -> None:
        super().__init__(output, plan_id)
        self.is_open = True
        OpenedPlan.opened.append(self)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            super().close()


class DaemonMachine(RuleBasedStateMachine):
    """A real daemon with its journal, plans and records; only the attempts and the clock are pretended."""

    def __init__(self) -> None:
        super().__init__()
        self.output = Path(tempfile.mkdtemp(prefix="machine."))
        (self.output / ".runner").mkdir()
        self.clock = Clock()
        self.world = World()
        self.world.on_start = self.check_start
        self.world.on_signal = self.check_signal
        self.journal = Journal(self.output)
        self.fault_in: int | None = None
        self.plan_count = 0
        self.commands_of: dict[tuple[str, str, str], str] = {}  # by plan, trial and stage
        self.unwanted: set[int] = set()  # attempts that a user's word ended
        self.asked_while_running: set[str] = set()
        self.forced: Counter[tuple[str, str]] = Counter()
        self.completed: Counter[tuple[str, str]] = Counter()
        self.delayed: dict[str, float] = {}
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(daemon, "boot_seconds", self.clock)
        self.patch.setattr(plans, "Plan", OpenedPlan)
        self.patch.setattr(os, "fsync", lambda _: None)
        for module, name in (
            (records, "append_attempt"),
            (records, "write_stat"),
            (records, "replace_text"),
            (journals, "append_line"),
        ):
            self.patch.setattr(module, name, self.faulty(getattr(module, name)))
        self.begin()

    def faulty(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """A write before or after which a kill may come."""

        def write_or_crash(*arguments: Any, **options: Any) -> Any:
            self.fault_point()
            written = write(*arguments, **options)
            self.fault_point()
            return written

        return write_or_crash

    def fault_point(self) -> None:
        if self.fault_in is not None:
            self.fault_in -= 1
            if self.fault_in < 0:
                self.fault_in = None
                raise Crash

    def begin(self) -> None:
        """A daemon comes up and takes up what is left."""
        while OpenedPlan.opened:
            OpenedPlan.opened.pop().close()
        self.executor = FakeExecutor(self.world)
        self.daemon = Daemon(self.executor, lambda _: None, self.say, lambda *_: None)
        self.commands = Commands(self.daemon, self.journal, self.output, self.say)
        self.commands.restore()

    def say(self, text: str) -> None:
        assert "not taken up again" not in text, text

    def settle(self) -> None:
        """The daemon's loop, until nothing more is due."""
        self.daemon.take(self.executor.poll())
        self.daemon.step()

    def act(self, action: Callable[[], Any]) -> bool:
        """Does something and what follows from it; False when a kill came at one of the writes."""
        try:
            action()
            self.settle()
            return True
        except Crash:
            self.begin()
            self.settle()
            return False

    def trials(self) -> list[Trial]:
        return sorted(self.daemon.scheduler.trials(), key=lambda trial: trial.name)

    def names(self) -> list[str]:
        return [trial.name for trial in self.trials()]

    def snapshot(self) -> dict[str, dict[str, JobState]]:
        return {
            trial.name: {
                stage: _MEANING.get(state, state) for stage, state in self.daemon.scheduler.states(trial).items()
            }
            for trial in self.trials()
        }

    # --- a user's words ---

    @initialize(trials=TRIALS, count=st.integers(1, 3))
    def first_run(self, trials: dict[int, Any], count: int) -> None:
        self.act(lambda: self._submit(trials, count))

    @rule(
        trials=TRIALS,
        count=st.integers(1, 3),
        flags=st.fixed_dictionaries(
            {
                "is_full": st.booleans(),
                "is_forced": st.sampled_from([False, False, False, True]),
                "prunes": st.sampled_from([False, False, True]),
                "is_breadth_first": st.booleans(),
            }
        ),
    )
    def run(self, trials: dict[int, Any], count: int, flags: dict[str, bool]) -> None:
        self.act(lambda: self._submit(trials, count, **flags))

    def _submit(self, trials: dict[int, Any], count: int, **flags: Any) -> None:
        self.plan_count += 1
        plan_id = f"p{self.plan_count:04d}"
        options = {
            "a": StageOptions(),
            "b": StageOptions(retry=Retry(RETRIES, DELAY_S)),
            "c": StageOptions(retry=Retry(RETRIES)),
        }
        wanted = [
            planned(self.output, index, stages, sweep, priority, f"{command} {plan_id}")
            for index, (stages, sweep, priority, command) in sorted(trials.items())
        ]
        head = header(plan_id, options, count, **flags)
        plans.write(self.output, head, plans.Secrets({}), wanted)
        names = {trial.name for trial in wanted}
        self.asked_while_running |= {name for name, _ in self.world.jobs()}
        if head.is_forced:
            self.forced.update((trial.name, stage) for trial in wanted for stage in trial.stages)
        if head.prunes and head.is_full:
            self.unwanted |= {item.native_id for item in self.world.living.values() if item.job[0] not in names}
        answer = self.commands.do(
            "submit", {"plan": plan_id, "size": self.journal.size(), "entry": {"kind": "plan", "time": "now"}}
        )
        assert "difference" in answer
        assert sum(answer["difference"]["counts"].get(word, 0) for word in _ASKED) == len(wanted)

    @rule(sweep=st.sampled_from([None, "s0", "s1"]))
    def pause(self, sweep: str | None) -> None:
        if sweep is None or sweep in {trial.sweep for trial in self.trials()}:
            self.act(lambda: self.commands.do("pause", {"sweep": sweep}))

    @rule()
    def resume(self) -> None:
        self.act(lambda: self.commands.do("resume", {}))

    @rule(data=st.data())
    @precondition(lambda self: self.names())
    def cancel(self, data: st.DataObject) -> None:
        words = data.draw(st.lists(st.sampled_from(self.names()), min_size=1, max_size=2))
        self.unwanted |= {item.native_id for item in self.world.living.values() if item.job[0] in words}
        if self.act(lambda: self.commands.do("cancel", {"words": words})):
            assert all(item.signals for item in self.world.living.values() if item.job[0] in words)

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        words = data.draw(st.lists(st.sampled_from(self.names()), max_size=2)) if self.names() else []
        self.asked_while_running |= {name for name, _ in self.world.jobs()}
        self.act(lambda: self.commands.do("retry", {"words": words}))

    @rule(is_meant=st.sampled_from([False, False, True]))
    def stop_now_and_begin_anew(self, is_meant: bool) -> None:
        if not is_meant:  # else most runs would be short
            return
        self.unwanted |= set(self.world.living)
        self.act(lambda: self.commands.do("stop", {"now": True}))
        for attempt in list(self.world.living.values()):
            self._end(attempt, 143)
        self.act(lambda: None)
        if self.daemon.scheduler.is_stopping:  # not when it was killed before it could write the word down
            assert self.daemon.is_done
            self.commands.finish()
            self.begin()
            assert self.names() == []

    # --- the world ---

    @rule(data=st.data(), code=ENDS)
    @precondition(lambda self: self.world.living)
    def end(self, data: st.DataObject, code: int | None) -> None:
        self._end(self.world.find(*data.draw(st.sampled_from(self.world.jobs()))), code)
        self.act(lambda: None)

    def _end(self, attempt: Attempt, code: int | None) -> None:
        name, stage = attempt.job
        self.executor.end(attempt, code)
        self.completed[name, stage] += code == 0
        if stage == "b":
            self.delayed[name] = self.clock.now + DELAY_S

    @rule(seconds=st.sampled_from([0.5, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.act(lambda: None)

    @rule(writes=st.integers(0, 8))
    def be_killed_soon(self, writes: int) -> None:
        """The next daemon's life ends before or after one of the writes that are to come."""
        self.fault_in = writes

    @rule(data=st.data(), code=ENDS)
    def be_killed(self, data: st.DataObject, code: int | None) -> None:
        """Between two steps; an attempt may end before the next daemon comes."""
        self.fault_in = None
        before, labels, paused = self.snapshot(), self.daemon.scheduler.labels(), self.daemon.scheduler.paused
        running = {item.native_id: item.slot.label for item in self.daemon.running()}
        ends = data.draw(st.lists(st.sampled_from(self.world.jobs()), max_size=1)) if self.world.living else []
        for name, stage in ends:
            self._end(self.world.find(name, stage), code)
        self.begin()
        ended = {name for name, _ in ends}
        after = self.snapshot()
        for name in (before.keys() | after.keys()) - ended:
            # What ran when it was asked for anew, and then ended badly, is due to the next daemon alone.
            if name in self.asked_while_running or any(name == forced for forced, _ in self.forced):
                continue
            if name in before and name in after:
                assert after[name] == before[name], f"{name}: {before[name]}, after a crash {after[name]}"
            else:  # what is over and no longer asked for may be forgotten
                assert not {PENDING, RUNNING} & set((before | after)[name].values()), name
        assert {item.native_id: item.slot.label for item in self.daemon.running()} == {
            number: slot for number, slot in running.items() if number in self.world.living
        }
        if before:
            assert (self.daemon.scheduler.labels(), self.daemon.scheduler.paused) == (labels, paused)
        self.settle()

    @rule()
    @precondition(lambda self: self.daemon.is_done)
    def leave(self) -> None:
        self.fault_in = None
        self.commands.finish()
        self.begin()
        assert self.names() == []

    # --- what holds ---

    def check_start(self, attempt: Attempt) -> None:
        name, stage = attempt.job
        twins = [item for item in self.world.living.values() if item.job[0] == name and item is not attempt]
        assert not twins, f"{attempt.job} beside {twins[0].job}"
        # Each asking with force runs a finished stage once more.
        assert self.completed[name, stage] <= self.forced[name, stage], f"{attempt.job} is finished"

    def check_signal(self, attempt: Attempt, number: int) -> None:
        assert attempt.native_id in self.unwanted, f"{attempt.job} gets signal {number}, which nobody asked for"

    @invariant()
    def what_runs_is_what_the_daemon_knows(self) -> None:
        assert {item.native_id for item in self.daemon.running()} == self.world.living.keys()
        known = sorted((job.trial.name, job.stage) for job in self.daemon.scheduler.running())
        assert known == self.world.jobs()

    @invariant()
    def no_slot_is_taken_twice(self) -> None:
        taken = Counter(item.slot.label for item in self.daemon.running())
        assert all(count == 1 for count in taken.values()), taken

    @invariant()
    def nothing_waits_beside_a_free_slot(self) -> None:
        scheduler = self.daemon.scheduler
        if scheduler.paused is None or scheduler.is_stopping:
            return
        free = set(scheduler.labels()) - {item.slot.label for item in self.daemon.running()}
        for trial in self.trials():
            states = list(scheduler.states(trial).values())
            if not free or RUNNING in states or PENDING not in states or trial.sweep in scheduler.paused:
                continue
            is_begun = any(state is not COMPLETED for state in states[: states.index(PENDING)])
            assert is_begun or self.clock.now < self.delayed.get(trial.name, 0.0), trial.name

    @invariant()
    def the_counts_are_right(self) -> None:
        scheduler = self.daemon.scheduler
        counts = Counter(
            (trial.sweep, stage, state)
            for trial in scheduler.trials()
            for stage, state in scheduler.states(trial).items()
        )
        assert {key: count for key, count in scheduler.counts.items() if count} == counts

    @invariant()
    def the_daemon_sleeps_until_something_is_due(self) -> None:
        self.fault_in, fault = None, self.fault_in
        sleeps_s = self.daemon.step()
        self.fault_in = fault
        assert sleeps_s is None or sleeps_s > 0

    def teardown(self) -> None:
        try:
            self.check_end()
        finally:
            self.patch.undo()
            while OpenedPlan.opened:
                OpenedPlan.opened.pop().close()
            shutil.rmtree(self.output)

    def check_end(self) -> None:
        """Everything comes to its end, and the records tell of each job what they must."""
        self.fault_in = None
        self.commands.do("resume", {})
        self.settle()
        for _ in range(1000):
            if self.daemon.is_done:
                break
            for attempt in list(self.world.living.values()):
                self._end(attempt, 0)
            self.clock.now += DELAY_S
            self.settle()
        assert self.daemon.is_done
        for trial in self.trials():
            assert RUNNING not in self.daemon.scheduler.states(trial).values()
        asked = {trial.directory: set(self.daemon.scheduler.states(trial)) for trial in self.trials()}
        for directory in self.output.glob("T_*"):
            check_records(str(directory), asked.get(str(directory), set()))


_ASKED = ("new", "due", "waiting", "changed", "running", "finished")


def check_records(directory: str, asked: set[str]) -> None:
    """Each attempt has one start and one end; under one asking a job is not run after its final end.

    Only of a stage that nobody has asked for since its daemon was killed an attempt may lack its end.
    """
    lines = appendfile.whole_lines(records.attempts_file(directory))
    history = records.read_attempts(directory)
    assert sum(b'"event": "start"' in line for line in lines) == len(history.attempts)
    assert sum(b'"event": "end"' in line for line in lines) == sum(item.end is not None for item in history.attempts)
    numbers = Counter[str]()
    ends: dict[tuple[str, str], list[JobState]] = {}
    for attempt in history.attempts:
        numbers[attempt.stage] += 1
        assert attempt.number == numbers[attempt.stage]
        assert attempt.end is not None or attempt.stage not in asked
        if attempt.end is None:
            continue
        ends.setdefault((attempt.stage, attempt.start["ask"]), []).append(JobState(attempt.end["state"]))
    for (stage, _), states in ends.items():
        assert not {COMPLETED, JobState.CANCELED} & set(states[:-1]), (directory, stage, states)
        assert states.count(JobState.FAILED) <= 1 + (RETRIES if stage != "a" else 0), (directory, stage, states)
    stat = records.read_stat(directory)
    for stage in numbers.keys() & asked:
        last = history.last(stage)
        assert last is not None
        assert last.end is not None
        if stat.get(stage) not in {JobState.BLOCKED, JobState.PENDING}:
            assert stat[stage] == last.end["state"]


DaemonMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestDaemonMachine = DaemonMachine.TestCase
