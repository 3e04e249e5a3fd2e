"""Which trials in line get which slots, whatever becomes of their states."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest

from runner.gpus.fairness import Wish
from runner.gpus.learning import Learning
from runner.gpus.packing import Estimate, Sample
from runner.gpus.placing import Card, Demand
from runner.model import JobState, Slot, Terms, Trial
from runner.queueing.entry import Entry
from runner.queueing.line import Line, Queue
from runner.queueing.pools import GpuPool
from runner.queueing.slots import Slots

CPUS = [Slot("cpu 0"), Slot("cpu 1")]
GPU = Slot("gpu 0", "0")


def entry(index: int, terms: Terms) -> Entry:
    trial = Trial(index, f"id{index}", f"T_{index}", f"o/T_{index}", f"o/T_{index}", ())
    made = Entry(trial, {"train": terms}, index, Counter())
    made.put({"train": JobState.PENDING})
    return made


def world(slots: list[Slot], *terms: Terms) -> tuple[Slots, Line]:
    """The slots, and a line in which a trial waits for each of the terms."""
    made = Slots(Learning())
    made.set_slots(slots, has_gpus=False)
    line = Line(made.queue_of)
    for index, item in enumerate(terms):
        line.join(entry(index, item))
    return made, line


def filled(made: Slots, line: Line, now: float = 0.0) -> list[tuple[int, str]]:
    return [(item.trial.index, slot.label) for item, slot in made.fill(line, now)]


def test_what_is_first_in_line_gets_the_lowest_slot_and_leaves_the_line() -> None:
    made, line = world(CPUS, Terms(), Terms(), Terms())
    assert filled(made, line) == [(0, "cpu 0"), (1, "cpu 1")]
    assert len(line) == 1
    assert filled(made, line) == []
    made.release(CPUS[1])
    assert filled(made, line) == [(2, "cpu 1")]


@pytest.mark.parametrize(
    ("slots", "terms", "queue"),
    [
        ([GPU, *CPUS], Terms(), Queue.GPU),
        ([GPU, *CPUS], Terms(gpus=0), Queue.CPU),
        ([GPU], Terms(gpus=0), Queue.GPU),
        (CPUS, Terms(gpus=1), Queue.CPU),
        ([], Terms(), Queue.CPU),
        ([GPU, *CPUS], Terms(executor="slurm"), Queue.BATCH),
    ],
)
def test_a_trial_waits_for_a_gpu_where_it_needs_one_and_there_is_any(
    slots: list[Slot], terms: Terms, queue: Queue
) -> None:
    made, _ = world(slots)
    assert made.queue_of(entry(0, terms)) is queue


def test_another_executor_takes_all_that_waits_for_it() -> None:
    made, line = world([], *[Terms(executor="slurm")] * 3)
    assert filled(made, line) == [(0, "slurm"), (1, "slurm"), (2, "slurm")]


def test_starts_are_spread_and_the_next_one_has_a_time() -> None:
    made, line = world(CPUS, Terms(stagger_s=10.0), Terms(stagger_s=10.0))
    assert (filled(made, line, 100.0), made.next_time) == ([(0, "cpu 0")], 105.0)
    assert filled(made, line, 104.0) == []
    assert (filled(made, line, 105.0), made.next_time) == ([(1, "cpu 1")], None)


@pytest.mark.parametrize("label", ["cpu 0", "cpu 7"])
def test_of_two_attempts_on_record_in_one_slot_the_first_has_it(label: str) -> None:
    made, _ = world(CPUS)
    assert made.adopt(Slot(label)) == Slot(label)
    assert made.adopt(Slot(label)) is None
    made.release(Slot(label))
    assert made.adopt(Slot(label)) == Slot(label)


def test_a_trial_goes_on_where_its_next_stage_fits_and_when_it_may_start() -> None:
    made, line = world([GPU, *CPUS], Terms(), Terms(gpus=0))
    (_, gpu), (_, cpu) = made.fill(line, 0.0)
    assert made.go_on(entry(0, Terms()), gpu, 1.0)
    assert not made.go_on(entry(0, Terms(gpus=0)), gpu, 1.0)
    assert not made.go_on(entry(1, Terms()), cpu, 1.0)
    assert not made.go_on(entry(1, Terms(gpus=0, stagger_s=10.0)), cpu, 5.0)
    assert made.go_on(entry(1, Terms(gpus=0, stagger_s=10.0)), cpu, 6.0)


def test_what_a_slot_has_beyond_its_need_is_given_to_others() -> None:
    learning = Learning()
    made = Slots(learning)
    made.set_slots([], has_gpus=True)
    made.set_cards([Card("GPU-a", 20_000, label="0")])
    line = Line(made.queue_of)
    entries = [entry(index, Terms(per_gpu=None)) for index in range(4)]
    for one in entries:
        line.join(one)
    ((first, slot),) = made.fill(line, 0.0)
    assert made.needed(slot, learning.demand(first.trial, "train", first.due_terms())) is None
    learning.note("train", Sample(8_000))
    less = made.needed(slot, learning.demand(first.trial, "train", first.due_terms()))
    assert less is not None
    assert less.shares == {"GPU-a": Fraction(8_800, 19_000)}
    assert made.fill(line, 0.0) == []
    made.shrink(less)
    assert filled(made, line) == [(1, "gpu 0 #2")]
    assert made.needed(less, learning.demand(first.trial, "train", first.due_terms())) is None
    made.release(less)
    assert filled(made, line) == [(2, "gpu 0")]


def test_a_pool_remembers_whose_turn_it_is() -> None:
    pool, quarter = GpuPool(), Fraction(1, 4)
    pool.set_cards([Card("A", 20_000, label="0")], exists=True)
    running = [slot for _, slot in pool.place([Demand("other half", share=2 * quarter), Demand(0, share=quarter)])]
    for number in range(1, 9):
        small = Demand(number, share=quarter)
        running += [slot for _, slot in pool.place([Demand("half", share=2 * quarter), small])]
        if len(running) == 2:
            break
        pool.release(running.pop(1))
    # Two run there: so many may go before it, and then a place is kept for it.
    assert number == 3
    pool.release(running[0])
    assert [placement.key for placement, _ in pool.place([Demand("half", share=2 * quarter)])] == ["half"]


def test_what_others_are_to_leave_is_what_they_can_make_room_for() -> None:
    pool = GpuPool()
    pool.set_cards([Card("A", 20_000, label="0"), Card("B", 20_000, label="1")], exists=True)
    slow = Demand("slow", share=None, need=Estimate(4_750, max_level=1))  # slower together
    assert pool.wish(slow) == Wish(1, Fraction(1, 4), frozenset("AB"))
    ((_, slot),) = pool.place([slow])
    other, first = Demand("other", share=Fraction(1, 4)), set(slot.shares)
    assert pool.wish(slow) == Wish(1, Fraction(1, 4), frozenset("AB") - first)
    assert pool.wish(other) == Wish(1, Fraction(1, 4), frozenset("AB") - first)
    assert pool.wish(Demand("two", 2, Fraction(1, 4))) is None
    pool.set_cards([Card("A,B", 20_000, label="0,1"), Card("C,D", 20_000, label="2,3")], exists=True)
    assert pool.wish(Demand("pair")) == Wish(1, Fraction(1), frozenset({"A,B", "C,D"}))
