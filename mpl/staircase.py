"""The discrete optimum of a multi-power law: a few drops of the LR.

The law weighs a drop with the response to the LR *after* it, so that a large drop earns more than the same way down in
small ones, and the best non-increasing sequence is a staircase. That is a property of the formula, far from the
schedules on which it was fitted: an extrapolation.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from mpl.smooth import Smooth
from mpl.terms import Ints
from train.schedules import Array

STAIRS = 4
"""Drops to begin with; those that do not pay end with almost no steps or no height. More do not lower the loss."""
LOWEST = 1e-9
"""The least LR, in parts of the start, where there is no floor."""


class Stairs:
    """The final loss of a staircase: drops to the LRs `levels` after `lengths[0]` steps at `start` and so on."""

    def __init__(self, task: Smooth, start: float) -> None:
        self.task, self.start = task, start

    def loss(self, levels: Array, lengths: Array) -> tuple[float, Array, Array]:
        """Return the loss and its derivatives by levels [m] and lengths [m + 1]."""
        task, every = self.task, np.concatenate(([self.start], levels))
        areas = every * lengths
        total = float(areas.sum())
        to_come = np.maximum(np.cumsum(areas[:0:-1])[::-1], 1e-300)
        earned, earned_slope = task.earnings(self.start, total)
        log_lr, log_gap = np.log(levels), np.log(to_come)
        response, slopes = task.law.response(task.parameters, log_lr, log_gap, to_come, jacobian=True)
        drops, before = every[:-1] - levels, task.before.area + total - to_come
        weight = task.main(before) if task.law.risk else np.ones_like(levels)
        loss = float(task.main(task.before.area + total)) - task.b * (earned + float(drops * weight @ response))

        main_slope = float(task.main_slope(task.before.area + total))
        # By an area that comes after drop i: through u_i, and through U; by one that comes before it: through r_i.
        by_area = np.full(len(every), main_slope - task.b * earned_slope)
        by_area[1:] -= task.b * np.cumsum(drops * weight * slopes[0] / to_come)
        if task.law.risk:
            later = drops * response * task.main_slope(before)
            by_area[:-1] -= task.b * np.cumsum(later[::-1])[::-1]
        by_level = by_area[1:] * lengths[1:] + task.b * weight * response
        by_level[:-1] -= task.b * weight[1:] * response[1:]
        by_level += task.b * drops * weight * task.gamma * slopes[0] / levels
        return loss, by_level, by_area * every


def staircase_lrs(task: Smooth, start: float) -> Array:
    """Return the LRs [count] of the best staircase from the LR `start` down to the floor of `task`."""
    stairs, count = Stairs(task, start), task.count
    depth = np.log(max(task.floor / start, LOWEST))
    drops = min(STAIRS, count - 1)
    if drops < 1 or depth >= 0:
        return np.full(count, start)

    def shape(x: Array) -> tuple[Array, Array, Array, Array]:
        """Return what x, the logits of parts of the way down that is left and logs of lengths, stands for."""
        part = expit(x[:drops])
        left: Array = np.cumprod(1 - part, dtype=np.float64)
        lengths = np.exp(x[drops:] - x[drops:].max())
        return part, left, start * np.exp(depth * (1 - left)), count * lengths / lengths.sum()

    def objective(x: Array) -> tuple[float, Array]:
        part, left, levels, lengths = shape(x)
        loss, by_level, by_length = stairs.loss(levels, lengths)
        by_logit = np.cumsum((by_level * levels * depth * left)[::-1])[::-1] * part
        return loss, np.concatenate((by_logit, lengths * (by_length - float(by_length @ lengths) / count)))

    part = np.full(drops, min(0.5, -2.0 / depth))
    first = np.concatenate((np.log(part / (1 - part)), np.log([4.0 * drops, *np.ones(drops)])))
    found = minimize(objective, first, jac=True, method="L-BFGS-B", options={"maxiter": 200, "ftol": 1e-12})
    levels, lengths = shape(found.x)[2:]
    falling = np.minimum.accumulate(np.concatenate(([start], levels)))  # but for rounding they fall anyway
    return np.repeat(np.maximum(falling, task.floor), whole(lengths, count))


def whole(lengths: Array, count: int) -> Ints:
    """Return whole numbers next to `lengths` that add up to `count`.

    >>> whole(np.array([1.4, 2.4, 6.2]), 10).tolist()
    [2, 2, 6]
    """
    floors = np.floor(lengths).astype(np.int64)
    missing = count - int(floors.sum())
    floors[np.argsort(floors - lengths, kind="stable")[:missing]] += 1
    return floors
