"""Pictures of fits, predictions and schedules; imported only where one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpl.curve import Curve
from mpl.fit import FitResult, Prediction
from mpl.optimize import Optimised
from mpl.problem import after_warmup
from mpl.terms import first_peak
from train.schedules import Array

SIZE = (11.0, 8.0)
LEGEND_COLUMNS, LEGEND_LETTERS = 4, 40
DISTINCT = 10
"""The colours of matplotlib's own cycle."""


def curves(result: FitResult, measured: Sequence[Curve], path: Path) -> None:
    """Draw losses with predictions and bars, residuals, LRs, and the table of parameters."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots(2, 2)
    loss, residuals, lrs, table = axes.ravel()
    for curve, colour in zip(map(after_warmup, measured), _colours(len(measured)), strict=True):
        predicted = result.predict(curve.lrs, curve.step)
        loss.plot(curve.step, curve.loss, ".", color=colour, markersize=2)
        loss.plot(curve.step, predicted.loss, color=colour, linewidth=1, label=_short(curve.name))
        if np.isfinite(predicted.upper).all():
            loss.fill_between(curve.step, predicted.lower, predicted.upper, color=colour, alpha=0.15, linewidth=0)
        residuals.plot(curve.step, predicted.loss - curve.loss, color=colour, linewidth=1)
        lrs.plot(curve.lrs, color=colour, linewidth=1)
    _label(loss, "loss: measured (dots), predicted, 90% bars", "loss")
    figure.legend(loc="outside lower center", fontsize=7, ncols=LEGEND_COLUMNS)
    residuals.axhline(0, color="black", linewidth=0.5)
    _label(residuals, "predicted - measured", "loss")
    _label(lrs, "schedules", "learning rate")
    table.axis("off")
    cells = [[name, f"{value:.5g}"] for name, value in result.parameters.items()]
    table.table(cellText=cells, colLabels=[result.law.name, "value"], loc="center")
    figure.savefig(path, dpi=120)


def prediction(predicted: Prediction, lrs: Array, path: Path) -> None:
    """Draw a predicted curve over its schedule."""
    figure = Figure(figsize=(SIZE[0], SIZE[1] / 2), layout="constrained")
    loss, below = figure.subplots(1, 2)
    shown = predicted.step >= first_peak(lrs)
    loss.plot(predicted.step[shown], predicted.loss[shown], color="C0")
    if np.isfinite(predicted.upper).any():
        bars = (predicted.lower[shown], predicted.upper[shown])
        loss.fill_between(predicted.step[shown], *bars, color="C0", alpha=0.2, linewidth=0)
    _label(loss, "predicted loss after the warm-up, 90% bars", "loss")
    below.plot(lrs, color="C0")
    _label(below, "schedule", "learning rate")
    figure.savefig(path, dpi=120)


def schedule(found: Optimised, path: Path) -> None:
    """Draw an optimised schedule and the final losses expected of it and of the usual ones."""
    figure = Figure(figsize=(SIZE[0], SIZE[1] / 2), layout="constrained")
    lrs, bars = figure.subplots(1, 2)
    lrs.plot(found.lrs, color="C0")
    _label(lrs, f"{found.kind} optimum", "learning rate")
    losses = {found.kind: found.loss, **found.usual}
    bars.barh(list(losses), list(losses.values()), color=["C0", *["C7"] * len(found.usual)])
    bars.set_xlim(min(losses.values()) * 0.995, max(losses.values()) * 1.002)
    bars.set_xlabel("expected final loss")
    figure.savefig(path, dpi=120)


def _colours(count: int) -> list[Any]:
    """Return a colour for each curve, no two alike."""
    if count <= DISTINCT:
        return [f"C{number}" for number in range(count)]
    return list(colormaps["turbo"](np.linspace(0, 1, count)))


def _short(name: str) -> str:
    """Return a name without its middle where it is long: names differ at the end."""
    half = LEGEND_LETTERS // 2
    return name if len(name) <= LEGEND_LETTERS else f"{name[:half]}…{name[-half:]}"


def _label(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
