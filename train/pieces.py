"""Schedules made of pieces: lines between knots, files, and schedules one after the other. numpy only."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from train.errors import TrainError

Array: TypeAlias = NDArray[np.float64]
Schedule: TypeAlias = Callable[[Array], Array]
"""The LR of each of the given steps."""
Knots: TypeAlias = Sequence[tuple[float, float]]
"""(step, LR) pairs, the steps rising."""

FILES = (".npy", ".csv", ".json")


def ramp(first_step: int, last_step: int, lr1: float, lr2: float) -> Schedule:
    """Return the line from `lr1` at `first_step` to `lr2` at `last_step`, constant before and after it.

    Between two knots `piecewise_linear` has the same values to the last bit, so that a run cut into segments, each
    with its ramp, trains as the whole one does. Steps count from the start of the whole run.
    """
    return piecewise_linear([(first_step, lr1), (last_step, lr2)])


def piecewise_linear(knots: Knots) -> Schedule:
    """Return the lines through (step, LR) knots, constant before the first and after the last one."""
    steps, lrs = np.array(knots, dtype=np.float64).reshape(-1, 2).T
    if not (len(steps) and np.isfinite(steps).all() and (np.diff(steps) > 0).all()):
        raise TrainError(f"the steps of knots must rise, and there must be one: found {steps.tolist()[:9]}")
    if not (np.isfinite(lrs).all() and (lrs >= 0).all()):
        raise TrainError("a knot has an LR that is negative or not finite")

    def line(step: Array) -> Array:
        left = np.clip(np.searchsorted(steps, step, side="right") - 1, 0, max(len(steps) - 2, 0))
        right = np.minimum(left + 1, len(steps) - 1)
        part = np.clip((step - steps[left]) / np.where(right > left, steps[right] - steps[left], 1), 0.0, 1.0)
        # The plain sum can miss the knot behind by one bit, which the next segment begins with.
        return np.where(part == 1, lrs[right], lrs[left] + (lrs[right] - lrs[left]) * part)

    return line


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """Return the schedules one after the other; each but the first begins, as its step 0, at its boundary."""
    if len(schedules) != len(boundaries) + 1 or any(b <= a for a, b in zip([0, *boundaries], boundaries, strict=False)):
        raise TrainError(
            f"{len(schedules)} schedules are joined at {list(boundaries)}: needed are rising steps above 0, one less"
        )

    def joined(step: Array) -> Array:
        lrs = schedules[0](step)
        for later, boundary in zip(schedules[1:], boundaries, strict=True):
            lrs = np.where(step < boundary, lrs, later(np.maximum(step - boundary, 0)))
        return lrs

    return joined


def from_file(path: Path, steps: int) -> Schedule:
    """Return the schedule that a file holds for a run of `steps` steps; `train.schedules.named` says which files."""
    try:
        if path.suffix == ".npy":
            lrs = _checked_lrs(np.load(path, allow_pickle=False), path, steps)
            return lambda step: lrs[step.astype(np.int64)]
        knots = read_knots(path)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, TrainError):
            raise
        raise TrainError(f"cannot read the schedule {path}: {error}") from error
    first, last = knots[0][0], knots[-1][0]
    if first != 0 or not steps - 1 <= last <= steps:
        raise TrainError(
            f"the schedule {path} has knots from step {first:g} to {last:g}: needed are 0 to {steps - 1} or {steps}"
        )
    return piecewise_linear(knots)


def read_knots(path: Path) -> list[tuple[float, float]]:
    """Read (step, LR) knots from `.csv` (a header with `step` and `lr`) or `.json` ({"knots": [[step, lr], ...]})."""
    # Spreadsheets begin a file with a byte order mark.
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            pairs: list[Any] = _csv_pairs(file) if path.suffix == ".csv" else json.load(file)["knots"]
            knots = [(float(step), float(lr)) for step, lr in pairs]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise TrainError(
                f"the schedule {path} holds no knots ({error}): needed are a CSV with the columns step,lr "
                'or a JSON file {"knots": [[step, lr], ...]}'
            ) from error
    try:
        piecewise_linear(knots)
    except TrainError as error:
        raise TrainError(f"the schedule {path}: {error}") from error
    return knots


def _csv_pairs(file: TextIO) -> list[tuple[str, str]]:
    rows = csv.DictReader(file)
    rows.fieldnames = [name.strip() for name in rows.fieldnames or []]
    return [(row["step"], row["lr"]) for row in rows]


def _checked_lrs(lrs: Any, path: Path, steps: int) -> Array:
    if not isinstance(lrs, np.ndarray) or lrs.dtype.kind not in "fiu" or lrs.shape != (steps,):
        found = f"{lrs.dtype} {lrs.shape}" if isinstance(lrs, np.ndarray) else type(lrs).__name__
        raise TrainError(f"the schedule {path} holds {found}: needed is one LR a step, numbers of shape ({steps},)")
    if not (np.isfinite(lrs).all() and (lrs >= 0).all()):
        raise TrainError(f"the schedule {path} holds an LR that is negative or not finite")
    return lrs.astype(np.float64)
