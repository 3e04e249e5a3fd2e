"""What a plan changes, where a trial's environment comes from, and when a sweep pauses itself."""

from pathlib import Path

import pytest

from runner.model import Slot, Terms
from runner.options import Retry, StageOptions
from runner.queueing.failfast import FailFast
from runner.service.submission import Difference, Origin, Origins, changed_names
from tests.runner.standins import header, planned, write_plan

OPTIONS = {
    "train": StageOptions(env={"A": "stage", "RUNNER_STAGE": "mine"}, retry=Retry(1)),
    "test": StageOptions(gpus=0, stagger_s=5.0),
}


def test_names_of_changed_variables_leave_out_what_always_differs() -> None:
    before = {"A": "1", "B": "2", "GONE": "x", "PWD": "/a", "SSH_TTY": "1", "SHLVL": "1"}
    after = {"A": "1", "B": "3", "NEW": "y", "PWD": "/b", "XDG_SESSION_ID": "7", "SHLVL": "2"}
    assert changed_names(before, after) == ["B", "GONE", "NEW"]
    assert changed_names(after, after) == []


def test_a_difference_counts_all_and_names_the_first_few(tmp_path: Path) -> None:
    difference = Difference()
    for index in range(8):
        difference.count("new", planned(tmp_path, index, ("train",)))
    difference.count("kept", planned(tmp_path, 9, ("train",)))
    wire = difference.to_wire()
    assert wire["counts"] == {"new": 8, "kept": 1}
    assert wire["names"] == {"new": ["T_0", "T_1", "T_2", "T_3", "T_4"], "kept": ["T_9"]}


def test_an_attempts_environment_is_the_users_with_the_stages_on_top(tmp_path: Path) -> None:
    trial = planned(tmp_path, 0, ("train", "test"))
    plan = write_plan(tmp_path, header("p1", OPTIONS), [trial], {"A": "user", "B": "user", "CUDA_VISIBLE_DEVICES": "9"})
    origin = Origins(plan).of(trial.stages)
    assert origin.environment(trial, "train", 2, Slot("gpu 1", "1")) == {
        "A": "stage",
        "B": "user",
        "RUNNER_OUTPUT": trial.output,
        "RUNNER_STAGE": "mine",
        "RUNNER_ATTEMPT": "2",
        "CUDA_VISIBLE_DEVICES": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    on_cpu = origin.environment(trial, "test", 1, Slot("cpu 0"))
    assert (on_cpu["A"], on_cpu["CUDA_VISIBLE_DEVICES"], on_cpu["RUNNER_STAGE"]) == ("user", "9", "test")
    plan.close()


def test_an_origin_tells_the_scheduler_the_terms_of_its_stages(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, header("p1", OPTIONS), [])
    origin = Origins(plan).of(("train", "test"))
    assert origin.terms == {"train": Terms(1), "test": Terms(0, stagger_s=5.0)}
    assert origin.retries == {"train": Retry(1), "test": Retry()}
    assert origin.ask == "p1"
    plan.close()


def test_a_trial_of_two_plans_takes_each_stage_from_the_later_one_that_has_it(tmp_path: Path) -> None:
    trial = planned(tmp_path, 0, ("train", "test"))
    first = write_plan(tmp_path, header("p1", OPTIONS), [trial])
    second = write_plan(tmp_path, header("p2", OPTIONS), [planned(tmp_path, 0, ("test",))])
    old = Origins(first).of(("train", "test"))
    both = Origins(second).joined(old, ("test",))
    assert {stage: plan.header.plan_id for stage, plan in both.plan_of.items()} == {"train": "p1", "test": "p2"}
    assert list(both.plan_of) == ["train", "test"]
    assert both.ask == "p2"
    assert Origins(second).joined(old, ("test",), kept=()).plan_of == {"test": second}
    assert not both.is_same(old, trial)
    assert old.is_same(Origin({"train": first, "test": first}, "other"), trial)
    first.close()
    second.close()


# --- fail fast ---


def verdicts(limit: int | None, *causes: str | None) -> list[bool]:
    counted = FailFast()
    counted.limit = limit
    return [counted.must_pause("s", cause) for cause in causes]


@pytest.mark.parametrize(
    ("limit", "causes", "expected"),
    [
        (None, ["oom", "oom"], [False, False]),
        (1, ["oom"], [True]),
        (3, ["oom", "oom", "oom", "oom"], [False, False, True, False]),  # once
        (3, ["oom", "timeout", "oom", "oom"], [False] * 4),
        (2, ["oom", None, "oom", "oom"], [False] * 4),  # one is complete
        (2, [None, "oom", "oom"], [False] * 3),
    ],
)
def test_a_sweep_pauses_when_its_first_trials_all_fail_for_one_cause(
    limit: int | None, causes: list[str | None], expected: list[bool]
) -> None:
    assert verdicts(limit, *causes) == expected


def test_each_sweep_counts_for_itself_and_anew_when_the_user_goes_on() -> None:
    counted = FailFast()
    counted.limit = 2
    assert not counted.must_pause("s", "oom")
    assert not counted.must_pause("t", "oom")
    assert counted.must_pause("s", "oom")
    counted.forget()
    assert not counted.must_pause("s", "oom")
    assert counted.must_pause("s", "oom")
