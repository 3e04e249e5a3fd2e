"""Error bars of a predicted loss that count what the law leaves out.

The half-width is, in parts of the loss, q sqrt(p^2 + e^2 + r^2): p is the uncertainty of the parameters, e how far
other laws that are fitted to the same curves predict otherwise, and r what the fit leaves of the curves, by which
another curve will differ too. So bars widen where a prediction hangs on the form of the law. q is the 90% point of
the errors, in these units, at curves that are left out of the fit, and at least 2.

The rule was made with synthetic curves of mixed laws and of such with a part that no law has: with it 90% of what is
past the divergence is covered on average (94% of the former, 85% of the latter).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mpl.laws import LAWS, Law
from mpl.prior import SCORE_POINTS, folds, shape_prior
from mpl.problem import Problem, descend, solve
from mpl.terms import Terms
from train.schedules import Array

COVER = 0.9
LEAST_FACTOR = 2.0
RIVALS = ("mpl_risk", "mpl", "momentum")
"""The laws that differ in form where the LR falls."""
INDEPENDENT = 7.0
"""Independent points that a curve is worth: residuals keep their sign for about a seventh of a curve."""
SHAPE_WIDTH, LOOSE_WIDTH = 0.25, 10.0
"""Prior standard deviations of log shape parameters, and of the logs of the others, which keep the matrix regular."""
FOLD_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Bars:
    """What makes the bars of a fit."""

    covariance: Array
    """That of the log-parameters: [k, k]."""
    residual: float
    """The root mean square of the log residuals."""
    rivals: Mapping[str, Array]
    """The log-parameters of other laws, fitted to the same curves."""
    factor: float

    @staticmethod
    def of(law: Law, problem: Problem, parameters: Array, rivals: Mapping[str, Array], factor: float = 1.0) -> Bars:
        residual = problem.log_loss - np.log(problem.loss(law, parameters))
        scale = float(np.sqrt((residual**2).mean()))
        return Bars(covariance(law, parameters, problem, scale), scale, rivals, factor)

    def relative(self, law: Law, parameters: Array, terms: Terms) -> Array:
        """Return the half-width of the bars, in parts of the loss, at each point: [n]."""
        loss, jacobian = law.jacobian(parameters, terms)
        rows = jacobian / loss[:, None]
        variance = np.einsum("ij,jk,ik->i", rows, self.covariance, rows) + self.residual**2
        others = [LAWS[name].loss(logs, terms) / loss - 1 for name, logs in self.rivals.items()]
        if others:
            variance += np.mean(np.square(others), axis=0)
        half: Array = self.factor * np.sqrt(variance)
        return half


def covariance(law: Law, parameters: Array, problem: Problem, residual: float) -> Array:
    """Return the covariance of the log-parameters for residuals of this size, of which few are independent."""
    loss, jacobian = problem.jacobian(law, parameters)
    weight = np.concatenate([np.full(count, min(INDEPENDENT / count, 1.0)) for count in problem.counts])
    rows = jacobian / loss[:, None] * np.sqrt(weight)[:, None] / max(residual, 1e-9)
    widths = [SHAPE_WIDTH if name in law.shape else LOOSE_WIDTH for name in law.parameters]
    inverse: Array = np.linalg.inv(rows.T @ rows + np.diag(np.array(widths) ** -2.0))
    return (inverse + inverse.T) / 2


def calibrate(law: Law, problem: Problem, width: float | None, parameters: Array) -> Bars:
    """Return the bars of a fit; fits other laws too, and all of them without each curve."""
    rivals = {}
    for name in RIVALS:
        rival = LAWS[name]
        if name != law.name and problem.changes() and len(rival.parameters) <= len(problem.log_loss):
            end = solve(rival, problem, shape_prior(rival, width))[0]
            if np.isfinite(end.objective):
                rivals[name] = end.parameters
    ratios = [
        _ratios(law, fitted, left, width, parameters, rivals)
        for fitted, left in folds(law, problem.thinned(SCORE_POINTS))
    ]
    factor = max(LEAST_FACTOR, float(np.quantile(np.concatenate(ratios), COVER)))
    return Bars.of(law, problem, parameters, rivals, factor)


def _ratios(
    law: Law, fitted: Problem, left: Problem, width: float | None, start: Array, rivals: Mapping[str, Array]
) -> Array:
    """Return the errors at what was left out, in parts of the bars' half-width with factor 1."""

    def refit(one: Law, logs: Array) -> Array:
        return descend(one, fitted, shape_prior(one, width), logs, FOLD_TOLERANCE).parameters

    end = refit(law, start)
    bars = Bars.of(law, fitted, end, {name: refit(LAWS[name], logs) for name, logs in rivals.items()})
    error = np.abs(left.log_loss - np.log(left.loss(law, end)))
    ratios: Array = error / (left.spread @ bars.relative(law, end, left.terms))
    return ratios
