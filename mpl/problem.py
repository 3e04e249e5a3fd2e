"""What a fit minimises: curves as terms, starting points, and one descent from coarse to fine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from mpl.curve import Curve
from mpl.errors import MplError
from mpl.laws import Law
from mpl.panels import interpolation
from mpl.solve import Prior, Solution, Task, minimise
from mpl.terms import Ints, Terms, compress, concatenate, first_peak
from train.schedules import Array

DELTA = 2e-3
"""Where the Huber loss of log residuals turns from square to linear: the usual 1.345 times the error, here 1.5e-3, that
of the law on other curves (arXiv:2503.12811: 1.1 to 1.7e-3). The published fits have 1e-3."""
DIVERGED = 2.0
"""A loss that is so many times that after the warm-up is one of a diverged run."""
COARSE_POINTS = 12
"""Points of a curve from which a first descent sets out."""
MANY_POINTS = 2000
"""The most points of a curve before the last descent, which is to all of them."""
COARSE_TOLERANCE, HELD_TOLERANCE, SINGLE_TOLERANCE, TOLERANCE = 1e-3, 1e-5, 3e-6, 1e-7
"""In single precision an objective is uncertain by about SINGLE_TOLERANCE of it."""
ALIKE = 1e-2
"""Objectives that differ by no more, in parts, are those of one minimum."""
MOST_STARTS, SEED = 12, 2**31
NEAR, FAR = 1e-4, 1e-3
"""Damping to begin with near an optimum, and from a start."""
ALPHAS = np.geomspace(0.1, 1.5, 12)
"""Exponents of the power law to start with."""
BOX = {"beta": (1e-2, 1e3), "gamma": (1e-3, 10.0)}
"""Where these stay: gamma = 0 and an infinite beta (an exponential response) are limits of the law, after which the
logs would run for ever, and hold up all others on the way."""
LEAST_L0 = 1e-6
"""Where L0 stays, in parts of the least loss: curves that still fall as a power of the area ask for 0."""
HOLD = 1e-6
"""The precision with which the response is held at first."""


@dataclass(frozen=True)
class Problem:
    """The points of some curves, all that a law needs to predict them, and the logs of their losses."""

    terms: Terms
    """Those of the points, in part, from which all others are interpolated (see mpl.panels)."""
    spread: csr_array
    """The matrix that does this: [points, points with terms]."""
    log_loss: Array
    counts: tuple[int, ...]
    peak: float
    whole_area: float
    whole_steps: int
    delta: float

    @staticmethod
    def of(curves: Sequence[Curve], delta: float = DELTA) -> Problem:
        settled = [after_warmup(curve) for curve in curves]
        needed, spread = interpolation([(curve.lrs, curve.step) for curve in settled])
        parts = [compress(curve.lrs, curve.step[points]) for curve, points in zip(settled, needed, strict=True)]
        return Problem(
            terms=concatenate(parts),
            spread=spread,
            log_loss=np.log(np.concatenate([curve.loss for curve in settled])),
            counts=tuple(len(curve.step) for curve in settled),
            peak=max(float(curve.lrs.max()) for curve in settled),
            whole_area=max(float(curve.lrs.sum()) for curve in settled),
            whole_steps=max(len(curve.lrs) for curve in settled),
            delta=delta,
        )

    def loss(self, law: Law, parameters: Array) -> Array:
        """Return the law's loss at each point."""
        found: Array = self.spread @ law.loss(parameters, self.terms)
        return found

    def jacobian(self, law: Law, parameters: Array) -> tuple[Array, Array]:
        """Return it with its derivatives: [points], [points, parameters]."""
        loss, jacobian = law.jacobian(parameters, self.terms)
        together = self.spread @ np.column_stack((loss, jacobian))
        return together[:, 0], together[:, 1:]

    def take(self, points: Ints) -> Problem:
        ends = np.cumsum(self.counts)
        counts = np.diff(np.concatenate(([0], np.searchsorted(points, ends))))
        rows = self.spread[points]
        needed = np.unique(rows.indices)
        return replace(
            self,
            terms=self.terms.take(needed),
            spread=rows[:, needed],
            log_loss=self.log_loss[points],
            counts=tuple(counts.tolist()),
        )

    def single(self) -> Problem:
        """Return it in single precision: right to 1e-6 of a loss, in half the time."""
        return replace(self, terms=self.terms.single())

    def thinned(self, points: int) -> Problem:
        """Return about so many points of each curve, evenly spread."""
        return self.take(self._even(points))

    def _even(self, points: int) -> Ints:
        starts = np.cumsum(self.counts) - self.counts
        parts = [
            start + np.unique(np.linspace(0, count - 1, min(points, count)).round().astype(np.int64))
            for start, count in zip(starts, self.counts, strict=True)
        ]
        return np.concatenate(parts)

    def coarse(self) -> Problem:
        """Return a few points of each curve, evenly spread, of those that are not interpolated."""
        known = np.flatnonzero(np.diff(self.spread.indptr) == 1)
        wanted = self._even(COARSE_POINTS)
        later = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
        nearer = later - (wanted - known[later - 1] < known[later] - wanted)
        return self.take(np.unique(known[nearer]))

    def without(self, curve: int) -> tuple[Problem, Problem]:
        """Return the other curves, and this one."""
        owner = np.repeat(np.arange(len(self.counts)), self.counts)
        return self.kept(owner != curve), self.kept(owner == curve)

    def tails(self, part: float) -> tuple[Problem, Problem]:
        """Return the first `part` of each curve's points, and the rest."""
        first = np.concatenate([np.arange(count) < round(part * count) for count in self.counts])
        return self.kept(first), self.kept(~first)

    def kept(self, mask: Array) -> Problem:
        """Return the points at which `mask` is true; curves that have none of them are left out."""
        kept = self.take(np.flatnonzero(mask))
        return replace(kept, counts=tuple(count for count in kept.counts if count))

    def changes(self) -> bool:
        """Whether some LR has fallen after the warm-up: without that, nothing says what a drop earns."""
        return bool((self.terms.weight > 0).any())


def after_warmup(curve: Curve) -> Curve:
    """Return the points from the LR's first peak on: before it no law holds."""
    peak = first_peak(curve.lrs)
    settled = curve.part(np.flatnonzero(curve.step >= peak))
    if len(settled.step) < 2:
        raise MplError(f"{curve.name}: {len(settled.step)} points after the LR's peak at step {peak}: 2 are needed")
    return settled


def check_converged(curve: Curve) -> None:
    """Raise MplError for a run that has diverged: no law holds there."""
    settled = after_warmup(curve)
    first, worst = settled.loss[:3].max(), int(np.argmax(settled.loss))
    if settled.loss[worst] > DIVERGED * first:
        raise MplError(
            f"{curve.name}: the loss at step {settled.step[worst]} is {settled.loss[worst]:.4g}, and was {first:.4g} "
            "after the warm-up: a diverged run has no curve; cut it before that or leave it out"
        )


def descend(
    law: Law, problem: Problem, prior: Prior, start: Array, tolerance: float = TOLERANCE, damping: float = NEAR
) -> Solution:
    task = Task(
        lambda parameters: problem.loss(law, parameters),
        lambda parameters: problem.jacobian(law, parameters),
        problem.log_loss,
        prior,
        problem.delta,
        *walls(law, problem).T,
    )
    return minimise(task, start, tolerance=tolerance, damping=damping)


def walls(law: Law, problem: Problem) -> Array:
    """Return the logs between which each parameter stays: [parameters, 2]."""
    box = BOX | {"L0": (LEAST_L0 * float(np.exp(problem.log_loss.min())), 1e300)}
    found: Array = np.log([box.get(name, (1e-300, 1e300)) for name in law.parameters])
    return found


def at_limits(law: Law, problem: Problem, parameters: Array) -> list[str]:
    """Return a remark on each parameter that ends at a wall of its box."""
    near = np.abs(parameters[:, None] - walls(law, problem)).min(axis=1) < 1e-9
    ended = np.flatnonzero(near)
    return [f"{law.parameters[index]} is at its limit of {np.exp(parameters[index]):.3g}" for index in ended]


def settle(law: Law, problem: Problem, prior: Prior, start: Array, tolerance: float = TOLERANCE) -> Solution:
    """Descend from any start: first with the response held near it, as far-off levels would tear that away."""
    held = np.array([0.0 if name in ("L0", "A", "alpha", "B") else HOLD for name in law.parameters])
    first = descend(law, problem, Prior(start, held), start, HELD_TOLERANCE, FAR)
    then = descend(law, problem, prior, first.parameters, tolerance, FAR)
    return replace(then, evaluations=first.evaluations + then.evaluations)


def solve(law: Law, problem: Problem, prior: Prior, others: Iterable[Array] = ()) -> tuple[Solution, list[float]]:
    """Descend from several starts on a few points, from the best end on more, and at last on all in full precision.

    Starts are tried until two of them have come to the best end, or there are MOST_STARTS of them; `others` are tried
    in any case. Returns also the objective that each start reached on the few.
    """
    coarse = problem.coarse().single()
    ends: list[Solution] = []
    for start in default_starts(law, coarse):
        ends.append(descend(law, coarse, prior, start, COARSE_TOLERANCE, FAR))
        if _agree(ends):
            break
    for start in random_starts(law, coarse, MOST_STARTS - len(ends), SEED):
        if _agree(ends):
            break
        ends.append(settle(law, coarse, prior, start, COARSE_TOLERANCE))
    ends += [settle(law, coarse, prior, start, COARSE_TOLERANCE) for start in others]
    objectives = [end.objective for end in ends]
    best = ends[int(np.argmin(objectives))]
    for part, tolerance in ((problem.thinned(MANY_POINTS).single(), SINGLE_TOLERANCE), (problem, TOLERANCE)):
        best = descend(law, part, prior, best.parameters, tolerance)
        ends.append(best)
    evaluations = sum(end.evaluations for end in ends)
    return replace(best, evaluations=evaluations), objectives


def _agree(ends: Sequence[Solution]) -> bool:
    """Whether the best end was reached twice."""
    objectives = sorted(end.objective for end in ends)
    return len(ends) > 1 and objectives[1] <= (1 + ALIKE) * objectives[0]


def default_starts(law: Law, problem: Problem) -> Iterator[Array]:
    """Yield the centre of the shapes at three speeds of response, with the best L0, A, alpha and B for each."""
    for speed in (30.0, 300.0, 3000.0):
        yield linear_start(law, problem, _guess(law, problem, speed))


def random_starts(law: Law, problem: Problem, count: int, seed: int) -> Iterator[Array]:
    """Yield log-uniform parameters from wide ranges."""
    rng = np.random.default_rng(seed)
    least, most = float(np.exp(problem.log_loss.min())), float(np.exp(problem.log_loss.max()))
    for _ in range(count):
        guess = _guess(law, problem, 10 ** rng.uniform(0, 4))
        guess["L0"] = least * rng.uniform(0.3, 1.0)
        guess["A"] = (most - 0.5 * least) * rng.uniform(0.1, 1.0) * problem.whole_area ** rng.uniform(0, 0.5)
        guess["alpha"] = rng.uniform(0.1, 1.0)
        guess["B"] = least / problem.peak * 10 ** rng.uniform(-2.5, -0.5) / (least if law.risk else 1.0)
        guess["beta"], guess["gamma"] = rng.uniform(0.1, 1.5), rng.uniform(0.1, 1.1)
        yield np.log([guess[name] for name in law.parameters])


def _guess(law: Law, problem: Problem, speed: float) -> dict[str, float]:
    shape = dict(law.shape)
    exponent = shape.get("gamma", 0.0)
    c = speed * problem.peak**exponent / problem.whole_area
    return {"L0": 1.0, "A": 1.0, "alpha": 0.5, "B": 1.0, "C": c, "rate": speed / problem.whole_steps, **shape}


def linear_start(law: Law, problem: Problem, guess: dict[str, float]) -> Array:
    """Return the guess with those L0, A and B that fit best by least squares, kept positive, for the best of ALPHAS."""
    parameters = np.log([guess[name] for name in law.parameters])
    loss = np.exp(problem.log_loss)
    plain = Law(law.name, law.parameters)
    linear = [0, 1, 3] if "B" in law.parameters else [0, 1]
    # With all of them 1, the derivatives by their logs are what they multiply.
    columns = problem.jacobian(plain, parameters)[1][:, linear] / loss[:, None]
    log_power = np.log(columns[:, 1] * loss) / np.exp(parameters[2])
    least = np.array([0.1 * loss.min(), 1e-3 * loss.min(), 1e-3 * loss.min() / problem.peak])[: len(linear)]
    tried = np.repeat(columns[None], len(ALPHAS), axis=0)
    tried[:, :, 1] = np.exp(ALPHAS[:, None] * log_power) / loss
    found = np.maximum(np.linalg.pinv(tried).sum(axis=-1), least)
    best = np.argmin(((tried @ found[:, :, None] - 1) ** 2).sum(axis=(1, 2)))
    parameters[linear], parameters[2] = np.log(found[best]), np.log(ALPHAS[best])
    if law.risk:
        parameters[3] -= np.log(loss.mean())
    return parameters
