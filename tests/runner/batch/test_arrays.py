"""Which trials are submitted together."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runner.batch import arrays
from runner.batch.arrays import Due
from runner.model import JobState
from runner.options import StageOptions
from tests.runner.standins import planned

PENDING, COMPLETED = JobState.PENDING, JobState.COMPLETED


def item(index: int = 0, **changes: Any) -> Due:
    trial = planned(Path("/out"), index, ("a",))
    return replace(Due(trial, ("a",), "p", "slurm", {}, None, 1), **changes)


def due(states: dict[str, JobState], **options: StageOptions) -> Due:
    trial = planned(Path("/out"), 0, tuple(states))
    return arrays.due(trial, next(iter(options)), states, options, "p")


def slurm(gpus: int | None = None, cpus: int | None = None, **told: Any) -> StageOptions:
    return StageOptions(executor="slurm", batch=told, gpus=gpus, cpus=cpus)


@given(st.integers(1, 500), st.integers(1, 7), st.integers(1, 60))
def test_each_trial_is_in_one_task_and_batches_are_of_about_one_size(count: int, pack: int, most: int) -> None:
    items = [item(index) for index in range(count)]
    found = list(arrays.batches(items, pack, most))
    tasks = list(chain.from_iterable(found))
    assert list(chain.from_iterable(tasks)) == items
    sizes = [len(batch) for batch in found]
    assert 0 < min(sizes) <= max(sizes) <= min(most, min(sizes) + 1)
    assert len(found) == -(-len(tasks) // most)
    assert {len(task) for task in tasks[:-1]} <= {pack}
    assert 0 < len(tasks[-1]) <= pack


def test_nothing_makes_no_batch() -> None:
    assert list(arrays.batches([], 3, 10)) == []


def test_all_stages_of_a_trial_that_are_run_alike_go_into_one_task() -> None:
    states = dict.fromkeys("abc", PENDING)
    assert due(states, a=slurm(), b=slurm(), c=slurm()).stages == ("a", "b", "c")


def test_a_stage_that_is_run_otherwise_waits_with_all_after_it() -> None:
    states = dict.fromkeys("abc", PENDING)
    assert due(states, a=slurm(), b=StageOptions(), c=slurm()).stages == ("a",)
    assert due(states, a=slurm(), b=slurm(time="1h"), c=slurm()).stages == ("a",)


def test_a_stage_that_does_not_wait_ends_the_task() -> None:
    found = due({"a": PENDING, "b": COMPLETED, "c": PENDING}, a=slurm(), b=slurm(), c=slurm())
    assert found.stages == ("a",)


def test_a_task_has_what_the_most_demanding_of_its_stages_asks_for() -> None:
    states = dict.fromkeys("abc", PENDING)
    found = due(states, a=slurm(gpus=0, cpus=1), b=slurm(gpus=2, cpus=8), c=slurm(cpus=2))
    assert (found.gpus, found.cpus) == (2, 8)


def test_a_gpu_is_asked_for_where_there_are_any_unless_no_stage_wants_one() -> None:
    states = dict.fromkeys("ab", PENDING)
    assert due(states, a=slurm(gpus=0), b=slurm()).gpus is None
    assert due(states, a=slurm(gpus=0), b=slurm(gpus=0)).gpus == 0


def test_what_needs_the_same_goes_together_in_its_order() -> None:
    first, other, second = item(0), item(1, told={"time": "1h"}), item(2)
    assert list(arrays.together([first, other, second])) == [[first, second], [other]]
    for changes in ({"plan": "q"}, {"gpus": 1}, {"cpus": 2}, {"executor": "sge"}):
        assert len(list(arrays.together([item(0), item(1, **changes)]))) == 2
