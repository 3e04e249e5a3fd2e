"""The non-increasing schedule with the lowest final loss that a multi-power law predicts, in closed form.

Let u(eta) be the LR area that is still to come when the LR falls to eta, U that of all steps to plan, P the LR from
which they may start, f the floor, S0 the area and E(U) the earnings of what comes before, and N the number of steps.
Earnings are integrals over eta, and so is the time, by parts:

    L = M(S0 + U) - B (E(U) + int_f^P r G(eta^-gamma u(eta)) d eta),    N = U / P + int_f^P u(eta) / eta^2 d eta

No derivative of u occurs, so that the Euler-Lagrange equation is algebraic: B dG/du = mu / eta^2, which gives

    u = eta^gamma / C ((B C beta eta^(2 - gamma) / mu)^(1 / (1 + beta)) - 1),  at least 0,

and the condition for U gives mu = P (B E'(U) - M'(S0 + U)). What is left is one root: the U that takes N steps. For
the law mpl_risk r = M(S0 + U - u) depends on u and U, which adds B r' G eta^2 to mu in the first condition and
P B int r' G d eta to it in the second: r and G are taken along by a few substitutions, from r = M(S0 + U) on.

Where u would exceed U, the LR has to drop at once, and by how much is found by a golden-section search. There mpl_risk
may have no optimum but to drop as early as it can, where r is largest: then each substitution leads further away. So
the plans after none, one and so on, and the one with the drop at once, are candidates among which the caller chooses.
So are two ways to cut a decay that takes a few steps only into these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mpl.laws import Law
from mpl.terms import PLAIN, Changes, Terms
from train.schedules import Array

NODES = 128
"""LRs at which u is computed."""
RISK_SWEEPS = 3
SHORT_DECAY = 10
"""Steps of a decay from which on it hardly matters which part of a step stands for it."""
ACCURACY_STEPS = 1e-3
"""How nearly a plan takes the steps that there are."""


@dataclass(frozen=True)
class Before:
    """What precedes the planned steps: its LR area, last LR, and the terms of its LR changes at its end."""

    area: float
    last: float
    terms: Terms

    @staticmethod
    def of(prefix: Array, plain: int = PLAIN) -> Before:
        """Return the history of the LRs `prefix`, of which there is at least one; `plain` as in Changes.terms."""
        terms = Changes(prefix).terms(np.array([len(prefix) - 1]), plain)
        return Before(float(terms.area[0]), float(prefix[-1]), terms)


@dataclass(frozen=True)
class Plan:
    """A solution in terms of u: LRs, rising, the area and the steps to come when the LR falls to each."""

    lr: Array
    area: Array
    steps: Array


class Grid:
    """LRs, rising, at which u is computed, and what of the closed form depends on nothing else."""

    def __init__(self, lr: Array, b: float, c: float, beta: float, gamma: float) -> None:
        self.lr, self.log_lr, self.power = lr, np.log(lr), -1 / (1 + beta)
        self.middle = np.sqrt(lr[1:] * lr[:-1])
        with np.errstate(over="ignore", invalid="ignore"):
            self.unit = lr**gamma / c
            self.log_ratio = (np.log(b * beta * c) + (2 - gamma) * self.log_lr) / (1 + beta)

    def closed_form(self, price: Array | float) -> Array:
        """Return the u at which B dG/du is the price over lr^2."""
        with np.errstate(over="ignore", invalid="ignore"):
            area = self.unit * np.expm1(self.log_ratio + self.power * np.log(price))
        positive: Array = np.nan_to_num(np.maximum(area, 0.0), nan=0.0, posinf=np.finfo(float).max)
        return positive


class Smooth:
    """The equations above for one law, history, range of LRs and number of steps."""

    def __init__(
        self, law: Law, parameters: Array, before: Before, floor: float, count: int, sweeps: int = RISK_SWEEPS
    ) -> None:
        self.law, self.parameters, self.before, self.count = law, parameters, before, count
        self.floor, self.sweeps = floor, sweeps
        values = dict(zip(law.parameters, np.exp(parameters), strict=True))
        self.level, self.scale, self.power = values["L0"], values["A"], values["alpha"]
        self.b, self.c, self.beta = values["B"], values["C"], values["beta"]
        self.gamma = values.get("gamma", 0.0)
        self._last: Grid | None = None

    def main(self, area: Array | float) -> Array:
        value: Array = self.level + self.scale * np.asarray(area) ** -self.power
        return value

    def main_slope(self, area: Array | float) -> Array:
        value: Array = -self.power * self.scale * np.asarray(area) ** (-self.power - 1)
        return value

    def earnings(self, start: float, total: float) -> tuple[float, float]:
        """Return E(U) and E'(U): of the changes before, and of that from their last LR to `start`."""
        terms, last = self.before.terms, self.before.last
        drop, log_lr = np.append(terms.weight, last - start), np.append(terms.log_lr, np.log(start))
        gap = np.append(terms.gap, 0.0) + total
        response, slopes = self.law.response(self.parameters, log_lr, np.log(gap), gap, jacobian=True)
        if self.law.risk:
            drop = drop * self.main(np.exp(np.append(terms.log_before, np.log(self.before.area))))
        return float(drop @ response), float(drop @ (slopes[0] / gap))

    def plan(self, start: float, total: float) -> Plan:
        """Return u(eta) for the area `total`, from the LR `start` on."""
        grid = self._grid(start)
        force = self.b * self.earnings(start, total)[1] - float(self.main_slope(self.before.area + total))
        weight = float(self.main(self.before.area + total)) if self.law.risk else 1.0
        area = grid.closed_form(max(start * force, 1e-300) / weight)
        if self.law.risk:
            for _ in range(self.sweeps):
                spent = self.before.area + total - np.minimum(area, total)
                with np.errstate(divide="ignore"):
                    response = self.law.response(
                        self.parameters, grid.log_lr, np.log(np.minimum(area, total)), area, jacobian=False
                    )[0]
                pull = self.b * self.main_slope(spent) * response
                mu = start * (force + float((pull[1:] + pull[:-1]) @ np.diff(grid.lr)) / 2)
                area = grid.closed_form(np.maximum(mu + pull * grid.lr**2, 1e-300) / self.main(spent))
        # Where gamma is large the equation has no monotone solution: the nearest schedule that does not rise.
        area = np.maximum.accumulate(np.minimum(area, total))
        steps = np.cumsum(np.concatenate((area[:1] / grid.lr[0], np.diff(area) / grid.middle)))
        return Plan(grid.lr, area, steps)

    def _grid(self, start: float) -> Grid:
        if self._last is None or self._last.lr[-1] != start:
            lowest = max(self.floor, 1e-6 * start)
            lr = np.geomspace(lowest, start, NODES) if lowest < start else np.array([start])
            self._last = Grid(lr, self.b, self.c, self.beta, self.gamma)
        return self._last

    def solve(self, start: float) -> tuple[Plan, float]:
        """Return the plan that takes all steps from the LR `start`, and its area."""

        plans: dict[float, Plan] = {}

        def excess(total: float) -> float:
            plan = plans[total] = self.plan(start, total)
            return float(plan.steps[-1] + (total - plan.area[-1]) / start) - self.count

        total = root(excess, 1e-3 * start * self.count, start * self.count, 1 / start)
        return plans[total], total

    def lrs(self, plan: Plan, start: float, place: float = 0.5) -> Array:
        """Return the LR of each step, that in its middle, or at another `place`: 0 is its end."""
        # np.interp keeps the ends: the start before, the lowest LR after.
        lrs = np.interp(np.arange(self.count) + place, plan.steps, plan.lr)[::-1]
        lowest = plan.lr[np.searchsorted(plan.area, 0.0, side="right") - 1] if plan.area[0] == 0 else plan.lr[0]
        return np.minimum.accumulate(np.clip(lrs, max(lowest, self.floor), start))

    def loss(self, plan: Plan, total: float, start: float) -> float:
        """Return the final loss of a plan, with the integral over eta as a sum: to compare plans by."""
        area = np.maximum(plan.area, 1e-300)
        response = self.law.response(self.parameters, np.log(plan.lr), np.log(area), area, jacobian=False)[0]
        if self.law.risk:
            response = response * self.main(self.before.area + total - plan.area)
        earned = float(np.sum((response[1:] + response[:-1]) / 2 * np.diff(plan.lr)))
        earned += self.earnings(start, total)[0]
        return float(self.main(self.before.area + total) - self.b * earned)


def root(function: Callable[[float], float], low: float, high: float, slope: float, rounds: int = 60) -> float:
    """Return a zero of a rising function between `low` and `high`, or the end nearer to one.

    Secants from `high` on, where the slope is about `slope`, and halves of the bracket where they do not help.
    """
    at, value = high, function(high)
    if value <= 0:
        return high
    for turn in range(rounds):
        next_at = at - value / slope if slope > 0 and turn % 4 < 3 else low
        if not low < next_at < high:
            next_at = (low + high) / 2
        next_value = function(next_at)
        low, high = (next_at, high) if next_value < 0 else (low, next_at)
        if abs(next_value) < ACCURACY_STEPS or high - low < 1e-14 * high:
            return next_at
        slope = (next_value - value) / (next_at - at)
        at, value = next_at, next_value
    return at


def smooth_plans(law: Law, parameters: Array, prefix: Array, count: int, peak: float, floor: float) -> list[Array]:
    """Return the LRs of `count` steps after `prefix`, at most `peak` and at least `floor`: [count].

    That is one plan, or the candidates where the LR has to drop at once, or in a few steps at the end.
    """
    task = Smooth(law, parameters, Before.of(prefix), floor, count)
    plan, total = task.solve(peak)
    plans = [task.lrs(plan, peak)]
    if plan.steps[-1] < SHORT_DECAY and floor < peak:
        plans.append(task.lrs(plan, peak, place=0.0))
    if plan.area[-1] >= total * (1 - 1e-9) and floor < peak:
        start = _best_start(task, peak, floor)
        plans.append(task.lrs(task.solve(start)[0], start))
        for sweeps in range(RISK_SWEEPS if law.risk else 0):
            fewer = Smooth(law, parameters, task.before, floor, count, sweeps)
            plans.append(fewer.lrs(fewer.solve(peak)[0], peak))
    return plans


def _best_start(task: Smooth, peak: float, floor: float) -> float:
    """Return the LR to drop to at once: a golden-section search in its logarithm."""
    ratio = (np.sqrt(5) - 1) / 2
    low, high = np.log(max(floor, 1e-4 * peak)), np.log(peak)

    def value(log_start: float) -> float:
        start = float(np.exp(log_start))
        plan, total = task.solve(start)
        return task.loss(plan, total, start)

    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(24):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = value(right)
    return float(np.exp((low + high) / 2))
