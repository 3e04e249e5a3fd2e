"""Fit a law to curves, and what a fit knows: parameters, how it went, predictions with error bars."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpl import jsontext
from mpl.bars import Bars, calibrate
from mpl.curve import Curve, check_lrs, check_names
from mpl.dense import loss_at, loss_everywhere
from mpl.errors import MplError
from mpl.jsontext import number
from mpl.laws import LAWS, Law, law_of, to_logs
from mpl.metrics import Metrics
from mpl.prior import TAIL, choose_width, curves_left_out, folds, scores, shape_prior
from mpl.problem import DELTA, Problem, after_warmup, at_limits, check_converged, random_starts, solve
from mpl.solve import huber
from mpl.terms import Changes, Ints, first_peak
from train.schedules import Array

DEFAULT_LAW = "mpl_risk"
FORMAT = 3
LEAST_WIDTH = 1e-9
DENSE = 1 / 8
"""With more points than this part of the steps, it takes less time to find the loss at every step."""
MOST_BARS, BAR_POINTS = 1000, 400
"""Up to so many steps each has its own bars; of more so many have, and between them bars are interpolated."""


@dataclass(frozen=True)
class Prediction:
    """The loss after each of some steps, and the ends of its 90% error bars; these are NaN without any."""

    step: Ints
    loss: Array
    lower: Array
    upper: Array


@dataclass(frozen=True)
class FitResult:
    """A law with its parameters, and how they were found; `objective` is the Huber loss without the prior's share."""

    law: Law
    log_parameters: Array
    objective: float = float("nan")
    success: bool = True
    message: str = "given"
    evaluations: int = 0
    starts: tuple[float, ...] = ()
    """The objective that each start reached on a few points."""
    shape_prior: float | None = None
    prior_scores: Mapping[float, float] = field(default_factory=dict)
    """The mean relative error, on curves that were left out, with each width of the prior."""
    metrics: Mapping[str, Metrics] = field(default_factory=dict)
    bars: Bars | None = None
    least_lr: float = 0.0
    """The smallest LR after the warm-up in the fitted curves, in parts of their peak."""
    peaks: tuple[float, float] | None = None
    """The smallest and the largest peak LR of the fitted curves, where they are known."""

    @staticmethod
    def given(law: str, parameters: Mapping[str, float] | Sequence[float]) -> FitResult:
        """Return a result with parameters that are known from elsewhere, such as published ones."""
        return FitResult(law_of(law), to_logs(law_of(law), parameters))

    @property
    def parameters(self) -> dict[str, float]:
        return dict(zip(self.law.parameters, np.exp(self.log_parameters).tolist(), strict=True))

    def predict(self, lrs: Array, steps: Ints | None = None) -> Prediction:
        """Return the loss at the given rising steps, or at every step, of a schedule with one LR a step.

        The loss is infinite where the sum of the LRs so far is 0 or next to it, and has no bars there.
        """
        lrs = check_lrs("the schedule", lrs)
        changes = Changes(lrs)
        at = np.arange(len(lrs)) if steps is None else np.asarray(steps, dtype=np.int64)
        if len(at) and not (at[0] >= 0 and at[-1] < len(lrs) and (np.diff(at) > 0).all()):
            raise MplError(f"steps must rise from 0 at least to {len(lrs) - 1} at most: {at[:9].tolist()}")
        if len(at) > DENSE * len(lrs):
            loss = loss_everywhere(self.law, self.log_parameters, changes)[at]
        else:
            loss = loss_at(self.law, self.log_parameters, changes, at)
        some = np.arange(len(at))
        if len(at) > MOST_BARS:
            some = np.unique(np.linspace(0, len(at) - 1, BAR_POINTS).round().astype(np.int64))
        probes = at[some[(changes.before[at[some] + 1] > 0) & np.isfinite(loss[some])]]
        if self.bars is None or not len(probes):
            return Prediction(at, loss, np.full_like(loss, np.nan), np.full_like(loss, np.nan))
        half = self.bars.relative(self.law, self.log_parameters, changes.terms(probes))
        with np.errstate(over="ignore"):
            width = np.where(np.isinf(loss), np.nan, np.abs(loss)) * np.interp(at, probes, half)
        return Prediction(at, loss, np.maximum(loss - width, 0), loss + width)

    def evaluate(self, curve: Curve) -> Metrics:
        """Compare the prediction with a curve, from the end of its warm-up on."""
        settled = after_warmup(curve)
        return Metrics.of(self.predict(settled.lrs, settled.step).loss, settled.loss)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types; numbers keep every bit."""
        bars = self.bars and {
            "covariance": self.bars.covariance.tolist(),
            "residual": self.bars.residual,
            "rivals": {name: logs.tolist() for name, logs in self.bars.rivals.items()},
            "factor": self.bars.factor,
            "reach": self.bars.reach,
            "growth": self.bars.growth,
        }
        return {
            "format": FORMAT,
            "law": self.law.name,
            "parameters": self.parameters,
            "log_parameters": self.log_parameters.tolist(),
            "objective": self.objective,
            "success": self.success,
            "message": self.message,
            "evaluations": self.evaluations,
            "starts": list(self.starts),
            "shape_prior": self.shape_prior,
            "prior_scores": [[width, score] for width, score in self.prior_scores.items()],
            "metrics": {name: metrics.as_dict() for name, metrics in self.metrics.items()},
            "bars": bars,
            "least_lr": self.least_lr,
            "peaks": self.peaks,
        }

    def save(self, path: Path) -> None:
        jsontext.write(path, self.as_dict())

    @staticmethod
    def load(path: Path) -> FitResult:
        """Read what `save` wrote, or {"law": ..., "parameters": {...}}; raise MplError for anything else."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            law = law_of(values["law"])
            logs = to_logs(law, values["parameters"])
            if "log_parameters" not in values:
                return FitResult(law, logs)
            if values["format"] != FORMAT:
                raise MplError(f"its format is {values['format']}, and this version reads {FORMAT}")
            exact = np.array(values["log_parameters"], dtype=np.float64).reshape(logs.shape)
            if not np.allclose(exact, logs, rtol=0, atol=1e-9):
                raise MplError("its parameters were changed: such a file may hold only `law` and `parameters`")
            return FitResult(
                law,
                exact,
                objective=number(values["objective"]),
                bars=None if values["bars"] is None else _bars(law, values["bars"]),
                starts=tuple(map(number, values["starts"])),
                prior_scores={float(width): number(score) for width, score in values["prior_scores"]},
                metrics={
                    name: Metrics(**{key: number(value) for key, value in one.items()})
                    for name, one in values["metrics"].items()
                },
                least_lr=float(values["least_lr"]),
                peaks=values["peaks"] and (float(values["peaks"][0]), float(values["peaks"][1])),
                **{name: values[name] for name in PLAIN},
            )
        except OSError as error:
            raise MplError(f"cannot read the fit {path}: {error.strerror or error}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else error
            raise MplError(f"{path} is no fit: {said}; `python -m mpl fit` writes one") from error


def _bars(law: Law, values: Mapping[str, Any]) -> Bars:
    size = len(law.parameters)
    rivals = {
        name: np.array(logs, dtype=np.float64).reshape(len(law_of(name).parameters))
        for name, logs in values["rivals"].items()
    }
    values = {**values, "factor": np.inf if values["factor"] is None else values["factor"]}
    numbers = {name: float(values[name]) for name in ("residual", "factor", "reach", "growth")}
    covariance = np.array(values["covariance"], dtype=np.float64).reshape(size, size)
    return Bars(covariance=covariance, rivals=rivals, **numbers)


PLAIN = ("success", "message", "evaluations", "shape_prior")


def fit(
    curves: Sequence[Curve],
    law: str = DEFAULT_LAW,
    shape_prior_width: float | str | None = "auto",
    delta: float = DELTA,
    starts: int = 0,
    seed: int = 0,
    error_bars: bool = True,
) -> FitResult:
    """Fit a law to the points of all curves after their warm-ups.

    `shape_prior_width` is the standard deviation of the prior on the logs of the law's shape parameters: "auto"
    chooses it from these curves (see mpl.prior), None is the bare optimum. `delta` is where the Huber loss of log
    residuals turns linear. `starts` random starts, from `seed`, join those that are always tried.
    """
    chosen, problem = law_of(law), make_problem(law, curves, delta)
    if starts < 0:
        raise MplError(f"the number of random starts is {starts}: 0 or more are needed")
    found: dict[float, float] = {}
    if shape_prior_width == "auto":
        width, found = choose_width(chosen, problem)
    else:
        width = None if shape_prior_width is None else float(shape_prior_width)
        if width is not None and not LEAST_WIDTH <= width < np.inf:
            raise MplError(
                f"the width of the shape prior is {width}: a number from {LEAST_WIDTH:g} on, auto or none is needed"
            )
    end, objectives = solve(chosen, problem, shape_prior(chosen, width), random_starts(chosen, problem, starts, seed))
    loss = problem.loss(chosen, end.parameters)
    ends, peaks = np.cumsum(problem.counts)[:-1], [float(curve.lrs.max()) for curve in curves]
    pairs = zip(curves, np.split(loss, ends), np.split(np.exp(problem.log_loss), ends), strict=True)
    return FitResult(
        law=chosen,
        log_parameters=end.parameters,
        objective=huber(problem.log_loss - np.log(loss), delta),
        success=end.success,
        message=", ".join((end.message, *at_limits(chosen, problem, end.parameters))),
        evaluations=end.evaluations,
        starts=tuple(objectives),
        shape_prior=width,
        prior_scores=found,
        metrics={curve.name: Metrics.of(predicted, measured) for curve, predicted, measured in pairs},
        bars=calibrate(chosen, problem, width, end.parameters) if error_bars else None,
        peaks=(min(peaks), max(peaks)),
        least_lr=min(float(curve.lrs[first_peak(curve.lrs) :].min() / curve.lrs.max()) for curve in curves),
    )


def make_problem(law: str, curves: Sequence[Curve], delta: float = DELTA) -> Problem:
    """Return what a fit minimises; raise MplError where the curves cannot tell the law's parameters."""
    chosen = law_of(law)
    if not curves:
        raise MplError("no curves: at least one is needed")
    check_names(curves)
    for curve in curves:
        check_converged(curve)
    if not 0 < delta < np.inf:
        raise MplError(f"delta is {delta}: a positive number is needed")
    problem = Problem.of(curves, delta)
    if len(problem.log_loss) < len(chosen.parameters):
        raise MplError(f"{len(problem.log_loss)} points for the {len(chosen.parameters)} parameters of {law}")
    if "B" in chosen.parameters and not problem.changes():
        raise MplError(
            f"in {', '.join(curve.name for curve in curves)} the LR never falls after the warm-up: "
            f"law {law} needs a curve where it does"
        )
    return problem


def select(curves: Sequence[Curve], laws: Sequence[str] = tuple(LAWS)) -> dict[str, float]:
    """Return the mean relative error of each law on what is left out of its fit (`left_out`), the best law first."""
    chosen = [(law_of(law), make_problem(law, curves)) for law in laws]
    found = {}
    for law, problem in chosen:
        width = choose_width(law, problem)[0]
        found[law.name] = scores(law, folds([law for law, _ in chosen], problem), [width])[0][0]
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def left_out(curves: Sequence[Curve], laws: Sequence[str]) -> str:
    """Return in words what the laws are compared on, the same for all of them."""
    count = len(curves_left_out([law_of(law) for law in laws], Problem.of(curves)))
    if not count:
        return f"the last {1 - TAIL:.0%} of each curve, left out of the fit"
    return f"curves left out of the fit, {count} of {len(curves)}"
