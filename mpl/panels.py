"""The loss of a law at many points of a curve through that at a few of them.

Away from the corners of a schedule the loss is a smooth function of the step, whatever the parameters are: what
changed the LR at a corner is felt with a response whose only singularity lies at the corner. So over a panel, a run of
points that is no longer than its distance from the last corner, the polynomial through a few of its points gives the
others, within about 1e-9 of the loss. A fit needs to know only these few.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from mpl.terms import Ints, chebyshev, lagrange_at
from train.schedules import Array

NODES = 10
WORTH = 16
"""The fewest points of a panel: with fewer, too few are saved."""
SMOOTH = 1e-4
"""How well the log LR over a panel and its distance from the corner must follow the polynomial through its nodes."""


def panels(lrs: Array, steps: Ints) -> list[tuple[int, int]]:
    """Return the panels of the points at `steps`, which rise and follow the warm-up: (first, end) in points."""
    with np.errstate(divide="ignore"):
        log_lr = np.log(lrs)
    found, corner, at = [], int(np.argmax(lrs)), 0
    while at < len(steps):
        reach = int(np.searchsorted(steps, 2 * steps[at] - corner, side="right"))
        least = min(at + WORTH, len(steps))
        while reach >= at + WORTH and not _smooth(log_lr[corner : steps[reach - 1] + 1]):
            reach = at + (reach - at) // 2
        if reach >= at + WORTH:
            found.append((at, reach))
            at = reach
            continue
        # Too near a corner: either the last one, or one among the next points.
        if not _smooth(log_lr[corner : steps[least - 1] + 1]):
            corner = int(steps[least - 1])
        at = least
    return found


def _smooth(values: Array) -> bool:
    """Whether values at equal distances follow the polynomial through a few of them."""
    if (values == values[0]).all():
        return True
    if not np.isfinite(values).all():
        return False
    size = len(values)
    at = np.unique(chebyshev(size, NODES))
    place = np.arange(size) * (2 / size) - 1
    fitted = np.linalg.solve(np.vander(place[at]), values[at])
    # A first look at a few places is all that most stretches with a corner need.
    for some in (slice(None, None, 1 + size // 64), slice(None)):
        error = np.full_like(place[some], fitted[0])
        for coefficient in fitted[1:]:
            error *= place[some]
            error += coefficient
        error -= values[some]
        if max(-error.min(), error.max()) > SMOOTH:
            return False
    return True


def interpolation(curves: Sequence[tuple[Array, Ints]]) -> tuple[list[Ints], csr_array]:
    """Return which points of each curve (LRs, steps) are needed, and the matrix [points, needed] that gives all."""
    needed, parts, first_row, first_column = [], [], 0, 0
    for lrs, steps in curves:
        points, row, column, value = _one(lrs, steps)
        needed.append(points)
        parts.append((row + first_row, column + first_column, value))
        first_row, first_column = first_row + len(steps), first_column + len(points)
    rows, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return needed, csr_array((values, (rows, columns)), shape=(first_row, first_column))


def _one(lrs: Array, steps: Ints) -> tuple[Ints, Ints, Ints, Array]:
    taken = np.ones(len(steps), dtype=bool)
    parts = panels(lrs, steps)
    for first, end in parts:
        taken[first:end] = False
        taken[first + chebyshev(end - first, NODES)] = True
    needed = np.flatnonzero(taken)
    number = np.cumsum(taken) - 1
    rows, columns, values = [needed], [number[needed]], [np.ones(len(needed))]
    for first, end in parts:
        at = first + chebyshev(end - first, NODES)
        others = np.flatnonzero(~taken[first:end]) + first
        rows.append(np.repeat(others, NODES))
        columns.append(np.tile(number[at], len(others)))
        values.append(lagrange_at(steps[at], steps[others]).T.ravel())
    return needed, np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
