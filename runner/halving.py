"""Successive halving without waiting (ASHA): which trials stop at a rung, and which that stopped go on after all.

Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020 (arXiv:1810.05934). A trial that reaches a
rung goes on if it is among the best `keep` of all that have reached it so far, and stops otherwise. One that stopped is
due again once enough later ones are worse: the best of a rung is never lost to the order in which trials came. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Rule:
    """`rungs` are steps, rising; `keep` is the part that goes on at each of them, judged by a column `metric`."""

    rungs: tuple[int, ...]
    keep: float = 1 / 3
    metric: str = "loss"
    is_maximized: bool = False

    def __post_init__(self) -> None:
        if not self.rungs or self.rungs[0] < 1 or any(b <= a for a, b in zip(self.rungs, self.rungs[1:], strict=False)):
            raise InputError(f"rungs are {list(self.rungs)}; needed are rising steps from 1.")
        if not 0 < self.keep < 1:
            raise InputError(f"keep is {self.keep}; needed is a part between 0 and 1, such as 1/3.")


def at_rungs(rule: Rule, curve: Sequence[tuple[int, float]]) -> list[float]:
    """The metric at each rung that a curve of (step, value) rows has reached: the value of the first row from it on."""
    found = []
    for rung in rule.rungs:
        value = next((value for step, value in curve if step >= rung), None)
        if value is None:
            break
        found.append(value)
    return found


def stands(rule: Rule, reached: Mapping[str, Sequence[float]], is_last: bool = False) -> dict[str, bool]:
    """Whether each trial that has reached a rung may go on beyond the last one that it reached.

    `reached` holds each trial's metric at the rungs that it reached, in the order of the rungs. A trial is compared
    with all that reached the same rung, those included that went further; NaN is worse than any number. Of equal ones
    the first goes on. `is_last` says that no other trial is to come: then at least one goes on, however few there are.
    False means: stop it, or, if it has stopped, leave it; True: let it go on, or revive it.
    """
    going = {}
    for level in range(len(rule.rungs)):
        there = [name for name, values in reached.items() if len(values) > level]
        order = sorted(there, key=lambda name: _badness(rule, reached[name][level]))
        # Binary fractions: 27 * (1 / 3) must be 9.
        best = set(order[: max(math.floor(len(there) * rule.keep + 1e-9), is_last)])
        for name in there:
            if len(reached[name]) == level + 1:
                going[name] = name in best and not math.isnan(reached[name][level])
    return going


def _badness(rule: Rule, value: float) -> float:
    if math.isnan(value):
        return math.inf
    return -value if rule.is_maximized else value
