"""From the file to the trials that are asked for."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import template
from runner.config import Config
from runner.errors import InputError
from runner.grid import Choices, Grid, Settings, Sweep
from runner.memory import Memory
from runner.options import StageOptions
from runner.trials import Draft, Layout, complete, drafts, select
from runner.values import Params, Value

property_test = settings(suppress_health_check=[HealthCheck.too_slow])

NO_MEMORY = Memory({}, Settings({}, {}))
STAGES = ("train", "avg", "test")


def sweep_of(
    choices: Mapping[str, Sequence[Value]], title: str | None = None, stages: tuple[str, ...] | None = None
) -> Sweep:
    """A sweep whose grid is the product of lists."""
    return Sweep(Grid(tuple(Choices(key, values) for key, values in choices.items())), title=title, stages=stages)


def config(*sweeps: Sweep, default: Params | None = None) -> Config:
    commands = {stage: template.parse(f"{stage} {{lr}} {{_output}}") for stage in STAGES}
    options = {stage: StageOptions() for stage in STAGES}
    settings = Settings(default or {}, {})
    return Config(Path("params.yaml"), "", commands, settings, "auto", list(sweeps), [], options, "depth", None, None)


def test_trials_stand_in_the_files_order() -> None:
    found = list(drafts(config(sweep_of({"lr": [2, 1], "seed": [0, 1]}), sweep_of({"lr": [3]})), {}))
    assert [item.params for item in found] == [
        {"lr": 2, "seed": 0},
        {"lr": 2, "seed": 1},
        {"lr": 1, "seed": 0},
        {"lr": 1, "seed": 1},
        {"lr": 3},
    ]
    assert [item.preferred_name for item in found] == [
        "Lr_2-Seed_0",
        "Lr_2-Seed_1",
        "Lr_1-Seed_0",
        "Lr_1-Seed_1",
        "Lr_3",
    ]
    assert {item.stages for item in found} == {STAGES}


def test_a_trial_of_two_grids_runs_the_stages_of_both_once() -> None:
    first = sweep_of({"lr": [1, 2]}, stages=("test",))
    second = sweep_of({"lr": [2, 3]}, stages=("train",))
    found = list(drafts(config(first, second), {}))
    assert [(item.params["lr"], item.stages) for item in found] == [
        (1, ("test",)),
        (2, ("train", "test")),
        (3, ("train",)),
    ]


def test_a_default_that_is_written_out_makes_no_other_trial() -> None:
    found = list(drafts(config(sweep_of({"lr": [1]}), sweep_of({"lr": [1], "seed": [0, 1]}), default={"seed": 0}), {}))
    assert [item.preferred_name for item in found] == ["Lr_1", "Lr_1-Seed_1"]


def test_the_order_of_keys_makes_no_other_trial() -> None:
    found = list(drafts(config(sweep_of({"lr": [1], "seed": [0]}), sweep_of({"seed": [0], "lr": [1]})), {}))
    assert [item.preferred_name for item in found] == ["Lr_1-Seed_0"]


def test_one_and_one_point_zero_are_two_trials_with_two_names() -> None:
    found = list(drafts(config(sweep_of({"lr": [1, 1.0, "1", True]})), {}))
    assert len({item.trial_id for item in found}) == 4
    assert len({item.preferred_name for item in found}) == 4


VALUES = st.one_of(st.none(), st.booleans(), st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0, "0", "a"]))
SWEEPS = st.builds(
    sweep_of,
    st.dictionaries(st.sampled_from(["lr", "seed", "b"]), st.lists(VALUES, min_size=1, max_size=3), max_size=3),
    st.none(),
    st.one_of(st.none(), st.sampled_from([("train",), ("test",), ("train", "test"), ("avg",)])),
)


@property_test
@given(sweeps=st.lists(SWEEPS, max_size=4), default=st.dictionaries(st.sampled_from(["lr", "seed", "c"]), VALUES))
def test_every_combination_is_one_trial_with_the_stages_that_any_grid_asks_for(
    sweeps: list[Sweep], default: Params
) -> None:
    expected: dict[frozenset[tuple[str, type, Value]], set[str]] = {}
    for sweep in sweeps:
        products: list[Params] = [{}]
        for key, values in sweep.grid.leaves():
            products = [{**params, key: value} for params in products for value in values]
        for params in products:
            typed = frozenset((key, type(value), value) for key, value in {**default, **params}.items())
            expected.setdefault(typed, set()).update(sweep.stages or STAGES)
    found = list(drafts(config(*sweeps, default=default), {}))
    got = [frozenset((key, type(value), value) for key, value in item.params.items()) for item in found]
    assert got == list(expected)
    for item, stages in zip(found, expected.values(), strict=True):
        assert item.stages == tuple(stage for stage in STAGES if stage in stages)
    assert len({item.trial_id for item in found}) == len({item.preferred_name for item in found}) == len(found)


# --- -t and -c ---

TITLED = config(
    sweep_of({"lr": [1]}, "curves"),
    sweep_of({"lr": [2]}, "proof", ("test",)),
    sweep_of({"lr": [3]}),
    sweep_of({"lr": [4]}, "curves"),
)


@pytest.mark.parametrize(
    ("title", "stages", "expected"),
    [
        (None, None, [(1, None), (2, ("test",)), (3, None), (4, None)]),
        (None, [], [(1, None), (2, ("test",)), (3, None), (4, None)]),
        ("curves", None, [(1, None), (4, None)]),
        ("proof", ["train"], [(2, ("train",))]),
        (None, ["test", "train", "test"], [(lr, ("train", "test")) for lr in (1, 2, 3, 4)]),
    ],
)
def test_titles_and_stages_choose_a_part_of_the_file(
    title: str | None, stages: list[str] | None, expected: list[tuple[int, tuple[str, ...] | None]]
) -> None:
    selected = select(TITLED, title, stages)
    assert [(dict(sweep.grid.leaves())["lr"][0], sweep.stages) for sweep in selected.sweeps] == expected
    assert selected.templates == TITLED.templates


@pytest.mark.parametrize(
    ("title", "stages", "message"),
    [
        (
            "curve",
            None,
            "-t curve: no such title. Did you mean 'curves'? Titles in params.yaml: curves, proof, curves.",
        ),
        ("", None, "-t : no such title. Titles in params.yaml: curves, proof, curves."),
        (None, ["trian"], "-c trian: no such stage. Did you mean 'train'? Stages in params.yaml: train, avg, test."),
        ("curves", ["train", "x"], "-c x: no such stage. Stages in params.yaml: train, avg, test."),
    ],
)
def test_an_unknown_title_or_stage_names_those_that_there_are(
    title: str | None, stages: list[str] | None, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        select(TITLED, title, stages)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


def test_a_file_without_titles_says_how_to_give_one() -> None:
    with pytest.raises(InputError, match=r"Titles in params\.yaml: none; add `_title` to a grid"):
        select(config(sweep_of({"lr": [1]})), "x", None)


# --- directories and shell lines ---


def test_a_trial_is_complete_with_its_directory_and_its_shell_lines() -> None:
    parsed = {
        "train": template.parse("run {lr} [fast] --out {_output} {_name} {_time}"),
        "test": template.parse("eval {_output}"),
    }
    planned = [
        Draft("id1", "Lr_1", {"lr": 1, "fast": True}, ("train", "test"), "curves", 2),
        Draft("id2", "Note_a b", {"lr": 2, "fast": None}, ("test",), "grid 2", 0),
    ]
    first, second = complete(
        planned, parsed, Layout("my out", "20260101.000000", NO_MEMORY), lambda item: item.preferred_name
    )
    assert (first.index, first.trial_id, first.name, first.output) == (0, "id1", "Lr_1", "my out/Lr_1")
    assert first.params == {"lr": 1, "fast": True}
    assert dict(first.commands) == {
        "train": "run 1 --fast --out 'my out/Lr_1' Lr_1 20260101.000000",
        "test": "eval 'my out/Lr_1'",
    }
    assert second.index == 1
    assert dict(second.commands) == {"test": "eval 'my out/Note_a b'"}


def test_the_directory_that_is_given_stands_in_the_commands() -> None:
    parsed = {"train": template.parse("run {_output} {_name}")}
    (trial,) = complete(
        [Draft("id", "X_1", {}, ("train",), "grid 1", 0)],
        parsed,
        Layout("output", "t", NO_MEMORY),
        lambda item: "old name",
    )
    assert (trial.name, trial.output, trial.commands["train"]) == (
        "old name",
        "output/old name",
        "run 'output/old name' 'old name'",
    )
