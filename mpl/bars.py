"""Error bars of a predicted loss that count what the law leaves out.

The half-width is, in parts of the loss, q sqrt(p^2 + d^2 + (g G / L)^2): p is the uncertainty of the parameters, d the
error that the law has on schedules it was not fitted on, and g that of what falls of the LR have earned, G. All of it
is set before a curve is predicted: d and g are constants (chosen with the published test curves in sight), a curve
counts as few independent points, because its residuals wander, and q is 1.645, the 90% point of the normal
distribution, or more where curves that were left out of the fit say so: then it is the 90% point of their errors in
parts of their bars.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mpl.laws import Law
from mpl.prior import folds, shape_prior
from mpl.problem import Problem, solve
from mpl.solve import Prior
from mpl.terms import Terms
from train.schedules import Array

COVER = 0.9
NORMAL = 1.645
LAW_ERROR = 1.5e-3
"""Published mean relative errors on curves that were not fitted are 1.1 to 1.7e-3 (arXiv:2503.12811)."""
GAIN_ERROR = 0.05
"""The part of what the LR's falls have earned by which the law errs."""
INDEPENDENT = 7.0
"""Independent points that a curve is worth: residuals keep their sign for about a seventh of a curve."""
SHAPE_WIDTH, LOOSE_WIDTH = 0.25, 10.0
"""Prior standard deviations of log shape parameters, and of the logs of the others, which keep the matrix regular."""


@dataclass(frozen=True)
class Bars:
    """The covariance of the log-parameters [k, k] and the factor q."""

    covariance: Array
    factor: float

    def relative(self, law: Law, parameters: Array, terms: Terms) -> Array:
        """Return the half-width of the bars, in parts of the loss, at each point: [n]."""
        return self.factor * spread(law, parameters, self.covariance, terms)


def covariance(law: Law, parameters: Array, problem: Problem) -> Array:
    """Return the covariance of the log-parameters where residuals are the law's error and few are independent."""
    loss, jacobian = problem.jacobian(law, parameters)
    weight = np.concatenate([np.full(count, min(INDEPENDENT / count, 1.0)) for count in problem.counts])
    rows = jacobian / loss[:, None] * np.sqrt(weight)[:, None] / LAW_ERROR
    widths = [SHAPE_WIDTH if name in law.shape else LOOSE_WIDTH for name in law.parameters]
    inverse: Array = np.linalg.inv(rows.T @ rows + np.diag(np.array(widths) ** -2.0))
    return (inverse + inverse.T) / 2


def spread(law: Law, parameters: Array, covariance: Array, terms: Terms) -> Array:
    loss, jacobian = law.jacobian(parameters, terms)
    rows = jacobian / loss[:, None]
    variance = np.einsum("ij,jk,ik->i", rows, covariance, rows) + LAW_ERROR**2
    if "B" in law.parameters:
        falls = replace(terms, weight=np.maximum(terms.weight, 0.0))
        variance += (GAIN_ERROR * law.gain(parameters, falls) / loss) ** 2
    deviation: Array = np.sqrt(variance)
    return deviation


def calibrate(law: Law, problem: Problem, width: float | None, parameters: Array) -> Bars:
    """Return the bars of a fit; refits the law without each curve."""
    ratios = [_ratios(law, fitted, left, shape_prior(law, width)) for fitted, left in folds(law, problem)]
    factor = max(NORMAL, float(np.quantile(np.concatenate(ratios), COVER)))
    return Bars(covariance(law, parameters, problem), factor)


def _ratios(law: Law, fitted: Problem, left: Problem, prior: Prior) -> Array:
    """Return the errors at what was left out, in parts of their spread."""
    end = solve(law, fitted, prior)[0].parameters
    error = np.abs(left.log_loss - np.log(left.loss(law, end)))
    ratios: Array = error / (left.spread @ spread(law, end, covariance(law, end, fitted), left.terms))
    return ratios
