"""What a plot of many trials shows: groups of seeds, their mean and range, and the part worth seeing.

Numbers in, numbers out; the drawing itself is in plots.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.examine.tables import identity, parameter_names

Array = NDArray[np.float64]

POINTS_MAX = 250
_HEAD = 0.2
_OUTLIER = 10.0
_WHOLE = 2.5
_LOG_RATIO = 50.0
_MARGIN = 0.05
SEED = "seed"


@dataclass
class Curve:
    """One trial's parameters and columns: the metric over its steps, the LR over its own."""

    param: Mapping[Any, Any]
    steps: Array
    values: Array
    lr_steps: Array
    lr: Array


@dataclass
class Group:
    """The trials that differ in nothing but their seed."""

    param: Mapping[Any, Any]
    curves: list[Curve] = field(default_factory=list)

    @property
    def final(self) -> float:
        """The mean over the seeds and over the last twentieth of the logged values."""
        return float(np.mean([curve.values[-(len(curve.values) // 20 + 1) :].mean() for curve in self.curves]))


def group_by_seed(curves: Sequence[Curve]) -> list[Group]:
    """Join the curves that differ only in `seed`, in the order in which they come."""
    groups: dict[Any, Group] = {}
    for curve in curves:
        param = {key: value for key, value in curve.param.items() if key != SEED and not str(key).startswith("_")}
        groups.setdefault(identity(param), Group(param)).curves.append(curve)
    return list(groups.values())


def thin(steps: Array, values: Array, points: int = POINTS_MAX) -> tuple[Array, Array]:
    """Return at most `points` points, each the mean of neighbouring ones."""
    size = -(-len(steps) // points)
    if size <= 1:
        return steps, values
    starts = np.arange(0, len(steps), size)
    counts = np.diff(np.append(starts, len(steps)))
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def mean_and_range(lines: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array, Array]:
    """Return steps, mean, minimum and maximum of several lines; each counts where it has been measured."""
    grid = np.unique(np.concatenate([steps for steps, _ in lines]))
    if len(grid) > POINTS_MAX:
        grid = np.linspace(grid[0], grid[-1], POINTS_MAX)
    table = np.array([np.interp(grid, steps, values, left=np.nan, right=np.nan) for steps, values in lines])
    measured = np.isfinite(table).any(axis=0)
    grid, table = grid[measured], table[:, measured]
    return grid, np.nanmean(table, axis=0), np.nanmin(table, axis=0), np.nanmax(table, axis=0)


def limits(lines: Sequence[tuple[Array, Array]]) -> tuple[float, float, bool]:
    """Return the lower and the upper end of the value axis, and whether it is logarithmic.

    What comes in the first fifth of the steps may lie outside where it would squash the rest, and so
    may trials far off the others.
    """
    start = min(steps[0] for steps, _ in lines)
    head = start + _HEAD * (max(steps[-1] for steps, _ in lines) - start)
    tails = [values[steps >= head] for steps, values in lines]
    tails = [tail for tail in tails if len(tail)] or [values for _, values in lines]
    lows = np.array([np.quantile(tail, 0.01) for tail in tails])
    highs = np.array([np.quantile(tail, 0.99) for tail in tails])
    low, high = _edge(lows, tails, upper=False), _edge(highs, tails, upper=True)
    span = high - low
    seen = [values for _, values in lines if low - span <= values[-1] <= high + span]
    if seen:
        whole_low, whole_high = min(float(v.min()) for v in seen), max(float(v.max()) for v in seen)
        if whole_high - whole_low <= _WHOLE * span:
            low, high = min(low, whole_low), max(high, whole_high)
    if low > 0 and high / low > _LOG_RATIO:
        margin = (high / low) ** _MARGIN
        return low / margin, high * margin, True
    margin = _MARGIN * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin, False


def _edge(edges: Array, tails: Sequence[Array], upper: bool) -> float:
    """Return the outermost of the edges that isn't far off the middle of them all."""
    centre = float(np.median([np.median(tail) for tail in tails]))
    distance = edges - centre if upper else centre - edges
    reach = _OUTLIER * max(float(np.median(np.abs(distance))), 1e-12 * abs(centre))
    near = edges[distance <= reach] if (distance <= reach).any() else edges
    return float(near.max() if upper else near.min())


def label(param: Mapping[Any, Any], names: Sequence[Any], width: int = 62) -> str:
    """Return `lr=0.01, schedule=wsd`, cut to `width` characters."""
    text = ", ".join(f"{name}={_short(param.get(name))}" for name in names)
    return text if len(text) <= width else text[: width - 1] + "…"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = " ".join(str(value).split())
    return text if len(text) <= 24 else "…" + text[-23:]


def varying_names(groups: Sequence[Group]) -> list[Any]:
    """Return the parameters that tell the groups apart."""
    return parameter_names([group.param for group in groups], varying=True)


def colour_parameter(groups: Sequence[Group], names: Sequence[Any]) -> Any:
    """Return the numeric parameter that explains the final values best, or None where there is none."""
    # Ranks, so that one trial that diverged doesn't decide.
    finals = final_ranks(groups)
    explained: dict[Any, float] = {}
    for name in names:
        values = [group.param.get(name) for group in groups]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            numbers = np.array(values, dtype=float)
            if np.isfinite(numbers).all() and len(np.unique(numbers)) > 2:
                explained[name] = _explained(numbers, finals)
    return max(explained, key=lambda name: explained[name], default=None)


def _explained(numbers: Array, finals: Array) -> float:
    """Return the share of the variance that lies between the values, less what chance alone explains."""
    _, member = np.unique(numbers, return_inverse=True)
    count, kinds = len(finals), int(member.max()) + 1
    means = np.bincount(member, finals) / np.bincount(member)
    within = float(((finals - means[member]) ** 2).sum()) / max(count - kinds, 1)
    total = float(finals.var()) * count / (count - 1)
    return 1 - within / total if total > 0 else 0.0


def group_line(group: Group) -> tuple[Array, Array, Array, Array]:
    """Return steps, mean, minimum and maximum of the group's curves, thinned."""
    return mean_and_range([thin(curve.steps, curve.values) for curve in group.curves])


def final_ranks(groups: Sequence[Group]) -> Array:
    """Return the place of each group among all, from the lowest final value (0) to the highest."""
    return np.argsort(np.argsort([group.final for group in groups])).astype(float)


def peak_lrs(groups: Sequence[Group]) -> list[float]:
    """Return the highest LR of each trial that isn't much shorter than the longest one."""
    longest = max(curve.lr_steps[-1] for group in groups for curve in group.curves if len(curve.lr))
    whole = [curve for group in groups for curve in group.curves if len(curve.lr)]
    return [float(curve.lr.max()) for curve in whole if 2 * curve.lr_steps[-1] >= longest]


def is_falling(groups: Sequence[Group]) -> bool:
    """Return whether the metric falls in the course of most of the trials, as a loss does."""
    changes = [curve.values[-1] - curve.values[0] for group in groups for curve in group.curves]
    return float(np.median(changes)) <= 0


def best(groups: Sequence[Group], count: int) -> list[int]:
    """Return the indices of the groups with the best final values: the lowest ones of what falls."""
    sign = 1 if is_falling(groups) else -1
    return sorted(range(len(groups)), key=lambda index: sign * groups[index].final)[:count]
