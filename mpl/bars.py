"""Error bars of a predicted loss that count what the law leaves out.

The half-width is, in parts of the loss, q sqrt(p^2 + e^2 + r^2 + h^2): p is the uncertainty of the parameters, e how
far other laws that are fitted to the same curves predict otherwise, r what the fit leaves of the curves, by which
another curve will differ too, and h how far the power law errs beyond the LR area that the curves reach: it grows with
the logarithm of the area, as fast as errors do where it is fitted to the first parts of the same curves. So bars widen
where a prediction hangs on the form of the law. q is the 90% point of the errors, in these units, at curves that are
left out of the fit, and at least 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mpl.laws import LAWS, Law
from mpl.prior import SCORE_POINTS, folds, shape_prior
from mpl.problem import FAR, MANY_POINTS, Problem, descend, solve
from mpl.solve import Prior
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
FIRST_PARTS = (1 / 3, 1 / 2)
"""Parts of the LR area from which the rest is foretold, to see how errors grow beyond it."""
HELD = 1e3
"""The precision with which the response is held there."""


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
    reach: float
    """The largest LR area of the curves."""
    growth: float
    """The relative error for each factor e of the area beyond that."""

    @staticmethod
    def of(law: Law, problem: Problem, parameters: Array, rivals: Mapping[str, Array], growth: float) -> Bars:
        """Return the bars of a fit to some curves, with the factor 1."""
        residual = problem.log_loss - np.log(problem.loss(law, parameters))
        scale = float(np.sqrt((residual**2).mean()))
        spread = covariance(law, parameters, problem, scale)
        return Bars(spread, scale, rivals, 1.0, float(problem.terms.area.max()), growth)

    def relative(self, law: Law, parameters: Array, terms: Terms) -> Array:
        """Return the half-width of the bars, in parts of the loss, at each point: [n]."""
        loss, jacobian = law.jacobian(parameters, terms)
        rows = jacobian / loss[:, None]
        # Where residuals are next to nothing the covariance is exact to less than itself.
        variance = np.maximum(np.einsum("ij,jk,ik->i", rows, self.covariance, rows), 0.0) + self.residual**2
        others = [LAWS[name].loss(logs, terms) / loss - 1 for name, logs in self.rivals.items()]
        if others:
            variance += np.mean(np.square(others), axis=0)
        variance += (self.growth * np.log(np.maximum(terms.area / self.reach, 1.0))) ** 2
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


def growth_of(law: Law, parameters: Array, problem: Problem) -> float:
    """Return how fast errors grow, in parts of the loss for each factor e of the LR area, beyond what was fitted.

    Found by fitting the power law to the first parts of the same curves, with the response as it is.
    """
    few = problem.thinned(SCORE_POINTS)
    area = few.spread @ few.terms.area
    main = np.array([0.0 if name in ("L0", "A", "alpha") else HELD for name in law.parameters])
    errors, beyond = [np.zeros(0)], [np.zeros(0)]
    for part in FIRST_PARTS:
        is_first = area <= part * area.max()
        if is_first.sum() > len(law.parameters) and not is_first.all():
            end = descend(law, few.kept(is_first), Prior(parameters, main), parameters, FOLD_TOLERANCE, FAR)
            errors.append((few.log_loss - np.log(few.loss(law, end.parameters)))[~is_first])
            beyond.append(np.log(area / (part * area.max()))[~is_first])
    error, log_area = np.concatenate(errors), np.concatenate(beyond)
    return float(np.sqrt((error @ error) / (log_area @ log_area))) if len(error) else 0.0


def calibrate(law: Law, problem: Problem, width: float | None, parameters: Array) -> Bars:
    """Return the bars of a fit; fits other laws too, and all of them without each curve."""
    rivals, some = {}, problem.thinned(MANY_POINTS)
    for name in RIVALS:
        rival = LAWS[name]
        if name != law.name and problem.changes() and len(rival.parameters) <= len(problem.log_loss):
            end = solve(rival, some, shape_prior(rival, width))[0]
            if np.isfinite(end.objective):
                rivals[name] = end.parameters
    bars = Bars.of(law, problem, parameters, rivals, growth_of(law, parameters, problem))
    ratios = [_ratios(law, fitted, left, width, bars, parameters) for fitted, left in folds([law], problem)]
    return replace(bars, factor=max(LEAST_FACTOR, _quantile(np.concatenate(ratios))))


def _quantile(ratios: Array) -> float:
    """Return the 90% point; a prediction that is no loss, such as a negative one, errs by infinitely much."""
    infinite = np.where(np.isnan(ratios), np.inf, ratios)
    with np.errstate(invalid="ignore"):  # between two infinite ones
        found = float(np.quantile(infinite, COVER))
    return np.inf if np.isnan(found) else found


def _ratios(law: Law, fitted: Problem, left: Problem, width: float | None, whole: Bars, start: Array) -> Array:
    """Return the errors at what was left out, in parts of the bars with factor 1; `whole` are those of all curves."""

    def refit(one: Law, logs: Array) -> Array:
        return descend(one, fitted, shape_prior(one, width), logs, FOLD_TOLERANCE).parameters

    end = refit(law, start)
    rivals = {name: refit(LAWS[name], logs) for name, logs in whole.rivals.items()}
    bars = Bars.of(law, fitted, end, rivals, whole.growth)
    with np.errstate(invalid="ignore", divide="ignore"):  # nan where the prediction is negative
        error = np.abs(left.log_loss - np.log(left.loss(law, end)))
    ratios: Array = error / (left.spread @ bars.relative(law, end, left.terms))
    return ratios
