"""Who waits for whom."""

from __future__ import annotations

import random

from runner.queueing.waits import Waits


def test_the_last_end_lets_go_and_only_once() -> None:
    waits = Waits()
    waits.expect("law", ["a", "b", "c"], ["a", "c"])
    assert waits.is_open("law")
    assert waits.end("a") == []
    assert waits.end("b") == []  # it was over before
    assert waits.end("c") == ["law"]
    assert waits.end("c") == []
    assert not waits.is_open("law")


def test_one_end_may_let_several_go_in_the_order_in_which_they_came() -> None:
    waits = Waits()
    for name in ("x", "y", "z"):
        waits.expect(name, ["a"], ["a"])
    assert waits.end("a") == ["x", "y", "z"]


def test_what_is_due_again_is_waited_for_again() -> None:
    waits = Waits()
    waits.expect("law", ["a", "b"], [])
    assert waits.reopen("a") == ["law"]
    assert waits.reopen("b") == []  # it waits already
    assert waits.end("a") == []
    assert waits.end("b") == ["law"]


def test_new_waits_replace_old_ones_and_what_is_forgotten_is_told_of_nothing() -> None:
    waits = Waits()
    waits.expect("law", ["a"], ["a"])
    waits.expect("law", ["b"], ["b"])
    assert waits.end("a") == []
    waits.forget("law")
    assert (waits.end("b"), waits.reopen("b"), waits.is_open("law")) == ([], [], False)
    waits.forget("law")


def test_any_order_of_ends_lets_everybody_go_exactly_once() -> None:
    choice = random.Random(7)
    for _ in range(50):
        waits = Waits()
        members = [f"m{index}" for index in range(20)]
        asked = {f"f{index}": choice.sample(members, choice.randrange(1, 20)) for index in range(10)}
        for name, others in asked.items():
            waits.expect(name, others, others)
        let_go = []
        for member in choice.sample(members, len(members)):
            let_go += waits.end(member)
        assert sorted(let_go) == sorted(asked)
