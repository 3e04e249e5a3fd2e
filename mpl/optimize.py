"""The schedule that a fitted law says ends at the lowest loss, within what a user allows."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mpl import jsontext
from mpl.curve import check_lrs
from mpl.errors import MplError
from mpl.fit import FitResult, Prediction
from mpl.smooth import Before, Smooth, smooth_plans
from mpl.staircase import staircase_lrs
from mpl.terms import compress
from train.schedules import Array, schedule

KINDS = ("smooth", "staircase")
MOST_STEPS = 10**9
FAR_PEAK = 2.0
"""A peak that is so many times that of the fitted curves, or of which that is so many times, is said to be far."""
SHIFTS = 13
"""Beginnings of a bounded decay that are compared at a time."""
ILL_POSED = 1.0
"""From this gamma on, a drop to almost 0 on the last step would earn: the law says nothing about that."""


@dataclass(frozen=True)
class Optimised:
    """A schedule, and the final loss that the law expects of it with 90% error bars."""

    lrs: Array
    kind: str
    loss: float
    lower: float
    upper: float
    notes: tuple[str, ...]
    fit: FitResult
    taken: int
    """The steps before the planned ones."""
    peak: float
    floor: float
    """The least LR in parts of the peak."""

    @cached_property
    def usual(self) -> dict[str, float]:
        """The expected final loss of cosine and WSD schedules with the same steps, peak, beginning and floor."""
        plans = _usual_plans(len(self.lrs) - self.taken, self.peak, self.floor)
        return {name: float(_last(self.fit, self.lrs[: self.taken], plan).loss[0]) for name, plan in plans.items()}

    def as_dict(self) -> dict[str, Any]:
        gains = {name: loss - self.loss for name, loss in self.usual.items()}
        return {
            "kind": self.kind,
            "steps": len(self.lrs),
            "loss": self.loss,
            "lower": self.lower,
            "upper": self.upper,
            "usual": self.usual,
            "gain": gains,
            "notes": list(self.notes),
        }

    def save(self, directory: Path) -> None:
        """Write schedule.npy, schedule.csv and schedule.json, each of which python -m train takes as --schedule."""
        np.save(directory / "schedule.npy", self.lrs)
        with (directory / "schedule.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["step", "lr"])
            writer.writerows(enumerate(self.lrs.tolist()))
        knots = [[step, lr] for step, lr in enumerate(self.lrs.tolist())]
        text = jsontext.dumps({**self.as_dict(), "knots": knots})
        (directory / "schedule.json").write_text(text + "\n", encoding="utf-8")


def optimize_schedule(
    fit: FitResult,
    steps: int,
    peak: float,
    warmup: int = 0,
    floor: float | None = None,
    kind: str = "smooth",
    prefix: Array | None = None,
    max_decay: float | None = None,
    convention: str = "last",
) -> Optimised:
    """Minimise the final loss over schedules that do not rise after the warm-up.

    `floor` is the least LR in parts of the peak; by default the least that the fitted curves had, below which the law
    extrapolates. `prefix` holds the LRs of steps that have been taken, in place of a warm-up. `max_decay` bounds how
    much of itself the LR may lose in one step. `convention` is that of train.schedules, for the warm-up.
    """
    _check(fit, steps, peak, warmup, floor, kind, max_decay)
    if prefix is not None and warmup:
        raise MplError(f"a prefix is in place of a warm-up, which is {warmup} steps: give one of them")
    taken = _taken(steps, peak, warmup, prefix, convention)
    least, notes = _floor(fit, floor)
    if fit.peaks and not fit.peaks[0] / FAR_PEAK <= peak <= fit.peaks[1] * FAR_PEAK:
        notes.append(
            f"the fitted curves have peaks of {fit.peaks[0]:g} to {fit.peaks[1]:g}: far away the law is a guess"
        )
    count, lowest = steps - len(taken), least * peak
    planned, told = _smooth(fit, taken, count, peak, least)
    planned = _bounded(fit, taken, planned, max_decay)
    if kind == "staircase":
        stairs = staircase_lrs(Smooth(fit.law, fit.log_parameters, Before.of(taken, plain=0), lowest, count), peak)
        stairs = _bounded(fit, taken, stairs, max_decay)
        if _last_loss(fit, taken, stairs) <= _last_loss(fit, taken, planned):
            planned, told = stairs, []
            notes.append("a staircase uses the law's formula far from the schedules that it was fitted on")
        else:
            notes.append("no staircase was found that is lower than the smooth optimum: this is the smooth one")
    notes += told
    lrs = np.concatenate((taken, planned))
    if prefix is not None and lrs[len(taken)] > taken[-1]:
        notes.append(f"the LR rises from {taken[-1]:g}, the last one of the prefix, to {lrs[len(taken)]:g}")
    expected = fit.predict(lrs, np.array([steps - 1]))
    return Optimised(
        lrs=lrs,
        kind=kind,
        loss=float(expected.loss[0]),
        lower=float(expected.lower[0]),
        upper=float(expected.upper[0]),
        notes=tuple(notes),
        fit=fit,
        taken=len(taken),
        peak=peak,
        floor=least,
    )


def limit_decay(lrs: Array, start: float, most: float) -> Array:
    """Return the lowest LRs above `lrs` that lose at most the part `most` of themselves in one step, from `start` on.

    >>> limit_decay(np.array([1.0, 0.1, 0.1]), 1.0, 0.5).round(12).tolist()
    [1.0, 0.5, 0.25]
    >>> limit_decay(np.array([0.1, 0.1, 0.1]), 1.0, 0.5).round(12).tolist()
    [0.5, 0.25, 0.125]
    """
    slope = -np.log1p(-most) * np.arange(len(lrs) + 1)
    with np.errstate(divide="ignore"):
        raised = np.maximum.accumulate(np.log(np.concatenate(([start], lrs))) + slope) - slope
    limited: Array = np.minimum(np.exp(raised[1:]), max(start, lrs.max()))
    return limited


def _bounded(fit: FitResult, taken: Array, planned: Array, max_decay: float | None) -> Array:
    """Return the plan within the bound: begun as many steps earlier as the law says is best, its last LR at the end.

    A plan that keeps the bound stays as it is. A decay that is slower than planned has to begin earlier. How much is
    looked for from coarse to fine.
    """
    if max_decay is None:
        return planned

    def begun(earlier: int) -> Array:
        shifted = np.concatenate((planned[earlier:], np.full(earlier, planned[-1])))
        return np.minimum.accumulate(limit_decay(shifted, float(taken[-1]), max_decay))

    if (limit_decay(planned, float(taken[-1]), max_decay) <= planned * (1 + 1e-9)).all():
        return np.minimum.accumulate(planned)
    low, high = 0, len(planned) - 1
    losses: dict[int, float] = {}
    while True:
        tried = np.unique(np.linspace(low, high, SHIFTS).round().astype(int)).tolist()
        losses |= {one: _last_loss(fit, taken, begun(one)) for one in tried if one not in losses}
        best = min(losses, key=lambda one: losses[one])
        if len(tried) == high - low + 1:
            return begun(best)
        step = -(-(high - low) // (SHIFTS - 1))
        low, high = max(best - step, 0), min(best + step, len(planned) - 1)


def _smooth(fit: FitResult, taken: Array, count: int, peak: float, least: float) -> tuple[Array, list[str]]:
    """Return the smooth optimum with what is to be told of it.

    Where the closed form leaves several candidates, these and the usual schedules compete.
    """
    plans = [("", plan) for plan in smooth_plans(fit.law, fit.log_parameters, taken, count, peak, least * peak)]
    if len(plans) == 1:
        return plans[0][1], []
    plans += _usual_plans(count, peak, least).items()
    name, planned = min(plans, key=lambda plan: _worst(fit, taken, plan[1]))
    return planned, [f"no plan was found that is surely better than {name}: that is taken"] if name else []


def _usual_plans(count: int, peak: float, least: float) -> dict[str, Array]:
    # A geometric decay needs a floor above 0.
    floors = {"cosine": least, "wsd": max(least, 1e-3), "wsdld": least, "wsd_sqrt": least}
    return {name: schedule(name, count, peak, floor=floor) for name, floor in floors.items()}


def _worst(fit: FitResult, taken: Array, planned: Array) -> float:
    """Return the final loss at the end of its bar, or, of a fit without bars, as expected.

    By its loss alone the law takes an early drop for as good as its formula says; what others say of it is in the bar.
    """
    expected = _last(fit, taken, planned)
    return float((expected.loss if fit.bars is None else expected.upper)[0])


def _last(fit: FitResult, taken: Array, planned: Array) -> Prediction:
    lrs = np.concatenate((taken, planned))
    return fit.predict(lrs, np.array([len(lrs) - 1]))


def _taken(steps: int, peak: float, warmup: int, prefix: Array | None, convention: str) -> Array:
    """Return the LRs before the first step to plan, at least one."""
    if prefix is None:
        return schedule("constant", max(warmup, 1), peak, warmup, convention=convention)
    taken = check_lrs("the prefix", prefix)
    if len(taken) >= steps:
        raise MplError(f"the prefix has {len(taken)} steps, and the whole run {steps}: nothing is left to plan")
    return taken


def _last_loss(fit: FitResult, taken: Array, planned: Array) -> float:
    last = len(taken) + len(planned) - 1
    return float(fit.law.loss(fit.log_parameters, compress(np.concatenate((taken, planned)), np.array([last])))[0])


def _floor(fit: FitResult, floor: float | None) -> tuple[float, list[str]]:
    ill_posed = "gamma" in fit.law.parameters and np.exp(fit.log_parameters[-1]) >= ILL_POSED
    if ill_posed and max(fit.least_lr, floor or 0.0) == 0:
        return 0.0, [
            "gamma is above 1, where the law rewards a drop to almost 0 on the last steps: give a floor above 0"
        ]
    if floor is None:
        return fit.least_lr, []
    if floor >= fit.least_lr:
        return floor, []
    if ill_posed:
        least = max(fit.least_lr, floor)
        return least, [f"gamma is above 1, where the optimum has no lowest LR: the floor is {least:g} of the peak"]
    return floor, [f"below {fit.least_lr:g} of the peak, the least LR of the fitted curves, the law extrapolates"]


def _check(
    fit: FitResult, steps: int, peak: float, warmup: int, floor: float | None, kind: str, max_decay: float | None
) -> None:
    if fit.law.name == "power":
        raise MplError("law power knows the steps alone: no schedule is better than another; fit mpl or mpl_risk")
    if "C" not in fit.law.parameters:
        raise MplError(f"by law {fit.law.name} the best schedule is one drop: fit mpl or mpl_risk")
    if kind not in KINDS:
        raise MplError(f"the kind is {kind!r}: allowed are {', '.join(KINDS)}")
    if not (np.isfinite(peak) and peak > 0):
        raise MplError(f"the peak LR is {peak}: a finite number above 0 is needed")
    if steps > MOST_STEPS:
        raise MplError(f"{steps} steps are too many: up to {MOST_STEPS} can be planned")
    if steps < 2 or not 0 <= warmup < steps:
        raise MplError(f"the warm-up is {warmup} of {steps} steps: it must leave steps to plan")
    if floor is not None and not 0 <= floor <= 1:
        raise MplError(f"the floor is {floor}: it is a part of the peak LR, between 0 and 1")
    if max_decay is not None and not 0 < max_decay < 1:
        raise MplError(f"the largest decay is {max_decay}: it is the part of the LR lost in a step, between 0 and 1")
