"""Robust Gauss-Newton in log-parameters: the minimum of a sum of Huber losses of log residuals, plus a prior.

Levenberg-Marquardt steps with a second-order correction (geodesic acceleration, Transtrum and Sethna,
arXiv:1201.5885), because the minimum of these laws lies at the end of a long bent valley: how the residuals curve
along a step is measured with one more evaluation of the law, without derivatives, and the step is bent that way.
No log-parameter moves far in one step; where one wants to, it is held there and the others find their best beside it,
since a step that was shortened as a whole would stand still for one that runs to where the law no longer feels it.
A step is taken only where the objective falls. Deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from train.schedules import Array

MAX_MOVE = 1.0
"""The longest move of a log-parameter in one step: a factor of about 3."""
LEAST_DAMPING, MAX_DAMPING = 1e-14, 1e10
OUTSIDE = 0.1
"""The part of delta / |r| with which a residual beyond delta counts in the normal matrix. With all of that, steps are
safe and too short; the loss itself has the second derivative 0 there. Used where most residuals are within delta."""
PROBE = 0.1
"""The part of a step after which its curvature is measured."""
SMALL_MOVE, SHORT_MOVE = 1e-2, 0.1
"""A step that is shorter than the first is not bent, and one shorter than the second is cut where that is better."""
LEAST_PART = 0.3
MAX_BEND = 1.5
"""The longest correction, in parts of the step; where it is longer, the step is too long to trust either."""


@dataclass(frozen=True)
class Prior:
    """Independent normal distributions of log-parameters; precision 0 where nothing is known."""

    centre: Array
    precision: Array

    def objective(self, parameters: Array) -> float:
        return 0.5 * float(self.precision @ (parameters - self.centre) ** 2)


@dataclass(frozen=True)
class Solution:
    """Where the solver ended; `objective` holds the prior's share too."""

    parameters: Array
    objective: float
    success: bool
    message: str
    evaluations: int


@dataclass(frozen=True)
class Task:
    """What is minimised: huber(log_loss - log(loss of the model)) + prior; `jacobian` gives the loss and its slopes."""

    loss: Callable[[Array], Array]
    jacobian: Callable[[Array], tuple[Array, Array]]
    log_loss: Array
    prior: Prior
    delta: float
    lower: Array
    upper: Array
    """The box in which log-parameters stay: where one runs off, the law has a limit, and the rest must go on."""


def huber(residual: Array, delta: float) -> float:
    """Return the sum of r^2 / 2 inside delta and delta (|r| - delta / 2) outside.

    >>> round(huber(np.array([0.5, -3.0]), 1.0), 3)
    2.625
    """
    size = np.abs(residual)
    inside = np.minimum(size, delta)
    return float(inside @ (size - 0.5 * inside))


class _Point:
    """The objective at some parameters, and its quadratic model there."""

    def __init__(self, task: Task, parameters: Array) -> None:
        self.task, self.parameters, self.objective = task, parameters, np.inf
        loss, jacobian = task.jacobian(parameters)
        if (loss > 0).all() and np.isfinite(jacobian).all():
            self.residual = task.log_loss - np.log(loss)
            self.jacobian = jacobian / loss[:, None]
            self.objective = huber(self.residual, task.delta) + task.prior.objective(parameters)

    def expand(self) -> None:
        """Diagonalise the normal matrix, scaled to 1 on its diagonal."""
        prior, size = self.task.prior, np.abs(self.residual)
        weight = self.task.delta / np.maximum(size, self.task.delta)
        gradient = self.jacobian.T @ (weight * self.residual) - prior.precision * (self.parameters - prior.centre)
        outwards = np.where(gradient > 0, self.parameters >= self.task.upper, self.parameters <= self.task.lower)
        gradient[outwards], self.jacobian[:, outwards] = 0.0, 0.0
        inside = size <= self.task.delta
        self.near = 2 * int(inside.sum()) > len(size)
        self.weight = np.where(inside, 1.0, OUTSIDE * weight) if self.near else weight
        self.gradient = gradient
        self.normal = (self.jacobian * self.weight[:, None]).T @ self.jacobian + np.diag(prior.precision)
        self.scale = np.sqrt(np.maximum(np.diag(self.normal), 1e-30))
        values, self.vectors = np.linalg.eigh(self.normal / np.outer(self.scale, self.scale))
        self.values = np.maximum(values, 0.0)
        self.along = self.vectors.T @ (gradient / self.scale)

    def promise(self) -> float:
        """Return by how much the quadratic model says that the objective can fall."""
        return 0.5 * float(self.along @ (self.along / (self.values + LEAST_DAMPING)))

    def part(self, move: Array, curvature: Array) -> float:
        """Return the part of a step at which the objective is least, from its first two derivatives along it."""
        along = self.vectors.T @ (self.scale * move)
        bent = float(np.clip(self.residual, -self.task.delta, self.task.delta) @ curvature)
        second = float(along @ (self.values * along)) + bent
        return min(max(float(self.along @ along) / second, LEAST_PART), 1.0) if second > 0 else 1.0

    def within_reach(self, move: Array, damping: float) -> Array:
        """Return the damped step with no part longer than MAX_MOVE: longer ones are cut, the others solved again."""
        held = np.zeros(len(move), dtype=bool)
        while (longer := np.abs(move) > MAX_MOVE).any():
            held |= longer
            move = np.clip(move, -MAX_MOVE, MAX_MOVE)
            normal = self.normal + damping * np.diag(self.scale**2)
            pull = self.gradient[~held] - normal[np.ix_(~held, held)] @ move[held]
            move[~held] = np.linalg.solve(normal[np.ix_(~held, ~held)], pull)
        return move

    def step(self, damping: float) -> Array | None:
        """Return the damped and bent step, or None where it bends too much."""
        move: Array = self.vectors @ (self.along / (self.values + damping)) / self.scale
        move = self.within_reach(move, damping)
        longest = float(np.abs(move).max())
        if longest < SMALL_MOVE or not self.near:
            return move
        loss = self.task.loss(self.parameters + PROBE * move)
        if not (np.isfinite(loss) & (loss > 0)).all():
            return move
        slope = (self.task.log_loss - np.log(loss) - self.residual) / PROBE
        curvature = 2 / PROBE * (slope + self.jacobian @ move)
        pull = self.vectors.T @ (self.jacobian.T @ (self.weight * curvature) / self.scale)
        bend: Array = self.vectors @ (pull / (self.values + damping)) / self.scale
        if np.linalg.norm(self.scale * bend) > MAX_BEND * np.linalg.norm(self.scale * move):
            return None
        part = self.part(move, curvature) if longest < SHORT_MOVE else 1.0
        move = part * move + 0.5 * part**2 * bend
        return np.clip(move, -MAX_MOVE, MAX_MOVE)


def minimise(
    task: Task, start: Array, max_evaluations: int = 1000, tolerance: float = 1e-9, damping: float = 1e-3
) -> Solution:
    """Minimise the objective of `task` from `start`; the farther that is, the more `damping` is good at first.

    Stops where the quadratic model promises less than `tolerance` of the objective, or after two steps in a row that
    have lowered it by less.
    """
    here, small = _Point(task, start), 0
    if not np.isfinite(here.objective):
        return Solution(start, np.inf, False, "the law gives no positive loss at the start", 1)
    evaluations = 1
    while evaluations < max_evaluations:
        here.expand()
        if here.promise() < tolerance * here.objective:
            return Solution(here.parameters, here.objective, True, "the objective falls no further", evaluations)
        there, used, damping = _descend(task, here, damping, max_evaluations - evaluations)
        evaluations += used
        if not there.objective < here.objective:
            done = damping > MAX_DAMPING or small > 0
            return Solution(here.parameters, here.objective, done, "no step lowers the objective", evaluations)
        small = small + 1 if here.objective - there.objective < tolerance * here.objective else 0
        here, damping = there, max(damping / 5, LEAST_DAMPING)
        if small == 2:
            return Solution(here.parameters, here.objective, True, "the objective falls no further", evaluations)
    message = f"{max_evaluations} evaluations were not enough"
    return Solution(here.parameters, here.objective, False, message, evaluations)


def _descend(task: Task, here: _Point, damping: float, allowed: int) -> tuple[_Point, int, float]:
    """Return a lower point, or the last one tried, the evaluations that it took and the damping of its step."""
    there, used = here, 0
    while used < allowed and damping <= MAX_DAMPING:
        move = here.step(damping)
        used += 1
        if move is not None:
            there = _Point(task, np.clip(here.parameters + move, task.lower, task.upper))
            used += 1
            if there.objective < here.objective:
                break
        damping = max(4 * damping, 1e-9)
    return there, used, damping
