"""The law at every step of a schedule, at the cost of a few of them.

Between the corners of a schedule the loss is a smooth function of the step. So it is computed at the nodes of long
blocks of steps and at points between these; where the polynomial through the nodes meets those, it gives the rest of
the block, and where not, the block is halved.
"""

from __future__ import annotations

import numpy as np

from mpl.laws import Law
from mpl.terms import Changes, Ints, basis
from train.schedules import Array

NODES = 12
SHORTEST, LONGEST = 32, 8192
AGREEMENT = 1e-10
"""How well, relative to the loss, the polynomial must meet the points between its nodes."""
CHUNK = 512
"""Points at a time: bounds the memory."""


def loss_at(law: Law, parameters: Array, changes: Changes, steps: Ints) -> Array:
    """Return the loss at rising steps."""
    parts = [steps[start : start + CHUNK] for start in range(0, len(steps), CHUNK)]
    return np.concatenate([law.loss(parameters, changes.terms(part)) for part in parts] or [np.empty(0)])


def loss_everywhere(law: Law, parameters: Array, changes: Changes) -> Array:
    """Return the loss at every step of a schedule; infinite where the LR area is still 0."""
    length = len(changes.before) - 1
    loss = np.empty(length)
    starts, size = np.arange(0, length, LONGEST), LONGEST
    while size > SHORTEST and len(starts):
        at, lagrange = basis(size, NODES)
        probed = np.union1d(at, (at[1:] + at[:-1]) // 2)
        whole = starts[starts + size <= length]
        found = loss_at(law, parameters, changes, np.sort(whole[:, None] + probed).ravel())
        found = found.reshape(len(whole), len(probed))
        is_node = np.isin(probed, at)
        with np.errstate(invalid="ignore"):
            error = np.abs(found[:, is_node] @ lagrange[:, probed] - found).max(axis=1, initial=0)
            good = error <= AGREEMENT * np.abs(found[:, -1])
        filled = whole[good][:, None] + np.arange(size)
        loss[filled] = found[good][:, is_node] @ lagrange
        rest = np.concatenate((whole[~good], starts[starts + size > length]))
        size //= 2
        starts = np.sort(np.concatenate((rest, rest + size)))
        starts = starts[starts < length]
    single = (starts[:, None] + np.arange(size)).ravel()
    single = single[single < length]
    loss[single] = loss_at(law, parameters, changes, single)
    return loss
