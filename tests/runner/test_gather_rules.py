"""What a gather's units are called, how many members they need, and what a value that names one becomes."""

from __future__ import annotations

import pytest

from runner import gather, template
from runner.gather import Gather
from runner.naming import MAX_NAME_BYTES
from runner.values import Value


def law(*by: str, where: dict[str, frozenset[str]] | None = None) -> Gather:
    return Gather("law", template.parse("fit"), ("curves",), where or {}, by, gather.ALL, "params.yaml, line 3")


@pytest.mark.parametrize(
    ("params", "unit"),
    [
        ({"size": "tiny"}, "gather.law/Size_tiny"),
        ({"size": 3}, "gather.law/Size_3"),
        ({"size": 0.5}, "gather.law/Size_0.5"),
        ({"size": True}, "gather.law/Size_T"),
    ],
)
def test_a_unit_is_called_as_its_group(params: dict[str, Value], unit: str) -> None:
    assert law("size").unit(params) == unit
    assert law().unit(params) == "gather.law/all"


def test_groups_that_look_alike_have_names_of_their_own() -> None:
    values: list[Value] = [1, 1.0, "1", True, "T", None, "None", "a/b", "a_b", "x" * 200, "x" * 201]
    names = [law("size").unit({"size": value}) for value in values]
    assert len(set(names)) == len(values)
    assert all(len(name.partition("/")[2].encode()) <= MAX_NAME_BYTES for name in names)


def test_where_compares_typed_values() -> None:
    chosen = law(where={"n": frozenset({"1", "2"}), "s": frozenset({'"a"'})})
    assert chosen.takes({"n": 1, "s": "a", "other": 0})
    assert not chosen.takes({"n": "1", "s": "a"})
    assert not chosen.takes({"n": 1})


def test_a_placeholder_becomes_the_directory_of_the_trials_own_group() -> None:
    gathers = {"law": law("size"), "all": Gather("all", template.parse("x"), ("a",), {}, (), "all", "")}
    params: dict[str, Value] = {
        "size": "tiny",
        "lr": "{_gather.law}/lr.npy",
        "both": "{_gather.all}:{_gather.law}",
        "n": 1,
    }
    expanded, places = gather.expand(params, gathers, "out")
    assert expanded == {
        "size": "tiny",
        "lr": "out/gather.law/Size_tiny/lr.npy",
        "both": "out/gather.all/all:out/gather.law/Size_tiny",
        "n": 1,
    }
    assert places["gather.law/Size_tiny"][0] == "out/gather.law/Size_tiny/lr.npy"
    assert list(places) == ["gather.law/Size_tiny", "gather.all/all"]
    with pytest.raises(KeyError, match="size"):
        gather.expand({"lr": "{_gather.law}"}, gathers, "out")


def test_a_name_shows_the_gather_in_place_of_its_placeholder() -> None:
    assert gather.readable("{_gather.law}/lr.npy") == "law/lr.npy"
    assert gather.readable(3) == 3
    assert gather.readable_values([1, "{_gather.law}"]) == [1, "law"]


@pytest.mark.parametrize(
    ("need", "count", "expected"),
    [("all", 7, 7), (3, 7, 3), ("80%", 10, 8), ("80%", 7, 6), ("1%", 3, 1), ("100%", 3, 3), ("34%", 3, 2)],
)
def test_how_many_members_are_needed(need: int | str, count: int, expected: int) -> None:
    assert gather.needed(need, count) == expected


@pytest.mark.parametrize("need", ["most", 0, -1, True, "0%", "101%", "12.5%", ""])
def test_what_is_no_number_of_members_is_refused(need: int | str) -> None:
    with pytest.raises(ValueError, match="allowed: all, a number above 0, or a percentage"):
        gather.needed(need, 5)


@pytest.mark.parametrize(
    ("follows", "circle"),
    [
        ({}, None),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, None),
        ({"a": ["a"]}, ["a", "a"]),
        ({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]}, ["a", "b", "c", "a"]),
        ({str(n): [str(n + 1)] for n in range(5000)}, None),
    ],
)
def test_a_circle_is_found_with_its_path(follows: dict[str, list[str]], circle: list[str] | None) -> None:
    assert gather.cycle(follows) == circle


def test_why_a_gather_cannot_run_names_a_few_of_its_trials() -> None:
    others = [f"N_{n} failed" for n in range(5)]
    told = gather.sentence(3, 8, 8, others)
    assert told == "3 of 8 trials are complete, needed are 8 (N_0 failed; N_1 failed; N_2 failed and 2 more)"
