"""What a greedy search leaves: the schedule as a file that `python -m train` reads, pictures, and a summary."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from runner.examine.metrics import METRICS_FILE, last_cells, read_metrics
from runner.search.rounds import replace_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from runner.search.branches import Leg

SCHEDULE, SUMMARY, PICTURE = "schedule.json", "search.json", "search.png"
_CHOSEN, _OTHER = "#0072B2", "#BBBBBB"
_POINTS = 50


def losses(leg: Leg, metric: str) -> list[float]:
    """The metric's values in the order of the steps; none where the last one is missing or not finite."""
    path = leg.trial.directory / METRICS_FILE
    last = last_cells(path).get(metric) if path.is_file() else None
    if not isinstance(last, float) or not math.isfinite(last):
        return []
    return [float(value) for value in read_metrics(path)[metric].dropna()]


def write(
    directory: Path, last: Leg, legs: Sequence[Leg], metric: str, smooth: Callable[[Sequence[float]], list[float]]
) -> tuple[Path, Path, Path]:
    """Write the schedule that ends with the leg `last`, the summary of all legs, and the picture."""
    schedule, summary, picture = (directory / name for name in (SCHEDULE, SUMMARY, PICTURE))
    replace_text(schedule, json.dumps({"knots": last.knots()}) + "\n")
    chosen = last.chain()
    found = [
        {
            "segment": leg.segment + 1,
            "begin": leg.begin,
            "end": leg.end,
            "lr1": leg.lr1,
            "lr2": leg.lr2,
            "loss": smooth(curve)[-1] if (curve := losses(leg, metric)) else None,
            "state": leg.trial.cause or leg.trial.state,
            "chosen": leg in chosen,
            "trial": leg.trial.name,
            "round": leg.trial.round,
        }
        for leg in sorted(legs, key=lambda leg: (leg.trial.round, leg.segment, leg.lr2, leg.trial.name))
    ]
    steps = sum(leg.end - leg.begin for leg in legs)
    values = {"knots": last.knots(), "metric": metric, "trials": len(legs), "steps_spent": steps, "legs": found}
    replace_text(summary, json.dumps(values, indent=2) + "\n")
    draw(picture, last, legs, metric, smooth)
    return schedule, summary, picture


def draw(
    path: Path, last: Leg, legs: Sequence[Leg], metric: str, smooth: Callable[[Sequence[float]], list[float]]
) -> None:
    """Draw the schedule above, and below it the smoothed curves of all legs, those of the schedule in colour."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    chosen = last.chain()
    for leg in sorted(legs, key=lambda leg: leg in chosen):
        style: dict[str, Any] = {"color": _CHOSEN, "lw": 2} if leg in chosen else {"color": _OTHER, "lw": 0.8}
        # A line of LRs is a curve on a logarithmic axis.
        above.plot(np.linspace(leg.begin, leg.end, _POINTS), np.linspace(leg.lr1, leg.lr2, _POINTS), **style)
        if losses(leg, metric):
            curve = read_metrics(leg.trial.directory)[["step", metric]].dropna()
            below.plot(curve["step"], smooth(curve[metric].tolist()), **style)
    positive = [leg.lr2 for leg in legs if leg.lr2 > 0]
    if positive:
        above.set_yscale("symlog", linthresh=min(positive))
    above.set_ylabel("learning rate")
    below.set_ylabel(f"{metric}, smoothed")
    below.set_xlabel("step")
    _limit(below, [value for leg in chosen for value in smooth(losses(leg, metric))])
    beside = path.with_name(f".{path.name}.tmp")
    figure.savefig(beside, dpi=150, format="png")
    beside.replace(path)


def _limit(axes: Axes, values: Sequence[float]) -> None:
    """Show the range of the chosen curves: a candidate that all but diverged would flatten them."""
    if values:
        margin = 0.05 * (max(values) - min(values)) + 1e-9
        axes.set_ylim(min(values) - margin, max(values) + margin)
