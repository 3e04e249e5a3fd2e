"""A loss curve: at some steps of a run the loss, and at every step the LR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mpl.errors import MplError
from mpl.terms import Ints
from train.schedules import Array

LR_AGREEMENT = 1e-3
"""How far, relative to the peak, a LR written beside a loss may be from that of the schedule: logs have few digits."""


@dataclass(frozen=True)
class Curve:
    """A validated loss curve; steps count from 0, and `lrs` holds the LR of every step, warm-up included.

    A point at step t is the loss when steps 0 to t have been done.
    """

    name: str
    step: Ints
    loss: Array
    lrs: Array

    @staticmethod
    def of(name: str, step: ArrayLike, loss: ArrayLike, lrs: ArrayLike, lr: ArrayLike | None = None) -> Curve:
        """Check the arrays and return the curve; `lr`, the LRs written beside the losses, must be the schedule's.

        Points with a step beyond the schedule are an error, except one at its very end, a loss after the last step
        of `lrs`: it is left out.
        """
        steps, losses, schedule = _numbers(name, "step", step), _numbers(name, "loss", loss), check_lrs(name, lrs)
        if steps.shape != losses.shape:
            raise MplError(f"{name}: {len(steps)} steps and {len(losses)} losses: as many are needed")
        if len(steps) and (steps != np.floor(steps)).any():
            raise MplError(f"{name}: step {steps[steps != np.floor(steps)][0]} is not whole")
        if (steps < 0).any():
            raise MplError(f"{name}: step {steps.min():.0f} is negative: steps count from 0")
        if (np.diff(steps) <= 0).any():
            at = int(np.argmax(np.diff(steps) <= 0))
            raise MplError(f"{name}: step {steps[at + 1]:.0f} comes after step {steps[at]:.0f}: steps must rise")
        keep = steps != len(schedule)
        if (steps > len(schedule)).any():
            raise MplError(f"{name}: step {steps.max():.0f} is beyond the schedule, which has {len(schedule)} steps")
        if not (losses > 0).all():
            at = int(np.argmin(losses))
            raise MplError(f"{name}: the loss at step {steps[at]:.0f} is {losses[at]}: positive ones are needed")
        if lr is not None:
            _compare(name, steps[keep].astype(np.int64), _numbers(name, "lr", lr)[keep], schedule)
        if keep.sum() < 2:
            raise MplError(f"{name}: {keep.sum()} points on a schedule of {len(schedule)} steps, 2 are needed")
        return Curve(name, steps[keep].astype(np.int64), losses[keep], schedule)

    def part(self, keep: slice | Ints) -> Curve:
        """Return the curve with some of its points."""
        return Curve(self.name, self.step[keep], self.loss[keep], self.lrs)


def check_names(curves: Sequence[Curve]) -> None:
    """Raise MplError where two curves have one name."""
    names = [curve.name for curve in curves]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise MplError(f"two curves are named {twice}: give them different names")


def check_lrs(name: str, lrs: ArrayLike) -> Array:
    """Return a schedule as an array, or raise MplError: one LR a step, finite, not negative and not all 0."""
    schedule = _numbers(name, "LR", lrs)
    if not len(schedule):
        raise MplError(f"{name}: the schedule has no steps")
    if (schedule < 0).any():
        at = int(np.argmax(schedule < 0))
        raise MplError(f"{name}: the LR of step {at} is {schedule[at]}: it must not be negative")
    if not schedule[0] + schedule[1:].max(initial=0) > 0:
        raise MplError(f"{name}: the LR is 0 at every step")
    return schedule


def divergence(curve: Curve, others: list[Curve]) -> int:
    """Return the first step at which the curve's schedule is not that of any of the others."""
    return max((_common(curve.lrs, other.lrs) for other in others), default=0)


def _common(one: Array, two: Array) -> int:
    length = min(len(one), len(two))
    differ = ~np.isclose(one[:length], two[:length], rtol=1e-9, atol=0)
    return int(np.argmax(differ)) if differ.any() else length


def _numbers(name: str, what: str, values: ArrayLike) -> Array:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MplError(f"{name}: the {what} column holds what is no number ({error})") from error
    if array.ndim != 1:
        raise MplError(f"{name}: the {what} has the shape {array.shape}: one row of numbers is needed")
    if not np.isfinite(array).all():
        at = int(np.argmin(np.isfinite(array)))
        hint = ": a diverged run has no curve; cut it before that or leave it out" if what == "loss" else ""
        raise MplError(f"{name}: the {what} in row {at + 1} is {array[at]}{hint}")
    return array


def _compare(name: str, steps: Ints, lr: Array, schedule: Array) -> None:
    """Raise where the LRs beside the losses are neither those of their steps nor those of the steps before.

    A row may be written after its step is done and hold the LR of the step before.
    """
    allowed = LR_AGREEMENT * schedule.max()
    wrong = np.abs(lr - schedule[steps]) > allowed
    late = np.abs(lr - schedule[np.maximum(steps - 1, 0)]) > allowed
    if wrong.any() and late.any():
        at = int(np.argmax(wrong))
        raise MplError(
            f"{name}: the LR at step {steps[at]} is {lr[at]:.10g}, but {schedule[steps[at]]:.10g} in the schedule: "
            "give the one that the run had"
        )
