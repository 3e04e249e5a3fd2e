"""Plans as files: whole, or refused; and secrets that are the owner's alone."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import plans
from runner.gpus.devices import Limit
from runner.gpus.wish import GpuWish
from runner.model import Fallback, PlannedTrial, Recipe
from runner.options import Retry, StageOptions
from runner.plans import VERSION, DamagedPlanError, Plan, Secrets
from tests.runner.standins import header, planned, slots, write_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.values import Value

OPTIONS = {"train": StageOptions(retry=Retry(2, 5.0, ("timeout",)), env={"A": "é"}), "test": StageOptions(gpus=0)}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES: st.SearchStrategy[Value] = st.none() | st.booleans() | st.integers() | st.floats() | TEXT


def write(output: Path, plan_id: str = "p1", count: int = 2) -> Plan:
    trials = [planned(output, index, ("train", "test"), command=f"run {index}") for index in range(count)]
    return write_plan(output, header(plan_id, OPTIONS), trials, {"KEY": "hush-4711"})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    params=st.dictionaries(TEXT, VALUES, max_size=4),
    commands=st.dictionaries(TEXT.filter(bool), TEXT, min_size=1, max_size=3),
    name=TEXT.filter(bool),
    sweep=TEXT,
    priority=st.integers(-(2**63), 2**63),
    needs_config=st.booleans(),
    kinds=st.none() | st.dictionaries(TEXT, TEXT, min_size=1),
    lower=st.lists(st.tuples(st.dictionaries(TEXT, st.integers()), TEXT)),
)
def test_any_trial_comes_back_as_it_was_planned(
    tmp_path: Path,
    params: Mapping[str, Value],
    commands: Mapping[str, str],
    name: str,
    sweep: str,
    priority: int,
    needs_config: bool,
    kinds: Mapping[str, str] | None,
    lower: list[tuple[dict[str, int], str]],
) -> None:
    fallbacks = {stage: [Fallback(dict(changed), command) for changed, command in lower] for stage in commands}
    recipe = Recipe(dict(params), commands, needs_config, fallbacks)
    directory = f"{tmp_path}/{name}"
    trial = PlannedTrial(0, "a" * 64, name, directory, directory, tuple(commands), sweep, priority, kinds, recipe)
    plan = write_plan(tmp_path, header("p1", dict.fromkeys(commands, StageOptions())), [trial])
    (read,) = plan.trials
    for field in ("index", "trial_id", "name", "output", "directory", "stages", "sweep", "priority", "kinds"):
        assert getattr(read, field) == getattr(trial, field)
    found = plan.recipe(read)
    plan.close()
    assert found.fallbacks == fallbacks
    assert (dict(found.commands), found.needs_config) == (dict(commands), needs_config)
    # By what is written: 1, 1.0 and True are three values, and nan is one.
    assert {key: repr(value) for key, value in found.params.items()} == {
        key: repr(value) for key, value in params.items()
    }


def test_the_header_comes_back(tmp_path: Path) -> None:
    head = replace(
        header("p1", OPTIONS, is_full=False, is_forced=True, prunes=True, is_breadth_first=True, fail_fast=3),
        slots=slots(1, gpus=2),
        gpus=GpuWish(("0,1", "2"), 20_480, "A100", 5, Limit("0,1,2", "CUDA_VISIBLE_DEVICES=0,1,2")),
    )
    plan = write_plan(tmp_path, head, [])
    assert plan.header == head
    assert plan.trials == []
    plan.close()


def test_without_subdirectories_a_trial_is_found_under_the_state_directory(tmp_path: Path) -> None:
    directory = f"{tmp_path}/.runner/trials/{'a' * 64}"
    trial = PlannedTrial(0, "a" * 64, "Lr_1", str(tmp_path), directory, ("train",), recipe=Recipe({}, {"train": "x"}))
    plan = write_plan(tmp_path, header("p1", OPTIONS), [trial])
    assert (plan.trials[0].output, plan.trials[0].directory) == (str(tmp_path), directory)
    plan.close()
    assert plans.names(tmp_path, ["p1"]) == {}


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_secrets_are_the_owners_alone(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        plan = write(tmp_path)
    finally:
        os.umask(old)
    hidden = plan.path.with_suffix(".env")
    assert stat.S_IMODE(hidden.stat().st_mode) == 0o600
    assert plan.secrets == Secrets({"KEY": "hush-4711"})
    assert b"hush-4711" not in plan.path.read_bytes()
    plan.close()


def test_secrets_written_over_a_readable_file_are_private_all_the_same(tmp_path: Path) -> None:
    folder = plans.directory_of(tmp_path)
    folder.mkdir(parents=True)
    (folder / "p1.env").write_text("{}")
    (folder / "p1.env").chmod(0o644)
    write(tmp_path).close()
    assert stat.S_IMODE((folder / "p1.env").stat().st_mode) == 0o600


def test_a_plan_cut_at_any_byte_is_damaged(tmp_path: Path) -> None:
    plan = write(tmp_path, count=1)
    plan.close()
    text = plan.path.read_bytes()
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for length in range(len(text) - 1):  # the last newline says nothing
        plan.path.write_bytes(text[:length])
        with pytest.raises(DamagedPlanError):
            Plan(tmp_path, "p1")
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208 - none is left open


def test_a_plan_changed_at_any_byte_is_damaged(tmp_path: Path) -> None:
    plan = write(tmp_path, count=1)
    plan.close()
    text = plan.path.read_bytes()
    for position in range(len(text) - 1):
        changed = bytearray(text)
        changed[position] ^= 1
        plan.path.write_bytes(bytes(changed))
        with pytest.raises(DamagedPlanError) as caught:
            Plan(tmp_path, "p1")
        assert str(caught.value).startswith(f"{plan.path}: ")


@pytest.mark.parametrize("lacking", [".jsonl", ".env"])
def test_a_plan_without_one_of_its_files_is_damaged(tmp_path: Path, lacking: str) -> None:
    plan = write(tmp_path)
    plan.close()
    plan.path.with_suffix(lacking).unlink()
    with pytest.raises(DamagedPlanError, match=r"No such file"):
        Plan(tmp_path, "p1")


def test_a_plan_with_more_behind_its_end_is_damaged(tmp_path: Path) -> None:
    plan = write(tmp_path)
    plan.close()
    plan.path.write_bytes(plan.path.read_bytes() + b"[]\n")
    with pytest.raises(DamagedPlanError, match="not whole"):
        Plan(tmp_path, "p1")


def test_a_plan_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    plan = write(tmp_path)
    plan.close()
    first, rest = plan.path.read_bytes().split(b"\n", 1)
    newer = json.dumps(json.loads(first) | {"version": VERSION + 1}).encode()
    plan.path.write_bytes(newer + b"\n" + rest)
    with pytest.raises(DamagedPlanError):
        Plan(tmp_path, "p1")


def test_a_plan_that_is_cut_while_it_is_open_says_so(tmp_path: Path) -> None:
    plan = write(tmp_path)
    os.truncate(plan.path, 100)
    with pytest.raises(DamagedPlanError, match="cut off while it was used"):
        plan.recipe(plan.trials[1])
    plan.close()


def test_a_plan_that_is_deleted_while_it_is_open_is_read_on(tmp_path: Path) -> None:
    plan = write(tmp_path)
    plans.delete(tmp_path, "p1")
    assert list(plans.directory_of(tmp_path).iterdir()) == []
    assert dict(plan.recipe(plan.trials[1]).commands) == {"train": "run 1", "test": "run 1"}
    plan.close()


def test_a_trial_is_the_same_in_two_plans_when_its_line_is(tmp_path: Path) -> None:
    first, second = write(tmp_path, "p1"), write(tmp_path, "p2")
    changed = [planned(tmp_path, 0, ("train", "test"), command="run 0"), planned(tmp_path, 1, ("train", "test"))]
    third = write_plan(tmp_path, header("p3", OPTIONS), changed)
    assert [first.is_same(second, trial) for trial in first.trials] == [True, True]
    assert [first.is_same(third, trial) for trial in first.trials] == [True, False]
    elsewhere = write_plan(tmp_path, replace(header("p4", OPTIONS), cwd="/tmp"), changed)
    assert [third.is_same(elsewhere, trial) for trial in third.trials] == [False, False]
    for plan in (first, second, third, elsewhere):
        plan.close()


def test_the_newest_whole_plan_is_found_and_names_of_all_are(tmp_path: Path) -> None:
    told = ["20260102.000000.b", "20260101.000000.a", "lost"]  # the clock may have been set back
    assert plans.newest(tmp_path, told) is None
    write(tmp_path, "20260101.000000.a", count=1).close()
    late = write(tmp_path, "20260102.000000.b", count=2)
    late.close()
    found = plans.newest(tmp_path, told)
    assert found is not None
    assert found.header.plan_id == "20260101.000000.a"
    found.close()
    late.path.write_bytes(late.path.read_bytes()[:-20])
    assert plans.newest(tmp_path, told[:1]) is None
    names = plans.names(tmp_path, ["20260101.000000.a", "20260102.000000.b", "lost"])
    assert names == {"T_0": {"x": 0}, "T_1": {"x": 1}}


def test_to_show_a_plan_takes_nothing_that_only_its_owner_may_read(tmp_path: Path) -> None:
    mine = write(tmp_path, "p1", count=2)
    mine.close()
    mine.path.with_suffix(".env").unlink()
    shown = plans.latest(tmp_path, ["p1"])
    assert [[trial.name for trial in plan.trials] for plan in shown] == [["T_0", "T_1"]]
    for plan in shown:
        plan.close()


def test_names_of_plans_sort_by_time_and_differ() -> None:
    names = [plans.new_id() for _ in range(50)]
    assert len(set(names)) == 50
    assert [name.rpartition(".")[0] for name in names] == sorted(name.rpartition(".")[0] for name in names)
