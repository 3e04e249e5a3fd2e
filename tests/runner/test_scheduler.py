"""The scheduler: a simulation of whole runs, and the rules one by one."""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.model import FOLLOWS, IN_HAND, Job, JobState, Slot, Trial
from runner.scheduler import Scheduler, Start

PENDING, RUNNING, COMPLETED = JobState.PENDING, JobState.RUNNING, JobState.COMPLETED
FAILED, INTERRUPTED, BLOCKED = JobState.FAILED, JobState.INTERRUPTED, JobState.BLOCKED


def trial(index: int) -> Trial:
    return Trial(index, f"id{index}", f"T_{index}", f"output/T_{index}", f"output/T_{index}", ())


def slots(count: int) -> list[Slot]:
    return [Slot(f"cpu {index}") for index in range(count)]


def scheduler(count: int, *plans: dict[str, JobState]) -> tuple[Scheduler, list[Trial]]:
    made = Scheduler(slots(count))
    trials = [trial(index) for index in range(len(plans))]
    for item, states in zip(trials, plans, strict=True):
        made.add(item, states)
    return made, trials


def told(starts: list[Start]) -> list[tuple[int, str, str]]:
    return [(start.job.trial.index, start.job.stage, start.slot.label) for start in starts]


def pending(*stages: str) -> dict[str, JobState]:
    return dict.fromkeys(stages, PENDING)


# --- whole runs ---


@dataclass
class Simulation:
    """Plays the daemon's part, and checks at every step what a user relies on."""

    scheduler: Scheduler
    slots: int
    running: dict[Job, str] = field(default_factory=dict)
    started: dict[int, list[str]] = field(default_factory=dict)
    is_stopped: bool = False

    def decide(self) -> list[Start]:
        starts = self.scheduler.decide()
        assert not (starts and self.is_stopped)
        for start in starts:
            assert start.job not in self.running
            assert start.slot.label not in self.running.values()
            assert all(job.trial is not start.job.trial for job in self.running)
            self.running[start.job] = start.slot.label
            self.started.setdefault(start.job.trial.index, []).append(start.job.stage)
        assert len(self.running) <= self.slots
        assert set(self.scheduler.running()) == set(self.running)
        return starts

    def end(self, job: Job, state: JobState) -> None:
        slot = self.running.pop(job)
        before = dict(self.scheduler.states(job.trial))
        blocked = self.scheduler.ended(job, state)
        after = self.scheduler.states(job.trial)
        stages = list(before)
        later = [stage for stage in stages[stages.index(job.stage) + 1 :] if before[stage] is PENDING]
        assert [item.stage for item in blocked] == (later if state is FAILED else [])
        assert all(item.trial is job.trial and after[item.stage] is BLOCKED for item in blocked)
        assert after[job.stage] is state
        if not self.is_stopped:
            starts = self.decide()
            follower = [start for start in starts if start.job.trial is job.trial]
            assert [start.job.stage for start in follower] == (later[:1] if state is COMPLETED else [])
            assert all(start.slot.label == slot for start in follower)


INITIAL = st.sampled_from([PENDING, PENDING, PENDING, COMPLETED])
PLANS = st.lists(st.lists(INITIAL, min_size=1, max_size=4), max_size=8)
ENDS = st.sampled_from([COMPLETED, COMPLETED, COMPLETED, FAILED, INTERRUPTED])


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(plans=PLANS, count=st.integers(1, 4), data=st.data())
def test_a_run_comes_to_its_end_by_the_rules(plans: list[list[JobState]], count: int, data: st.DataObject) -> None:
    initial = [{f"stage{number}": state for number, state in enumerate(plan)} for plan in plans]
    made, trials = scheduler(count, *initial)
    simulation = Simulation(made, count)
    simulation.decide()
    while simulation.running:
        waiting = [item for item in trials if all(state is PENDING for state in made.states(item).values())]
        assert not waiting or len(simulation.running) == count  # no slot is idle while a trial waits
        job = data.draw(st.sampled_from(sorted(simulation.running, key=lambda job: job.trial.index)))
        simulation.end(job, data.draw(ENDS))
    assert made.decide() == []
    for item, states in zip(trials, initial, strict=True):
        final = made.states(item)
        assert list(final) == list(states)
        due = [stage for stage, state in states.items() if state is PENDING]
        ran = simulation.started.get(item.index, [])
        assert ran == due[: len(ran)]
        assert all(final[stage] is COMPLETED for stage in ran[:-1])
        # A failure blocks what comes after it; after an interruption that is due again.
        last = final[ran[-1]] if ran else COMPLETED
        assert last in {COMPLETED, FAILED, INTERRUPTED}
        assert last is not COMPLETED or ran == due
        after = BLOCKED if last is FAILED else PENDING
        assert [final[stage] for stage in due[len(ran) :]] == [after] * (len(due) - len(ran))
        assert all(final[stage] is COMPLETED for stage, state in states.items() if state is COMPLETED)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(plans=PLANS, count=st.integers(1, 4), steps=st.integers(0, 6), data=st.data())
def test_after_a_stop_nothing_starts_and_what_ran_may_end(
    plans: list[list[JobState]], count: int, steps: int, data: st.DataObject
) -> None:
    made, trials = scheduler(count, *({f"stage{number}": state for number, state in enumerate(plan)} for plan in plans))
    simulation = Simulation(made, count)
    simulation.decide()
    while simulation.running:
        if steps == 0:
            made.stop()
            simulation.is_stopped = True
        steps -= 1
        job = data.draw(st.sampled_from(sorted(simulation.running, key=lambda job: job.trial.index)))
        simulation.end(job, data.draw(ENDS))
        assert not simulation.is_stopped or made.decide() == []
    assert list(made.running()) == []
    assert all(state is not RUNNING for item in trials for state in made.states(item).values())


# --- the rules one by one ---


def test_trials_start_in_the_order_in_which_they_came_on_the_lowest_slots() -> None:
    made, trials = scheduler(2, *[pending("train")] * 4)
    assert told(made.decide()) == [(0, "train", "cpu 0"), (1, "train", "cpu 1")]
    assert made.decide() == []
    made.ended(Job(trials[1], "train"), COMPLETED)
    assert told(made.decide()) == [(2, "train", "cpu 1")]
    made.ended(Job(trials[0], "train"), COMPLETED)
    assert told(made.decide()) == [(3, "train", "cpu 0")]


def test_of_several_free_slots_the_lowest_is_taken() -> None:
    made, trials = scheduler(3, *[pending("train")] * 3)
    made.decide()
    for index in (2, 0, 1):
        made.ended(Job(trials[index], "train"), COMPLETED)
    made.add(trial(3), pending("train"))
    made.add(trial(4), pending("train"))
    assert told(made.decide()) == [(3, "train", "cpu 0"), (4, "train", "cpu 1")]


def test_the_next_stage_keeps_the_slot_before_other_trials() -> None:
    made, trials = scheduler(1, pending("train", "test"), pending("train"))
    made.decide()
    assert made.ended(Job(trials[0], "train"), COMPLETED) == []
    assert told(made.decide()) == [(0, "test", "cpu 0")]
    made.ended(Job(trials[0], "test"), COMPLETED)
    assert told(made.decide()) == [(1, "train", "cpu 0")]


def test_a_failure_blocks_the_rest_of_its_trial_and_nothing_else() -> None:
    made, trials = scheduler(1, pending("train", "avg", "test"), pending("train", "test"))
    made.decide()
    assert made.ended(Job(trials[0], "train"), FAILED) == [Job(trials[0], "avg"), Job(trials[0], "test")]
    assert made.states(trials[0]) == {"train": FAILED, "avg": BLOCKED, "test": BLOCKED}
    assert told(made.decide()) == [(1, "train", "cpu 0")]
    assert made.states(trials[1]) == {"train": RUNNING, "test": PENDING}


def test_an_interruption_blocks_nothing_but_what_follows_does_not_start() -> None:
    made, trials = scheduler(1, pending("train", "test"), pending("train"))
    made.decide()
    assert made.ended(Job(trials[0], "train"), INTERRUPTED) == []
    assert made.states(trials[0]) == {"train": INTERRUPTED, "test": PENDING}
    assert told(made.decide()) == [(1, "train", "cpu 0")]
    made.ended(Job(trials[1], "train"), COMPLETED)
    assert made.decide() == []


def test_what_is_finished_does_not_run_again() -> None:
    made, trials = scheduler(
        1, {"train": COMPLETED, "test": PENDING}, {"train": COMPLETED}, {"a": PENDING, "b": COMPLETED, "c": PENDING}
    )
    assert told(made.decide()) == [(0, "test", "cpu 0")]
    made.ended(Job(trials[0], "test"), COMPLETED)
    assert told(made.decide()) == [(2, "a", "cpu 0")]
    made.ended(Job(trials[2], "a"), COMPLETED)
    assert told(made.decide()) == [(2, "c", "cpu 0")]


def test_a_failure_leaves_a_finished_later_stage_finished() -> None:
    made, trials = scheduler(1, {"a": PENDING, "b": COMPLETED, "c": PENDING})
    made.decide()
    assert made.ended(Job(trials[0], "a"), FAILED) == [Job(trials[0], "c")]
    assert made.states(trials[0]) == {"a": FAILED, "b": COMPLETED, "c": BLOCKED}


def test_trials_that_come_later_get_the_slots_that_are_free() -> None:
    made, _ = scheduler(2, pending("train"))
    assert told(made.decide()) == [(0, "train", "cpu 0")]
    made.add(trial(1), pending("train"))
    assert told(made.decide()) == [(1, "train", "cpu 1")]


def test_an_adopted_job_keeps_its_slot() -> None:
    made, trials = scheduler(2, pending("train", "test"), pending("train"), pending("train"))
    made.adopt(trials[1], "train", Slot("cpu 0"))
    assert list(made.running()) == [Job(trials[1], "train")]
    assert made.states(trials[1]) == {"train": RUNNING}
    assert told(made.decide()) == [(0, "train", "cpu 1")]
    made.ended(Job(trials[1], "train"), COMPLETED)
    assert told(made.decide()) == [(2, "train", "cpu 0")]


def test_the_next_stage_of_an_adopted_trial_keeps_its_slot() -> None:
    made, trials = scheduler(2, {"train": COMPLETED, "avg": PENDING, "test": PENDING}, pending("train"))
    made.adopt(trials[0], "avg", Slot("cpu 1"))
    assert told(made.decide()) == [(1, "train", "cpu 0")]
    made.ended(Job(trials[0], "avg"), COMPLETED)
    assert told(made.decide()) == [(0, "test", "cpu 1")]


@pytest.mark.parametrize("label", ["gpu 7", "cpu 0"])
def test_a_job_adopted_without_a_slot_takes_one_for_its_next_stage_only(label: str) -> None:
    made, trials = scheduler(1, pending("train"), pending("train", "test"), pending("train"))
    made.adopt(trials[0], "train", Slot("cpu 0"))
    made.adopt(trials[1], "train", Slot(label))  # another machine's slot, or one that is adopted already
    assert made.decide() == []
    assert made.ended(Job(trials[1], "train"), COMPLETED) == []
    assert made.decide() == []
    made.ended(Job(trials[0], "train"), COMPLETED)
    assert told(made.decide()) == [(1, "test", "cpu 0")]
    made.ended(Job(trials[1], "test"), COMPLETED)
    assert told(made.decide()) == [(2, "train", "cpu 0")]


def test_an_adopted_job_that_fails_blocks_and_frees_its_slot() -> None:
    made, trials = scheduler(1, pending("train", "test"), pending("train"))
    made.adopt(trials[0], "train", Slot("cpu 0"))
    assert made.ended(Job(trials[0], "train"), FAILED) == [Job(trials[0], "test")]
    assert told(made.decide()) == [(1, "train", "cpu 0")]


def test_an_earlier_stage_that_is_due_runs_after_an_adopted_later_one_failed() -> None:
    made, trials = scheduler(1, pending("train", "test"))
    made.adopt(trials[0], "test", Slot("cpu 0"))
    made.ended(Job(trials[0], "test"), FAILED)
    assert told(made.decide()) == [(0, "train", "cpu 0")]


def test_a_stop_lets_the_next_stage_wait() -> None:
    made, trials = scheduler(1, pending("train", "test"), pending("train"))
    made.decide()
    made.stop()
    assert made.ended(Job(trials[0], "train"), COMPLETED) == []
    assert made.decide() == []
    assert made.states(trials[0]) == {"train": COMPLETED, "test": PENDING}
    assert made.states(trials[1]) == {"train": PENDING}
    assert list(made.running()) == []


def test_a_stop_between_an_end_and_the_decision_leaves_the_next_stage_pending() -> None:
    made, trials = scheduler(1, pending("train", "test"))
    made.decide()
    made.ended(Job(trials[0], "train"), COMPLETED)
    made.stop()
    assert made.decide() == []
    assert made.states(trials[0]) == {"train": COMPLETED, "test": PENDING}
    assert list(made.running()) == []


def test_an_end_that_cannot_follow_is_refused() -> None:
    made, trials = scheduler(1, pending("train"))
    made.decide()
    with pytest.raises(AssertionError, match="train: running to blocked"):
        made.ended(Job(trials[0], "train"), BLOCKED)


def test_no_slots_start_nothing() -> None:
    made, _ = scheduler(0, pending("train"))
    assert made.decide() == []


def test_what_has_ended_only_waits_again_and_what_is_finished_stays_so() -> None:
    ends = set(JobState) - {PENDING, *IN_HAND}
    assert FOLLOWS[COMPLETED] == frozenset()
    assert all(FOLLOWS[state] == {PENDING} for state in ends - {COMPLETED})
    assert set(FOLLOWS) == set(JobState)
    assert all(FAILED not in FOLLOWS[state] for state in JobState if state not in IN_HAND)


def test_a_trial_equals_itself_alone() -> None:
    first, second = trial(0), trial(0)
    assert first != second
    assert Job(first, "train") == Job(first, "train")
    assert Job(first, "train") != Job(second, "train")
