"""Successive halving on simulated trials: what it spends, and that the best one is kept."""

from __future__ import annotations

import math
import random

import pytest

from runner.errors import InputError
from runner.halving import Rule, at_rungs, stands

STEPS = 900
RULE = Rule(rungs=(33, 100, 300))


def loss(lr: float, width: int, decay: float, step: int) -> float:
    """A trial's loss: a power law that the LR shifts, a wider model ends lower, and large LRs begin lower."""
    distance = abs(math.log10(lr / 1e-2))
    return 2 + 3 / width + 0.3 * distance + decay + (3 + distance) / math.sqrt(step + 1)


GRID = {
    f"lr_{lr:g}-width_{width}-decay_{decay:g}": (lr, width, decay)
    for lr in (1e-3, 1e-2, 1e-1)
    for width in (16, 32, 64)
    for decay in (0.3, 0.1, 0.0)
}


def simulate(names: list[str], slots: int) -> tuple[dict[str, int], int]:
    """Run trials on some slots, a step of each in turn; returns the step at which each stands, and the steps spent.

    A trial that stops frees its slot; one that may go on after all comes before those that have not begun.
    """
    steps = dict.fromkeys(names, 0)
    waiting, stopped = list(names), list[str]()
    running: list[str] = []
    spent = 0
    while True:
        reached = {
            name: at_rungs(RULE, [(step, loss(*GRID[name], step)) for step in RULE.rungs if step <= at])
            for name, at in steps.items()
            if at >= RULE.rungs[0]
        }
        going = stands(RULE, reached)
        for name in [name for name in running if steps[name] in RULE.rungs and not going[name]]:
            running.remove(name)
            stopped.append(name)
        running = [name for name in running if steps[name] < STEPS]
        revived = [name for name in stopped if going[name]]
        while len(running) < slots and (revived or waiting):
            name = revived.pop(0) if revived else waiting.pop(0)
            if name in stopped:
                stopped.remove(name)
            running.append(name)
        if not running:
            return steps, spent
        for name in running:
            steps[name] += 1
            spent += 1


def ordered(order: str) -> list[str]:
    names = list(GRID)
    if order == "backwards":
        names.reverse()
    elif order == "best last":
        names.sort(key=lambda name: -loss(*GRID[name], STEPS))
    elif order.startswith("shuffled"):
        random.Random(order).shuffle(names)
    return names


BEST = min(GRID, key=lambda name: loss(*GRID[name], STEPS))
ORDERS = ["as the grid", "backwards", "shuffled 0", "shuffled 1", "shuffled 2"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("slots", [1, 2, 8])
def test_a_grid_of_27_costs_at_most_two_fifths_and_keeps_its_best(order: str, slots: int) -> None:
    steps, spent = simulate(ordered(order), slots)
    assert steps[BEST] == STEPS
    assert spent <= 0.4 * 27 * STEPS


def test_an_order_from_worst_to_best_costs_more_and_loses_nothing() -> None:
    """Each trial is the best so far, and goes on: the price of not waiting."""
    steps, spent = simulate(ordered("best last"), slots=2)
    assert steps[BEST] == STEPS
    assert 0.4 < spent / (27 * STEPS) < 0.8


def test_a_rung_keeps_its_part_and_never_a_nan() -> None:
    rule = Rule((10,))
    assert stands(rule, {"a": [1.0], "b": [2.0]}) == {"a": False, "b": False}
    assert stands(rule, {"a": [1.0], "b": [2.0], "c": [0.5]}) == {"a": False, "b": False, "c": True}
    assert stands(rule, {"a": [math.nan], "b": [math.nan], "c": [math.nan]}) == dict.fromkeys("abc", False)
    assert stands(Rule((10,), is_maximized=True), {"a": [1.0], "b": [2.0], "c": [0.5]})["b"]


def test_of_the_last_ones_at_least_one_goes_on() -> None:
    assert stands(RULE, {"a": [1.0], "b": [2.0]}, is_last=True) == {"a": True, "b": False}
    assert stands(RULE, {"a": [1.0, 1.0], "b": [2.0]}, is_last=True) == {"a": True, "b": False}
    assert stands(RULE, {"a": [math.nan]}, is_last=True) == {"a": False}


def test_who_stopped_goes_on_when_later_ones_are_worse() -> None:
    reached = {"first": [1.0]}
    assert stands(RULE, reached) == {"first": False}
    reached |= {"second": [2.0], "third": [3.0]}
    assert stands(RULE, reached)["first"]


def test_those_that_went_further_count_at_the_rungs_below() -> None:
    going = stands(RULE, {"a": [1.0, 1.0, 1.0], "b": [2.0], "c": [3.0], "d": [1.5]})
    assert going == {"a": False, "b": False, "c": False, "d": False}


def test_a_rung_is_reached_by_the_first_row_from_it_on() -> None:
    assert at_rungs(RULE, [(20, 5.0), (40, 4.0), (99, 3.0), (150, 2.0)]) == [4.0, 2.0]
    assert at_rungs(RULE, [(20, 5.0)]) == []


@pytest.mark.parametrize(("rungs", "keep"), [((), 0.5), ((10, 10), 0.5), ((0, 5), 0.5), ((10,), 1.0), ((10,), 0.0)])
def test_rules_that_make_no_sense_are_refused(rungs: tuple[int, ...], keep: float) -> None:
    with pytest.raises(InputError, match="needed"):
        Rule(rungs, keep)
