"""Trials as curves: what a gather hands over, averaged over seeds, and the report of a closed loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpl.curve import Curve
from mpl.fit import FitResult
from mpl.metrics import Metrics
from mpl.readers import read_trial

Trial = Mapping[str, Any]


def curves_of(trials: Sequence[Trial], column: str) -> list[Curve]:
    """Return one curve for each schedule: the mean over the trials with the same LRs and logged steps."""
    return [mean for mean, _ in _groups(trials, column)]


def _groups(trials: Sequence[Trial], column: str) -> list[tuple[Curve, list[Curve]]]:
    groups: dict[tuple[bytes, bytes], list[Curve]] = {}
    titles: dict[str, int] = {}
    for trial in trials:
        curve = read_trial(Path(trial["directory"]), column, str(trial["name"]))
        groups.setdefault((curve.lrs.tobytes(), curve.step.tobytes()), []).append(curve)
    labels = {str(trial["name"]): _title(trial) for trial in trials}
    found = []
    for group in groups.values():
        title = labels[group[0].name]
        titles[title] = titles.get(title, 0) + 1
        name = title if titles[title] == 1 else f"{title} ({titles[title]})"
        loss = np.mean([curve.loss for curve in group], axis=0)
        found.append((Curve.of(name, group[0].step, loss, group[0].lrs), group))
    return found


def _title(trial: Trial) -> str:
    """Return the trial's schedule, a file by its directory's name, or else the trial's name."""
    schedule = str(trial["parameters"].get("schedule", trial["name"]))
    path = Path(schedule)
    return f"{path.parent.name}/{path.name}" if path.suffix in (".npy", ".csv", ".json") else schedule


def runs_of(result: FitResult, trials: Sequence[Trial], column: str) -> list[dict[str, Any]]:
    """Return for each schedule the predicted and the measured last loss, the latter over seeds, lowest first."""
    rows = []
    for mean, group in _groups(trials, column):
        last = np.array([curve.loss[-1] for curve in group])
        predicted = result.predict(mean.lrs, mean.step[-1:])
        error = float(last.std(ddof=1) / np.sqrt(len(last))) if len(last) > 1 else None
        loss, lower, upper = (float(getattr(predicted, name)[0]) for name in ("loss", "lower", "upper"))
        measured = float(last.mean())
        row = {"schedule": mean.name, "seeds": len(group), "measured": measured, "error": error}
        row |= {"predicted": loss, "lower": lower, "upper": upper}
        within = lower <= measured <= upper if np.isfinite(lower) else None
        rows.append({**row, "within": within, **result.evaluate(mean).as_dict()})
    return sorted(rows, key=lambda row: float(row["measured"]))


def report_text(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the report as the lines of a Markdown table."""
    lines = ["| schedule | seeds | measured ± standard error | predicted | 90% bar | within | PredE of the curve |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        error = "" if row["error"] is None else f" ± {row['error']:.4f}"
        within = {True: "yes", False: "no", None: ""}[row["within"]]
        bar = "" if row["within"] is None else f"{row['lower']:.4f} to {row['upper']:.4f}"
        lines.append(
            f"| {row['schedule']} | {row['seeds']} | {row['measured']:.4f}{error} | {row['predicted']:.4f} | {bar} "
            f"| {within} | {row['prede']:.5f} |"
        )
    return lines


def table(metrics: Mapping[str, Metrics]) -> list[str]:
    """Return lines with the metrics of each curve and their mean."""
    width = max(map(len, [*metrics, "mean"]))
    rows = {**metrics, "mean": Metrics.mean(list(metrics.values()))}
    lines = [f"{'':{width}}       R2      MAE     RMSE    PredE   WorstE"]
    for name, one in rows.items():
        lines.append(f"{name:{width}}  {one.r2:.5f}  {one.mae:.5f}  {one.rmse:.5f}  {one.prede:.5f}  {one.worste:.5f}")
    return lines
