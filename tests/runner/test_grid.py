"""Sweeps and the identity of trials."""

import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.grid import Choices, Grid, Settings, Sweep, trial_id
from runner.values import Params, Value, canonical, text_of

property_test = settings(suppress_health_check=[HealthCheck.too_slow])

KEYS = st.text(alphabet="abcd_.", min_size=1, max_size=3)
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(allow_nan=False), TEXTS)
PARAMS = st.dictionaries(KEYS, VALUES, max_size=4)


def sweep_of(
    choices: Mapping[str, Sequence[Value]], title: str | None = None, stages: tuple[str, ...] | None = None
) -> Sweep:
    """A sweep whose grid is the product of lists."""
    return Sweep(Grid(tuple(Choices(key, values) for key, values in choices.items())), title=title, stages=stages)


def brute_force(choices: dict[str, list[Value]]) -> list[Params]:
    """The combinations by counting, the last parameter as the lowest digit."""
    keys, found = list(choices), []
    for number in range(sweep_of(choices).count()):
        rest, combination = number, {}
        for key in reversed(keys):
            rest, digit = divmod(rest, len(choices[key]))
            combination[key] = choices[key][digit]
        found.append({key: combination[key] for key in keys})
    return found


@property_test
@given(choices=st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=3), max_size=4))
def test_a_sweep_is_every_combination_in_the_files_order(choices: dict[str, list[Value]]) -> None:
    sweep = sweep_of(choices)
    combinations = list(sweep.combinations())
    assert combinations == brute_force(choices)
    assert [list(item) for item in combinations] == [list(choices)] * sweep.count()
    product = 1
    for values in choices.values():
        product *= len(values)
    assert sweep.count() == len(combinations) == product


def test_a_huge_sweep_is_not_built_to_be_counted() -> None:
    sweep = sweep_of({f"p{index}": range(100) for index in range(20)})
    assert sweep.count() == 10**40
    assert next(sweep.combinations()) == dict.fromkeys((f"p{index}" for index in range(20)), 0)


def test_a_sweep_without_parameters_is_one_trial() -> None:
    assert list(sweep_of({}).combinations()) == [{}]


def test_defaults_follow_the_sweeps_own_parameters() -> None:
    params = Settings({"a": 0, "c": None}, {}).resolve({"b": 1, "a": 2})
    assert list(params.items()) == [("b", 1), ("a", 2), ("c", None)]


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations([1, 1.0, True, "1", "True", "1.0"], 2)))
def test_values_of_different_types_make_different_trials(first: Value, second: Value) -> None:
    assert trial_id({"x": first}, {}) != trial_id({"x": second}, {})


@pytest.mark.parametrize(
    ("first", "second"),
    [(None, "None"), (None, False), (0, False), (0.0, -0.0), ("", None), (0.1, 0.1 + 2**-56), ("a", "a "), (1, 2)],
)
def test_different_values_make_different_trials(first: Value, second: Value) -> None:
    assert trial_id({"x": first}, {}) != trial_id({"x": second}, {})
    assert canonical(first) != canonical(second)


def test_two_spellings_of_a_number_are_one_trial() -> None:
    assert trial_id({"lr": float("1e-3")}, {}) == trial_id({"lr": 0.001}, {})
    assert trial_id({"lr": float("nan")}, {}) == trial_id({"lr": float("nan")}, {})


@property_test
@given(params=PARAMS, data=st.data())
def test_the_order_of_parameters_makes_no_other_trial(params: Params, data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(params.items()))))
    assert trial_id(params, {}) == trial_id(shuffled, {})


@property_test
@given(first=PARAMS, second=PARAMS)
def test_ids_are_equal_for_equal_typed_parameters_only(first: Params, second: Params) -> None:
    def told(params: Params) -> dict[str, tuple[type, str]]:
        return {key: (type(value), repr(value)) for key, value in params.items()}

    assert (trial_id(first, {}) == trial_id(second, {})) == (told(first) == told(second))


@property_test
@given(params=PARAMS, value=VALUES, changed=VALUES)
def test_a_new_parameter_at_its_default_leaves_the_trial_what_it_is(
    params: Params, value: Value, changed: Value
) -> None:
    introduced = {"new": value}
    assert trial_id({**params, "new": value}, introduced) == trial_id(params, introduced)
    is_same = (type(changed), repr(changed)) == (type(value), repr(value))
    assert (trial_id({**params, "new": changed}, introduced) == trial_id(params, introduced)) == is_same


def test_a_trial_at_its_first_default_stays_one_after_the_default_changed() -> None:
    introduced: Params = {"dropout": 0.0}
    before = trial_id(Settings({"dropout": 0.0}, {}).resolve({"lr": 1}), introduced)
    assert trial_id(Settings({"dropout": 0.1}, {}).resolve({"lr": 1}), introduced) != before
    assert trial_id(Settings({"dropout": 0.1}, {}).resolve({"lr": 1, "dropout": 0.0}), introduced) == before


def test_the_default_of_another_type_is_another_value() -> None:
    assert trial_id({"x": 0}, {"x": 0.0}) != trial_id({}, {"x": 0.0})


def test_keys_and_values_cannot_be_mistaken_for_each_other() -> None:
    assert trial_id({"a": '1\n"b": 2'}, {}) != trial_id({"a": "1", "b": 2}, {})
    assert trial_id({"a": "b"}, {}) != trial_id({"b": "a"}, {})


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-05, "1e-05"), (0.1 + 0.2, "0.30000000000000004"), (True, "True"), (None, "None"), ("a b", "a b"), (10, "10")],
)
def test_a_value_reads_as_python_prints_it(value: Value, text: str) -> None:
    assert text_of(value) == text
