"""Directory names: mlrunner's where they tell trials apart, bounded, unique, and independent of the order."""

import hashlib
import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runner.naming import MAX_NAME_BYTES, Namer, component, short_key, with_hash
from runner.values import Params, Value, canonical

property_test = settings(suppress_health_check=[HealthCheck.too_slow])


def identity(params: Params) -> str:
    return hashlib.sha256(repr(sorted((key, canonical(value)) for key, value in params.items())).encode()).hexdigest()


def names(*trials: Params) -> list[str]:
    namer = Namer([(key, [value]) for params in trials for key, value in params.items()])
    return [namer.name(params, identity(params)) for params in trials]


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"norm": "new", "moment": 0.1}, "Norm_new-Moment_0.1"),
        ({"learning_rate": 0.01}, "LeRate_0.01"),
        ({"label_smoothing": 0.1, "lr": 1e-05}, "LaSmoothing_0.1-Lr_1e-05"),
        ({"weight-decay": 0}, "WeDecay_0"),
        ({"a_long_key_name": 1}, "aLoKeName_1"),
        ({"lr_max": 1}, "lrMax_1"),
        ({"compile": True, "amp": False}, "Compile_T-Amp_F"),
        ({"path": "/data/imagenet/train"}, "Path_data_imagenet_train"),
        ({"path": "../x"}, "Path_x"),
        ({"path": "a\\b\nc"}, "Path_a_b_c"),
        ({"note": None}, "Note_None"),
        ({"empty": ""}, "Empty_"),
        ({"name": "é ☃"}, "Name_é ☃"),
        ({"steps": 1000000}, "Steps_1e+06"),
        ({"steps": 1234567}, "Steps_1234567"),
        ({"x": 100.0}, "X_100"),
        ({"x": 0.1234567}, "X_0.1234567"),
        ({"x": 1 / 3}, "X_0.3333333333333333"),
        ({"x": math.inf}, "X_inf"),
        ({"x": math.nan}, "X_nan"),
        ({"x": 10**400}, f"X_{10**400}"[: MAX_NAME_BYTES - 9]),
        ({"depth": -3}, "Depth_-3"),
        ({}, "default"),
    ],
)
def test_a_name_is_mlrunners(params: Params, name: str) -> None:
    (got,) = names(params)
    assert got == (name if len(name) < MAX_NAME_BYTES - 9 else f"{name}-{identity(params)[:8]}")


def test_the_order_of_the_parameters_is_that_of_the_sweep() -> None:
    assert names({"b": 1, "a": 2}) == ["B_1-A_2"]


def test_near_numbers_are_told_apart_without_a_hash() -> None:
    assert names({"x": 0.1234567}, {"x": 0.12345671}) == ["X_0.1234567", "X_0.12345671"]


@pytest.mark.parametrize(
    "trials",
    [
        [{"learning_rate": 0.1}, {"leapfrog_rate": 0.1}],
        [{"x": 1}, {"x": "1"}],
        [{"x": 1}, {"x": 1.0}],
        [{"x": True}, {"x": "T"}],
        [{"x": None}, {"x": "None"}],
        [{"x": "a/b"}, {"x": "a_b"}],
        [{"x": "a"}, {"x": "/a"}],
        [{"x": "a" * 101}, {"x": "a" * 100}],
        [{"x": 1}, {"x": 1.0}, {"x": "1"}],
    ],
)
def test_names_that_would_be_one_are_told_apart_by_a_hash_on_each_side(trials: list[Params]) -> None:
    got = names(*trials)
    assert len(set(got)) == len(trials)
    assert all(name.endswith(f"-{identity(params)[:8]}") for name, params in zip(got, trials, strict=True))


def test_a_text_that_looks_like_another_parameter_gets_a_hash() -> None:
    first, second = names({"x": "1-Y_2"}, {"x": "1", "y": 2})
    assert first.startswith("X_1-Y_2-")
    assert second == "X_1-Y_2"


def test_a_range_of_numbers_is_told_from_texts_that_look_like_them() -> None:
    namer = Namer([("x", range(10**9)), ("x", ["7", "y"])])
    assert namer.name({"x": "7"}, "f" * 64) == "X_7-ffffffff"
    assert namer.name({"x": "y"}, "f" * 64) == "X_y"
    assert namer.name({"x": 7}, "e" * 64) == "X_7-eeeeeeee"
    assert namer.name({"x": 8}, "e" * 64) == "X_8"


def test_ranges_of_parameters_with_one_short_name_are_told_apart() -> None:
    namer = Namer([("learning_rate", range(9)), ("leapfrog_rate", range(9)), ("x", range(9))])
    assert namer.name({"learning_rate": 1}, "f" * 64) == "LeRate_1-ffffffff"
    assert namer.name({"leapfrog_rate": 1}, "e" * 64) == "LeRate_1-eeeeeeee"
    assert namer.name({"x": 1}, "e" * 64) == "X_1"


def test_one_and_true_are_readable_beside_each_other() -> None:
    assert names({"x": 1}, {"x": True}) == ["X_1", "X_T"]


def test_only_the_values_that_collide_get_a_hash() -> None:
    first, second, third = names({"x": 1}, {"x": 1.0}, {"x": 2})
    assert (first[:4], second[:4], third) == ("X_1-", "X_1-", "X_2")


KEYS = st.one_of(
    st.sampled_from(["learning_rate", "leapfrog_rate", "lr", "x", "y", "a_b", "a-b", "a.b", "b2"]),
    st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,6}", fullmatch=True),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False),
    st.sampled_from([0.0, 1.0, 2.0, "1", "T", "None", "1-X_1", "1-Lr_2", "/x", "x", "..", ".x"]),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=160),
    st.text(alphabet="aX1-_./", max_size=8),
)
TRIALS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=6)


@property_test
@given(trials=TRIALS)
def test_a_name_is_one_short_visible_file_name(trials: list[Params]) -> None:
    for name in names(*trials):
        assert 0 < len(name.encode()) <= MAX_NAME_BYTES
        assert "/" not in name
        assert "\0" not in name
        assert name not in {"param", "stat", "attempts"}
        assert not name.startswith(".")
        assert not any(ord(character) < 32 for character in name)


@property_test
@given(trials=TRIALS)
@example(trials=[{"x": "1", "learning_rate": 2}, {"x": "1-LeRate_2"}])
@example(trials=[{"x": "1", "leapfrog_rate": 2}, {"x": "1", "learning_rate": 2}])
@example(trials=[{"x": 0.0}, {"x": -0.0}, {"x": 0}])
def test_two_trials_never_share_a_name(trials: list[Params]) -> None:
    different = list({identity(params): params for params in trials}.values())
    got = names(*different)
    owners = {
        name: [(key, canonical(value)) for key, value in params.items()]
        for name, params in zip(got, different, strict=True)
    }
    assert len(owners) == len(different)


@pytest.mark.parametrize("key", ["lr_max", "2d", "a_-b"])
def test_a_text_that_looks_like_a_parameter_with_a_small_letter_gets_a_hash(key: str) -> None:
    first, second = names({"x": f"1-{short_key(key)}_2"}, {"x": "1", key: 2})
    assert first != second


@property_test
@given(trials=TRIALS, data=st.data())
def test_names_do_not_depend_on_the_order_of_the_trials(trials: list[Params], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(trials))
    before = dict(zip(map(repr, trials), names(*trials), strict=True))
    after = dict(zip(map(repr, shuffled), names(*shuffled), strict=True))
    assert before == after


@property_test
@given(name=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300))
def test_a_hash_is_added_to_what_fits_of_a_name(name: str) -> None:
    trial_id = "0123456789abcdef"
    hashed = with_hash(name, trial_id)
    assert hashed.endswith("-01234567")
    assert len(hashed.encode()) <= MAX_NAME_BYTES
    kept = hashed.removesuffix("-01234567")
    assert name.lstrip(".").startswith(kept)
    assert len(name.encode()) > MAX_NAME_BYTES - 13 or kept == name.lstrip(".")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [("drop_path", 0.1, "DrPath_0.1"), ("x", -0.0, "X_-0"), ("seed", 2**53 + 1, "Seed_9007199254740993")],
)
def test_a_component_keeps_every_digit(key: str, value: Value, text: str) -> None:
    assert component(key, value) == text
