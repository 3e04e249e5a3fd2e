"""What a user may tell the scheduler: priorities, order, pauses, cancellations, other slots, delays."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runner.model import Job, JobState, Slot, Terms, Trial
from runner.scheduler import Scheduler, Start

if TYPE_CHECKING:
    from collections.abc import Sequence

PENDING, RUNNING, COMPLETED = JobState.PENDING, JobState.RUNNING, JobState.COMPLETED
FAILED, INTERRUPTED, BLOCKED = JobState.FAILED, JobState.INTERRUPTED, JobState.BLOCKED
CANCELED, TIMEOUT = JobState.CANCELED, JobState.TIMEOUT


def trial(index: int, sweep: str = "s", priority: int = 0) -> Trial:
    return Trial(index, f"id{index}", f"T_{index}", f"o/T_{index}", f"o/T_{index}", (), sweep, priority)


def cpus(count: int) -> list[Slot]:
    return [Slot(f"cpu {index}") for index in range(count)]


def gpus(count: int) -> list[Slot]:
    return [Slot(f"gpu {index}", str(index)) for index in range(count)]


def pending(*stages: str) -> dict[str, JobState]:
    return dict.fromkeys(stages, PENDING)


def queue(made: Scheduler, *trials: Trial, stages: Sequence[str] = ("train",)) -> list[Trial]:
    for item in trials:
        made.add(item, pending(*stages))
    return list(trials)


def told(starts: list[Start]) -> list[str]:
    return [f"{start.job.trial.index} {start.job.stage} {start.slot.label}" for start in starts]


def drain(made: Scheduler) -> list[str]:
    """The order in which everything runs when each job completes before the next decision."""
    order = []
    while starts := made.decide():
        for start in starts:
            order.append(f"{start.job.trial.index} {start.job.stage}")
            made.ended(start.job, COMPLETED)
    return order


# --- order ---


def test_a_higher_priority_comes_first_and_equal_ones_in_their_order() -> None:
    made = Scheduler(cpus(1))
    queue(made, trial(0), trial(1, priority=2), trial(2, priority=-1), trial(3, priority=2))
    assert drain(made) == ["1 train", "3 train", "0 train", "2 train"]


def test_a_trial_that_has_begun_goes_on_before_one_of_a_higher_priority_takes_its_slot() -> None:
    made = Scheduler(cpus(1))
    (first,) = queue(made, trial(0), stages=("train", "test"))
    made.decide()
    queue(made, trial(1, priority=9))
    made.ended(Job(first, "train"), COMPLETED)
    assert told(made.decide()) == ["0 test cpu 0"]


def test_depth_first_each_trial_runs_to_its_end() -> None:
    made = Scheduler(cpus(1))
    queue(made, trial(0), trial(1), stages=("train", "test"))
    assert drain(made) == ["0 train", "0 test", "1 train", "1 test"]


def test_breadth_first_a_stage_runs_for_all_trials_before_the_next() -> None:
    made = Scheduler(cpus(1), is_breadth_first=True)
    queue(made, trial(0), trial(1), trial(2), stages=("train", "test"))
    assert drain(made) == ["0 train", "1 train", "2 train", "0 test", "1 test", "2 test"]


def test_breadth_first_the_priority_still_comes_first() -> None:
    made = Scheduler(cpus(1), is_breadth_first=True)
    queue(made, trial(0), trial(1, priority=1), stages=("train", "test"))
    assert drain(made) == ["1 train", "1 test", "0 train", "0 test"]


# --- pause and resume ---


def test_a_paused_sweep_waits_and_the_others_go_on() -> None:
    made = Scheduler(cpus(1))
    queue(made, trial(0, "a"), trial(1, "b"), trial(2, "a"))
    made.pause("a")
    assert made.paused == ["a"]
    assert drain(made) == ["1 train"]
    assert not made.is_done
    made.resume()
    assert made.paused == []
    assert drain(made) == ["0 train", "2 train"]
    assert made.is_done


def test_a_pause_of_all_starts_nothing_until_it_is_taken_back() -> None:
    made = Scheduler(cpus(2))
    queue(made, trial(0, "a"), trial(1, "b"))
    made.pause()
    assert made.paused is None
    assert made.decide() == []
    made.resume()
    assert told(made.decide()) == ["0 train cpu 0", "1 train cpu 1"]


@pytest.mark.parametrize("sweep", ["s", None])
def test_a_pause_between_two_stages_lets_the_next_one_wait(sweep: str | None) -> None:
    made = Scheduler(cpus(1))
    (only,) = queue(made, trial(0), stages=("train", "test"))
    made.decide()
    made.ended(Job(only, "train"), COMPLETED)
    made.pause(sweep)
    assert made.decide() == []
    assert made.states(only) == {"train": COMPLETED, "test": PENDING}
    made.resume()
    assert told(made.decide()) == ["0 test cpu 0"]


def test_what_runs_goes_on_while_its_sweep_is_paused() -> None:
    made = Scheduler(cpus(1))
    (only,) = queue(made, trial(0), stages=("train", "test"))
    made.decide()
    made.pause("s")
    made.ended(Job(only, "train"), COMPLETED)
    assert made.decide() == []
    assert list(made.running()) == []


def test_a_trial_that_comes_into_a_paused_sweep_waits_too() -> None:
    made = Scheduler(cpus(1))
    made.pause("s")
    queue(made, trial(0))
    assert made.decide() == []
    made.resume()
    assert told(made.decide()) == ["0 train cpu 0"]


def test_a_paused_scheduler_asks_for_no_time() -> None:
    made = Scheduler(cpus(1))
    (only,) = queue(made, trial(0))
    made.decide()
    made.ended(Job(only, "train"), FAILED, again_at=10.0)
    assert made.next_time() == 10.0
    made.pause()
    assert made.next_time() is None
    made.resume()
    assert made.next_time() == 10.0
    made.stop()
    assert made.next_time() is None


# --- cancel and again ---


def test_a_canceled_trial_leaves_the_queue() -> None:
    made = Scheduler(cpus(1))
    first, second = queue(made, trial(0), trial(1), stages=("train", "test"))
    assert made.cancel(first) == [Job(first, "train"), Job(first, "test")]
    assert made.states(first) == {"train": CANCELED, "test": CANCELED}
    assert drain(made) == ["1 train", "1 test"]
    assert made.is_done
    assert made.cancel(second) == []


def test_canceling_a_trial_that_runs_takes_its_later_stages_out() -> None:
    made = Scheduler(cpus(1))
    (only,) = queue(made, trial(0), stages=("train", "test"))
    made.decide()
    assert made.cancel(only) == [Job(only, "test")]
    assert made.ended(Job(only, "train"), CANCELED) == []
    assert made.states(only) == {"train": CANCELED, "test": CANCELED}
    assert made.decide() == []


@pytest.mark.parametrize("end", [FAILED, TIMEOUT, INTERRUPTED, CANCELED])
def test_again_makes_due_what_came_to_no_good_end_and_what_that_blocked(end: JobState) -> None:
    made = Scheduler(cpus(1))
    (only,) = queue(made, trial(0), stages=("train", "avg", "test"))
    for _ in range(2):
        starts = made.decide()
        if starts[0].job.stage == "train":
            made.ended(starts[0].job, COMPLETED)
        else:
            made.ended(starts[0].job, end)
    assert made.decide() == []
    assert next(job.stage for job in made.again(only)) == "avg"
    assert made.states(only) == {"train": COMPLETED, "avg": PENDING, "test": PENDING}
    assert drain(made) == ["0 avg", "0 test"]


def test_again_leaves_alone_what_waits_runs_or_is_finished() -> None:
    made = Scheduler(cpus(1))
    waiting, finished = trial(0), trial(1)
    made.add(waiting, pending("train"))
    made.add(finished, {"train": COMPLETED})
    assert made.again(waiting) == made.again(finished) == []
    made.decide()
    assert made.again(waiting) == []


# --- delays ---


def test_a_job_that_is_due_later_leaves_its_slot_to_others_until_then() -> None:
    made = Scheduler(cpus(1))
    first, second = queue(made, trial(0), trial(1))
    made.decide(0.0)
    assert made.ended(Job(first, "train"), FAILED, again_at=30.0) == []
    assert made.states(first) == {"train": PENDING}
    assert told(made.decide(1.0)) == ["1 train cpu 0"]
    made.ended(Job(second, "train"), COMPLETED)
    assert made.next_time() == 30.0
    assert made.decide(29.9) == []
    assert not made.is_done
    assert told(made.decide(30.0)) == ["0 train cpu 0"]


def test_new_slots_do_not_shorten_a_delay() -> None:
    made = Scheduler(cpus(1))
    (only,) = queue(made, trial(0))
    made.decide(0.0)
    made.ended(Job(only, "train"), FAILED, again_at=30.0)
    made.set_slots(cpus(2))
    assert made.decide(1.0) == []
    assert told(made.decide(30.0)) == ["0 train cpu 0"]


def test_a_word_of_the_users_ends_a_delay() -> None:
    made = Scheduler(cpus(1))
    (only,) = queue(made, trial(0))
    made.decide(0.0)
    made.ended(Job(only, "train"), FAILED, again_at=30.0)
    made.add(only, pending("train"))
    assert told(made.decide(1.0)) == ["0 train cpu 0"]


def test_a_retried_job_does_not_block_its_trial() -> None:
    made = Scheduler(cpus(1))
    (only,) = queue(made, trial(0), stages=("train", "test"))
    made.decide()
    made.ended(Job(only, "train"), FAILED, again_at=0.5)
    assert made.states(only) == {"train": PENDING, "test": PENDING}
    assert told(made.decide(1.0)) == ["0 train cpu 0"]


# --- stagger ---


def test_starts_of_a_staggered_stage_are_spread_over_its_seconds() -> None:
    made = Scheduler(cpus(4))
    for index in range(4):
        made.add(trial(index), pending("train"), {"train": Terms(stagger_s=40.0)})
    assert told(made.decide(100.0)) == ["0 train cpu 0"]
    assert made.next_time() == 110.0
    assert made.decide(109.0) == []
    assert told(made.decide(110.0)) == ["1 train cpu 1"]
    assert told(made.decide(500.0)) == ["2 train cpu 2"]


def test_the_next_stage_of_a_trial_waits_for_its_stagger_too() -> None:
    made = Scheduler(cpus(2))
    terms = {"test": Terms(stagger_s=20.0)}
    first, second = trial(0), trial(1)
    made.add(first, pending("train", "test"), terms)
    made.add(second, pending("train", "test"), terms)
    made.decide(0.0)
    made.ended(Job(first, "train"), COMPLETED, now=5.0)
    assert told(made.decide(5.0)) == ["0 test cpu 0"]
    made.ended(Job(second, "train"), COMPLETED, now=6.0)
    assert made.decide(6.0) == []
    assert made.next_time() == 15.0
    assert told(made.decide(15.0)) == ["1 test cpu 1"]


# --- slots ---


def test_a_stage_without_a_gpu_runs_on_a_cpu_slot() -> None:
    made = Scheduler([*gpus(1), *cpus(1)])
    terms = {"test": Terms(gpus=0)}
    for index in range(2):
        made.add(trial(index), pending("train", "test"), terms)
    assert told(made.decide()) == ["0 train gpu 0"]
    made.ended(Job(next(iter(made.trials())), "train"), COMPLETED)
    assert told(made.decide()) == ["1 train gpu 0", "0 test cpu 0"]


@pytest.mark.parametrize(("slots", "label"), [(cpus(1), "cpu 0"), (gpus(1), "gpu 0")])
def test_where_there_is_one_kind_of_slot_everything_runs_on_it(slots: list[Slot], label: str) -> None:
    made = Scheduler(slots)
    made.add(trial(0), pending("train", "test"), {"test": Terms(gpus=0)})
    assert told(made.decide()) == [f"0 train {label}"]
    made.ended(Job(next(iter(made.trials())), "train"), COMPLETED)
    assert told(made.decide()) == [f"0 test {label}"]


def test_more_slots_start_more_and_fewer_let_what_runs_end() -> None:
    made = Scheduler(cpus(1))
    trials = queue(made, *(trial(index) for index in range(4)))
    assert told(made.decide()) == ["0 train cpu 0"]
    made.set_slots(cpus(3))
    assert told(made.decide()) == ["1 train cpu 1", "2 train cpu 2"]
    made.set_slots(cpus(1))
    made.ended(Job(trials[2], "train"), COMPLETED)
    made.ended(Job(trials[1], "train"), COMPLETED)
    assert made.decide() == []
    made.ended(Job(trials[0], "train"), COMPLETED)
    assert told(made.decide()) == ["3 train cpu 0"]


def test_a_slot_that_comes_back_while_its_attempt_runs_is_not_free() -> None:
    made = Scheduler(cpus(2))
    trials = queue(made, *(trial(index) for index in range(3)))
    made.decide()
    made.set_slots(cpus(1))
    made.set_slots(cpus(2))
    assert made.decide() == []
    made.ended(Job(trials[1], "train"), COMPLETED)
    assert told(made.decide()) == ["2 train cpu 1"]


def test_an_adopted_attempt_has_its_slot_also_when_that_comes_later() -> None:
    made = Scheduler(cpus(1))
    first, _, _ = queue(made, trial(0), trial(1), trial(2))
    made.adopt(first, "train", Slot("cpu 1"))
    assert told(made.decide()) == ["1 train cpu 0"]
    made.set_slots(cpus(2))
    assert made.decide() == []


# --- replacing ---


def test_a_trial_that_waits_is_replaced_in_its_place() -> None:
    made = Scheduler(cpus(1))
    queue(made, trial(0), trial(1))
    changed = trial(0)
    made.add(changed, pending("train", "test"))
    assert made.trial(trial(0).key) is changed
    assert drain(made) == ["0 train", "0 test", "1 train"]


def test_a_trial_that_runs_is_replaced_around_what_runs() -> None:
    made = Scheduler(cpus(1))
    (first,) = queue(made, trial(0), stages=("train", "test"))
    made.decide()
    made.add(trial(0), pending("train", "avg"))
    assert made.states(first) == {"train": RUNNING, "avg": PENDING}
    made.ended(Job(first, "train"), COMPLETED)
    assert told(made.decide()) == ["0 avg cpu 0"]


def test_a_new_priority_moves_a_trial_that_waits() -> None:
    made = Scheduler(cpus(1))
    queue(made, trial(0), trial(1))
    made.add(trial(1, priority=1), pending("train"))
    assert drain(made) == ["1 train", "0 train"]


def test_a_dropped_trial_is_forgotten() -> None:
    made = Scheduler(cpus(1))
    queue(made, trial(0), trial(1))
    made.drop(trial(0).key)
    assert made.trial(trial(0).key) is None
    assert {key: count for key, count in made.counts.items() if count} == {("s", "train", PENDING): 1}
    assert drain(made) == ["1 train"]


# --- everything in any order ---

STAGES = ("a", "b", "c")
ENDS = st.sampled_from([COMPLETED, COMPLETED, FAILED, TIMEOUT, INTERRUPTED, CANCELED])


class SchedulerMachine(RuleBasedStateMachine):
    """Any words and ends, with what must hold after each decision."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.slots: list[Slot] = []
        self.made = Scheduler()
        self.running: dict[Job, str] = {}
        self.is_paused = False
        self.paused: set[str] = set()
        self.not_before: dict[str, float] = {}
        self.finished: set[tuple[str, str]] = set()

    def drawn(self, data: st.DataObject) -> Trial:
        return data.draw(st.sampled_from(list(self.made.trials())))

    def decide(self) -> None:
        for start in self.made.decide(self.now):
            job, label = start.job, start.slot
            assert not self.is_paused
            assert job.trial.sweep not in self.paused
            assert self.now >= self.not_before.get(job.trial.trial_id, 0.0)
            assert all(other.trial.trial_id != job.trial.trial_id for other in self.running)
            assert label.label not in self.running.values()
            assert (label.label, label.gpus) in [(slot.label, slot.gpus) for slot in self.slots]
            assert (job.trial.trial_id, job.stage) not in self.finished
            states = self.made.states(job.trial)
            earlier = list(states)[: list(states).index(job.stage)]
            assert PENDING not in [states[stage] for stage in earlier]
            self.running[job] = label.label

    @rule(
        index=st.integers(0, 5),
        stages=st.sets(st.sampled_from(STAGES), min_size=1),
        sweep=st.sampled_from(["s", "t"]),
        priority=st.integers(-1, 1),
        needs_gpu=st.booleans(),
    )
    def add(self, index: int, stages: set[str], sweep: str, priority: int, needs_gpu: bool) -> None:
        item = trial(index, sweep, priority)
        states = {
            stage: COMPLETED if (item.trial_id, stage) in self.finished else PENDING
            for stage in STAGES
            if stage in stages
        }
        self.made.add(item, states, {"b": Terms(int(needs_gpu))})
        self.not_before.pop(item.trial_id, None)
        self.decide()

    @rule(data=st.data())
    @precondition(lambda self: any(self.made.trials()))
    def drop(self, data: st.DataObject) -> None:
        item = self.drawn(data)
        if RUNNING not in self.made.states(item).values():
            self.made.drop(item.key)
            self.not_before.pop(item.trial_id, None)

    @rule(data=st.data(), state=ENDS, delay=st.sampled_from([None, None, 0.0, 5.0]))
    @precondition(lambda self: self.running)
    def end(self, data: st.DataObject, state: JobState, delay: float | None) -> None:
        job = data.draw(st.sampled_from(sorted(self.running, key=lambda item: item.trial.index)))
        again_at = None if delay is None or state in {COMPLETED, CANCELED} else self.now + delay
        del self.running[job]
        if state is COMPLETED:
            self.finished.add((job.trial.trial_id, job.stage))
        if again_at is not None:
            self.not_before[job.trial.trial_id] = again_at
        blocked = self.made.ended(job, state, again_at, self.now)
        assert not blocked or (state in {FAILED, TIMEOUT, CANCELED} and again_at is None)
        self.decide()

    @rule(sweep=st.sampled_from([None, "s", "t"]))
    def pause(self, sweep: str | None) -> None:
        self.made.pause(sweep)
        if sweep is None:
            self.is_paused = True
        else:
            self.paused.add(sweep)

    @rule()
    def resume(self) -> None:
        self.made.resume()
        self.is_paused = False
        self.paused.clear()
        self.decide()

    @rule(data=st.data())
    @precondition(lambda self: any(self.made.trials()))
    def cancel(self, data: st.DataObject) -> None:
        item = self.drawn(data)
        self.made.cancel(item)
        assert PENDING not in self.made.states(item).values()

    @rule(data=st.data())
    @precondition(lambda self: any(self.made.trials()))
    def again(self, data: st.DataObject) -> None:
        item = self.drawn(data)
        if self.made.again(item):
            self.not_before.pop(item.trial_id, None)
        assert set(self.made.states(item).values()) <= {PENDING, RUNNING, COMPLETED}
        self.decide()

    @rule(gpu_count=st.integers(0, 2), cpu_count=st.integers(0, 2))
    def set_slots(self, gpu_count: int, cpu_count: int) -> None:
        self.slots = [*gpus(gpu_count), *cpus(cpu_count)]
        self.made.set_slots(self.slots)
        self.decide()

    @rule(is_breadth_first=st.booleans())
    def set_order(self, is_breadth_first: bool) -> None:
        self.made.is_breadth_first = is_breadth_first

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.decide()

    @invariant()
    def what_runs_is_known(self) -> None:
        assert set(self.made.running()) == self.running.keys()

    @invariant()
    def nothing_waits_beside_a_free_slot(self) -> None:
        free = {slot.label for slot in self.slots} - set(self.running.values())
        if self.is_paused:
            return
        has_kind = {kind: any(slot.label.startswith(kind) for slot in self.slots) for kind in ("cpu", "gpu")}
        for item in self.made.trials():
            states = self.made.states(item)
            values = list(states.values())
            if RUNNING in values or PENDING not in values or item.sweep in self.paused:
                continue
            place = values.index(PENDING)
            is_stuck = any(state is not COMPLETED for state in values[:place])
            if is_stuck or self.now < self.not_before.get(item.trial_id, 0.0):
                continue
            if list(states)[place] != "b":
                kind = "gpu" if has_kind["gpu"] else "cpu"
                assert not any(label.startswith(kind) for label in free), item.name
            assert len(free) < len(self.slots) or not free, item.name

    @invariant()
    def the_counts_are_right(self) -> None:
        counts: Counter[tuple[str, str, JobState]] = Counter(
            (item.sweep, stage, state) for item in self.made.trials() for stage, state in self.made.states(item).items()
        )
        assert {key: count for key, count in self.made.counts.items() if count} == counts

    @invariant()
    def it_is_done_when_nothing_runs_or_waits(self) -> None:
        if self.made.is_done:
            assert not self.running

    def teardown(self) -> None:
        """With slots and time, everything that may start comes to an end."""
        self.set_slots(1, 1)
        self.resume()
        for _ in range(200):
            if self.made.is_done:
                break
            for job in list(self.running):
                del self.running[job]
                self.finished.add((job.trial.trial_id, job.stage))
                self.made.ended(job, COMPLETED, None, self.now)
            self.now += 10.0
            self.decide()
        assert self.made.is_done


SchedulerMachine.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestSchedulerMachine = SchedulerMachine.TestCase
