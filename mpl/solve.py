"""Robust Gauss-Newton in log-parameters: the minimum of a sum of Huber losses of log residuals, plus a prior.

Levenberg-Marquardt steps on the reweighted normal equations: inside delta a residual has weight 1, outside delta / |r|,
which bounds the Huber loss from above, so that a step is taken only where the objective falls. Deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from train.schedules import Array

MAX_MOVE = 2.0
"""The longest move of a log-parameter in one step: a factor of about 7."""
MAX_DAMPING = 1e10


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


def huber(residual: Array, delta: float) -> float:
    """Return the sum of r^2 / 2 inside delta and delta (|r| - delta / 2) outside.

    >>> round(huber(np.array([0.5, -3.0]), 1.0), 3)
    2.625
    """
    size = np.abs(residual)
    return float(np.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta)).sum())


def minimise(
    model: Callable[[Array], tuple[Array, Array]],
    log_loss: Array,
    start: Array,
    prior: Prior,
    delta: float,
    max_evaluations: int = 400,
    tolerance: float = 1e-9,
) -> Solution:
    """Minimise huber(log_loss - log model) + prior from `start`; `model` gives the loss and its Jacobian.

    Stops when two steps in a row have lowered the objective by less than `tolerance` of it.
    """

    def evaluate(parameters: Array) -> tuple[float, Array, Array]:
        loss, jacobian = model(parameters)
        if not (loss > 0).all() or not np.isfinite(jacobian).all():
            return np.inf, loss, jacobian
        residual = log_loss - np.log(loss)
        return huber(residual, delta) + prior.objective(parameters), residual, jacobian / loss[:, None]

    parameters, damping, small = start, 1e-3, 0
    objective, residual, jacobian = evaluate(parameters)
    if not np.isfinite(objective):
        return Solution(parameters, np.inf, False, "the law gives no positive loss at the start", 1)
    evaluations = 1
    while evaluations < max_evaluations:
        weight = delta / np.maximum(np.abs(residual), delta)
        gradient = jacobian.T @ (weight * residual) - prior.precision * (parameters - prior.centre)
        normal = (jacobian * weight[:, None]).T @ jacobian + np.diag(prior.precision)
        scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
        values, vectors = np.linalg.eigh(normal / np.outer(scale, scale))
        along = vectors.T @ (gradient / scale)
        while True:
            move = vectors @ (along / (np.maximum(values, 0) + damping)) / scale
            move *= min(1.0, MAX_MOVE / max(float(np.abs(move).max()), 1e-300))
            evaluations += 1
            new_objective, new_residual, new_jacobian = evaluate(parameters + move)
            if new_objective < objective or damping > MAX_DAMPING or evaluations >= max_evaluations:
                break
            damping = max(4 * damping, 1e-9)
        if not new_objective < objective:
            done = damping > MAX_DAMPING or small > 0
            return Solution(parameters, objective, done, "no step lowers the objective", evaluations)
        small = small + 1 if objective - new_objective < tolerance * objective else 0
        parameters, objective = parameters + move, new_objective
        residual, jacobian, damping = new_residual, new_jacobian, max(damping / 5, 1e-14)
        if small == 2:
            return Solution(parameters, objective, True, "the objective falls no further", evaluations)
    return Solution(parameters, objective, False, f"{max_evaluations} evaluations were not enough", evaluations)
