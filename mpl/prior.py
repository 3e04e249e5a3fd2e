"""A prior on the shape of the response, as strong as the training curves bear.

The free optimum of the law on a few curves fits them better than it predicts others: beta and gamma, which shape the
response, follow what the law leaves out. So both are drawn to a centre, beta = 0.6 and gamma = 1/2: the published
fits of three model sizes have beta 0.58 to 0.60 and gamma 0.63 to 0.66, and gamma = 1/2 is as good within what those
curves tell. A prior says how far, as the standard deviation of log beta and log gamma, and its strength is chosen
from the training curves alone: the strongest one with which curves that are left out are predicted as well as with
the best one within the standard error of that (the rule of Breiman et al., Classification and Regression Trees, 1984),
or as well as the law is known to hold at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpl.laws import Law
from mpl.problem import Problem, descend, solve
from mpl.solve import Prior
from train.schedules import Array

RESIDUAL = 1e-3
"""The standard deviation of residuals in the prior's view: what one point tells against it."""
WIDTHS = (0.02, 0.1, 0.25, 0.5, 1.0, 3.0)
"""Standard deviations to choose from."""
KNOWN_ERROR = 2.5e-3
"""Mean relative error: differences below it are no evidence, as the law itself errs by 1 to 2e-3 (arXiv:2503.12811)."""
SCORE_POINTS = 40
"""Points of a curve with which widths are compared."""
TAIL = 0.6
"""The part of each curve that is fitted where curves are too few to leave one out."""


def shape_prior(law: Law, width: float | None) -> Prior:
    """Return the prior of a width; None is no prior."""
    centre, precision = np.zeros(len(law.parameters)), np.zeros(len(law.parameters))
    if width is not None:
        for name, value in law.shape.items():
            index = law.parameters.index(name)
            centre[index], precision[index] = np.log(value), (RESIDUAL / width) ** 2
    return Prior(centre, precision)


Fold = tuple[Problem, Problem]
"""What is fitted, and what is left out."""


def folds(laws: Sequence[Law], problem: Problem) -> list[Fold]:
    """Return folds that each of the laws can be fitted to: each curve left out once, or else the end of each."""
    few = problem.thinned(SCORE_POINTS).single()
    return curves_left_out(laws, few) or [few.tails(TAIL)]


def curves_left_out(laws: Sequence[Law], problem: Problem) -> list[Fold]:
    """Return a fold for each curve without which there are two, one with a drop of the LR where a law needs that."""
    pairs = [problem.without(curve) for curve in range(len(problem.counts))] if len(problem.counts) > 2 else []
    needs_drop = any("B" in law.parameters for law in laws)
    return [pair for pair in pairs if not needs_drop or pair[0].changes()]


def scores(law: Law, pairs: Sequence[Fold], widths: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Return the mean relative error of what is left out, with each width, and its standard error over what it was."""
    errors = np.zeros((len(widths), len(pairs)))
    for j, (fitted, left) in enumerate(pairs):
        start: Array | None = None
        for i, width in enumerate(widths):
            prior = shape_prior(law, width)
            end = descend(law, fitted, prior, start, 1e-5) if start is not None else solve(law, fitted, prior)[0]
            start = end.parameters
            errors[i, j] = np.abs(left.loss(law, start) / np.exp(left.log_loss) - 1).mean()
    spread = errors.std(axis=1, ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else np.zeros(len(widths))
    return errors.mean(axis=1).tolist(), spread.tolist()


def choose_width(law: Law, problem: Problem) -> tuple[float | None, dict[float, float]]:
    """Return the width, None for a law that has no shape, and the score of each."""
    if not law.shape:
        return None, {}
    found, spread = scores(law, folds([law], problem), WIDTHS)
    best = int(np.argmin(found))
    allowed = max(found[best] + spread[best], KNOWN_ERROR)
    width = next(width for width, score in zip(WIDTHS, found, strict=True) if score <= allowed)
    return width, dict(zip(WIDTHS, found, strict=True))
