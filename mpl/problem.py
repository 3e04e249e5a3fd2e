"""What a fit minimises: curves as terms, starting points, and one descent from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpl.curve import Curve
from mpl.errors import MplError
from mpl.laws import Law
from mpl.solve import Prior, Solution, minimise
from mpl.terms import Ints, Terms, compress, concatenate
from train.schedules import Array

DELTA = 2e-3
"""Where the Huber loss of log residuals turns from square to linear: the usual 1.345 times the error, here 1.5e-3 (see
mpl.bars). The published fits have 1e-3."""
COARSE_POINTS = 12
"""Points of a curve from which a first descent sets out."""
COARSE_TOLERANCE, TOLERANCE = 1e-3, 1e-7
HOLD = 1e-6
"""The precision with which the response is held at first."""


@dataclass(frozen=True)
class Problem:
    """The points of some curves, all that a law needs to predict them, and the logs of their losses."""

    terms: Terms
    log_loss: Array
    counts: tuple[int, ...]
    peak: float
    whole_area: float
    whole_steps: int
    delta: float

    @staticmethod
    def of(curves: Sequence[Curve], delta: float = DELTA) -> Problem:
        settled = [after_warmup(curve) for curve in curves]
        return Problem(
            terms=concatenate([compress(curve.lrs, curve.step) for curve in settled]),
            log_loss=np.log(np.concatenate([curve.loss for curve in settled])),
            counts=tuple(len(curve.step) for curve in settled),
            peak=max(float(curve.lrs.max()) for curve in settled),
            whole_area=max(float(curve.lrs.sum()) for curve in settled),
            whole_steps=max(len(curve.lrs) for curve in settled),
            delta=delta,
        )

    def take(self, points: Ints) -> Problem:
        ends = np.cumsum(self.counts)
        counts = np.diff(np.concatenate(([0], np.searchsorted(points, ends))))
        return replace(
            self, terms=self.terms.take(points), log_loss=self.log_loss[points], counts=tuple(counts.tolist())
        )

    def thinned(self, points: int) -> Problem:
        """Return about so many points of each curve, evenly spread."""
        starts = np.cumsum(self.counts) - self.counts
        parts = [
            start + np.unique(np.linspace(0, count - 1, min(points, count)).round().astype(np.int64))
            for start, count in zip(starts, self.counts, strict=True)
        ]
        return self.take(np.concatenate(parts))

    def without(self, curve: int) -> tuple[Problem, Problem]:
        """Return the other curves, and this one."""
        owner = np.repeat(np.arange(len(self.counts)), self.counts)
        return self._kept(owner != curve), self._kept(owner == curve)

    def tails(self, part: float) -> tuple[Problem, Problem]:
        """Return the first `part` of each curve's points, and the rest."""
        first = np.concatenate([np.arange(count) < round(part * count) for count in self.counts])
        return self._kept(first), self._kept(~first)

    def _kept(self, mask: Array) -> Problem:
        kept = self.take(np.flatnonzero(mask))
        return replace(kept, counts=tuple(count for count in kept.counts if count))

    def changes(self) -> bool:
        """Whether some LR has fallen after the warm-up: without that, nothing says what a drop earns."""
        return bool((self.terms.weight > 0).any())


def after_warmup(curve: Curve) -> Curve:
    """Return the points from the first largest LR on: before it no law holds."""
    settled = curve.part(np.flatnonzero(curve.step >= np.argmax(curve.lrs)))
    if len(settled.step) < 2:
        raise MplError(
            f"{curve.name}: {len(settled.step)} points after the LR's peak at step {np.argmax(curve.lrs)}: 2 are needed"
        )
    return settled


def descend(law: Law, problem: Problem, prior: Prior, start: Array, tolerance: float = TOLERANCE) -> Solution:
    return minimise(
        lambda parameters: law.jacobian(parameters, problem.terms),
        problem.log_loss,
        start,
        prior,
        problem.delta,
        tolerance=tolerance,
    )


def settle(law: Law, problem: Problem, prior: Prior, start: Array, tolerance: float = TOLERANCE) -> Solution:
    """Descend from any start: first with the response held near it, as far-off levels would tear that away."""
    held = np.array([0.0 if name in ("L0", "A", "alpha", "B") else HOLD for name in law.parameters])
    first = descend(law, problem, Prior(start, held), start, COARSE_TOLERANCE)
    then = descend(law, problem, prior, first.parameters, tolerance)
    return replace(then, evaluations=first.evaluations + then.evaluations)


def solve(law: Law, problem: Problem, prior: Prior, starts: Sequence[Array]) -> tuple[Solution, list[float]]:
    """Descend from every start on a few points, from the best end on all of them; return the objectives too."""
    coarse = problem.thinned(COARSE_POINTS)
    ends = [settle(law, coarse, prior, start, COARSE_TOLERANCE) for start in starts]
    objectives = [end.objective for end in ends]
    best = descend(law, problem, prior, ends[int(np.argmin(objectives))].parameters)
    evaluations = best.evaluations + sum(end.evaluations for end in ends)
    return Solution(best.parameters, best.objective, best.success, best.message, evaluations), objectives


def default_starts(law: Law, problem: Problem) -> list[Array]:
    """Return the centre of the shapes at three speeds of response, with the best L0, A and B for each."""
    coarse = problem.thinned(COARSE_POINTS)
    return [linear_start(law, coarse, _guess(law, problem, speed)) for speed in (30.0, 300.0, 3000.0)]


def random_starts(law: Law, problem: Problem, count: int, seed: int) -> list[Array]:
    """Return log-uniform parameters from wide ranges."""
    rng = np.random.default_rng(seed)
    least, most = float(np.exp(problem.log_loss.min())), float(np.exp(problem.log_loss.max()))
    starts = []
    for _ in range(count):
        guess = _guess(law, problem, 10 ** rng.uniform(0, 4))
        guess["L0"] = least * rng.uniform(0.3, 1.0)
        guess["A"] = (most - 0.5 * least) * rng.uniform(0.1, 1.0) * problem.whole_area ** rng.uniform(0, 0.5)
        guess["alpha"] = rng.uniform(0.1, 1.0)
        guess["B"] = least / problem.peak * 10 ** rng.uniform(-2.5, -0.5) / (least if law.risk else 1.0)
        guess["beta"], guess["gamma"] = rng.uniform(0.1, 1.5), rng.uniform(0.1, 1.1)
        starts.append(np.log([guess[name] for name in law.parameters]))
    return starts


def _guess(law: Law, problem: Problem, speed: float) -> dict[str, float]:
    shape = dict(law.shape)
    exponent = shape.get("gamma", 0.0)
    c = speed * problem.peak**exponent / problem.whole_area
    return {"L0": 1.0, "A": 1.0, "alpha": 0.5, "B": 1.0, "C": c, "rate": speed / problem.whole_steps, **shape}


def linear_start(law: Law, problem: Problem, guess: dict[str, float]) -> Array:
    """Return the guess with those L0, A and B that fit best by least squares, kept positive."""
    parameters = np.log([guess[name] for name in law.parameters])
    loss = np.exp(problem.log_loss)
    plain = Law(law.name, law.parameters)
    linear = [0, 1, 3] if "B" in law.parameters else [0, 1]
    # With all of them 1, the derivatives by their logs are what they multiply.
    columns = plain.jacobian(parameters, problem.terms)[1][:, linear] / loss[:, None]
    found = np.linalg.lstsq(columns, np.ones_like(loss), rcond=None)[0]
    least = np.array([0.1 * loss.min(), 1e-3 * loss.min(), 1e-3 * loss.min() / problem.peak])[: len(linear)]
    parameters[linear] = np.log(np.maximum(found, least))
    if law.risk:
        parameters[3] -= np.log(loss.mean())
    return parameters
