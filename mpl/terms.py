"""The sum over LR changes, compressed: blocks of changes that are far from a step are merged.

Every law here sums, over the steps k <= t whose LR differs from the one before, (eta_{k-1} - eta_k) times a smooth
function of eta_k, of the LR area before k and of that from k to t. Along a stretch where the schedule is smooth, that
function is smooth in k, so that a block of many changes can be replaced by a few of them with new weights: those that
integrate every polynomial through these nodes exactly. A block is merged for a step that is at least as far from it,
in LR area, as the block is long; what is nearer, and what is not smooth, stays a plain sum. None of this depends on
parameters, so that a fit does it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from train.schedules import Array

Ints = NDArray[np.int64]

NODES = 8
"""Changes that stand for a merged block: an error of less than 1e-10 of the loss."""
PLAIN = 100_000
"""Up to so many changes, merging them for a single point takes longer than it saves."""
FALL = 1e-3
"""A smaller part of the LR by which it is below an earlier one is rounding, and ends no warm-up."""
CHUNK = 256
"""Blocks at a time: bounds the memory."""
SMOOTH = 1e-6
"""How well a block's log LR and areas must follow the polynomial through its nodes."""


@dataclass(frozen=True)
class Terms:
    """The compressed sum of one or more curves: arrays over points [n] and over terms [m], sorted by point."""

    step: Ints
    """The step of each point."""
    area: Array
    """S(t) of each point: the sum of the LRs of the steps up to and with t."""
    first: Ints
    """The first term of each point; the last entry is m."""
    weight: Array
    log_lr: Array
    """log eta_k of the term; -inf where the LR is 0."""
    gap: Array
    """S_k(t), the LR area from step k to t."""
    before: Array
    """The LR area before step k, but at least that at the end of the warm-up."""
    steps: Array
    """The number of steps from k to t."""

    @cached_property
    def log_gap(self) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(self.gap)

    @cached_property
    def log_before(self) -> Array:
        return np.log(self.before)

    @cached_property
    def _filled(self) -> tuple[Ints, Ints]:
        """The points that have terms, and the first of each."""
        points = np.flatnonzero(np.diff(self.first))
        return points, self.first[points]

    def sum(self, values: Array) -> Array:
        """Return the sums of `values` [k, m] over the terms of each point: [k, n]."""
        points, first = self._filled
        sums = np.zeros((len(values), len(self.area)))
        if len(points):
            sums[:, points] = np.add.reduceat(values, first, axis=-1)
        return sums

    def take(self, points: Ints) -> Terms:
        """Return the terms of some of the points."""
        counts = self.first[points + 1] - self.first[points]
        at = np.repeat(self.first[points], counts) + _ranges(counts)
        picked = {name: getattr(self, name)[points] for name in ("step", "area")}
        picked |= {name: getattr(self, name)[at] for name in TERM_ARRAYS}
        return Terms(first=np.concatenate(([0], np.cumsum(counts))), **picked)

    def single(self) -> Terms:
        """Return them in single precision, in which exp and log take a third of the time."""
        return replace(self, **{name: getattr(self, name).astype(np.float32) for name in TERM_ARRAYS})


TERM_ARRAYS = ("weight", "log_lr", "gap", "before", "steps")


def concatenate(parts: Sequence[Terms]) -> Terms:
    """Return the terms of several curves as those of one."""
    ends = np.cumsum([len(part.weight) for part in parts])
    first = [part.first[:-1] + end - len(part.weight) for part, end in zip(parts, ends, strict=True)]
    names = ("step", "area", *TERM_ARRAYS)
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Terms(first=np.concatenate([*first, ends[-1:]]), **joined)


def compress(lrs: Array, steps: Ints, nodes: int = NODES) -> Terms:
    """Return the terms of the points at `steps`, which rise, for the schedule `lrs`."""
    return Changes(lrs, nodes).terms(steps)


def first_peak(lrs: Array) -> int:
    """Return the step that ends the warm-up: that of the largest LR before the LR first falls by a thousandth."""
    top = int(np.argmax(lrs))
    rise = lrs[:top]
    falls = np.flatnonzero(rise < (1 - FALL) * np.maximum.accumulate(rise))
    return int(np.argmax(rise[: falls[0]])) if len(falls) else top


class Changes:
    """The LR changes of a schedule, ready to give the terms of any steps."""

    def __init__(self, lrs: Array, nodes: int = NODES) -> None:
        self.nodes = nodes
        self.before = np.concatenate(([0.0], np.cumsum(lrs)))
        drops = lrs[:-1] - lrs[1:]
        self.at = np.flatnonzero(drops) + 1
        self.drop = drops[self.at - 1]
        self.start = self.before[self.at]
        self.least_area = self.before[first_peak(lrs) + 1]
        with np.errstate(divide="ignore"):
            self.log_lr = np.log(lrs[self.at])

    @cached_property
    def tree(self) -> _Tree:
        log_before = np.log(np.maximum(self.start, self.least_area))
        # With these the area, their sum, is smooth too.
        smooth = np.stack((self.log_lr, log_before, self.at.astype(np.float64)))
        return _Tree(self.drop, self.start, self.before[self.at + 1], smooth, self.nodes)

    def terms(self, steps: Ints, plain: int = PLAIN) -> Terms:
        """Return the terms of the points at `steps`, which rise; of a single one up to `plain` are not merged."""
        area, seen = self.before[steps + 1], np.searchsorted(self.at, steps, side="right")
        point: int | Ints
        source: slice | Ints
        if len(steps) == 1 and seen[0] <= plain:
            point, source, first = 0, slice(int(seen[0])), np.array([0, seen[0]])
            weight = self.drop[source]
        else:
            point, source, weight = self.tree.gather(seen, area)
            order = np.argsort(point, kind="stable")
            point, source, weight = point[order], source[order], weight[order]
            first = np.searchsorted(point, np.arange(len(steps) + 1))
        start = self.start[source]
        return Terms(
            step=steps,
            area=area,
            first=first,
            weight=weight,
            log_lr=self.log_lr[source],
            gap=area[point] - start,
            before=np.maximum(start, self.least_area),
            steps=(steps[point] - self.at[source] + 1).astype(np.float64),
        )


class _Tree:
    """Blocks of 2 n, 4 n, 8 n ... consecutive changes; below them single ones."""

    def __init__(self, drop: Array, start: Array, end: Array, smooth: Array, nodes: int) -> None:
        self.drop, self.start, self.end, self.nodes = drop, start, end, nodes
        self.levels: list[_Level] = []
        if len(drop) >= 2 * nodes:
            self.levels.append(_Level.lowest(drop, smooth, nodes))
            while len(self.levels[-1].smooth) > 1:
                self.levels.append(self.levels[-1].above(smooth))

    def gather(self, seen: Ints, area: Array) -> tuple[Ints, Ints, Array]:
        """Return (point, change, weight) of all terms; `seen` counts the changes up to each point."""
        found: list[tuple[Ints, Ints, Array]] = []
        size = self.nodes * 2 ** max(len(self.levels), 1)
        counts = -(-seen // size)
        point, block = np.repeat(np.arange(len(seen)), counts), _ranges(counts)
        for level in reversed(self.levels):
            last = np.minimum((block + 1) * level.size, len(self.end)) - 1
            length = self.end[last] - self.start[block * level.size]
            whole = (block + 1) * level.size <= seen[point]
            smooth = level.smooth[np.minimum(block, len(level.smooth) - 1)]
            far = whole & smooth & (area[point] - self.end[last] >= length)
            at, of = point[far], block[far]
            source, weight = level.source.take(of, axis=0), level.weight.take(of, axis=0)
            found.append((np.repeat(at, self.nodes), source.ravel(), weight.ravel()))
            size = level.size // 2
            point, block = np.repeat(point[~far], 2), np.repeat(2 * block[~far], 2)
            block[1::2] += 1
            kept = block * size < seen[point]
            point, block = point[kept], block[kept]
        counts = np.minimum(seen[point] - block * size, size)
        source = np.repeat(block * size, counts) + _ranges(counts)
        found.append((np.repeat(point, counts), source, self.drop[source]))
        points, sources, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return points, sources, weights


@dataclass(frozen=True)
class _Level:
    """The blocks of one size: whether each is smooth, and the changes that stand for it with their weights."""

    size: int
    at: Ints
    smooth: NDArray[np.bool_]
    weight: Array

    @cached_property
    def source(self) -> Ints:
        return np.arange(len(self.smooth))[:, None] * self.size + self.at

    @staticmethod
    def lowest(drop: Array, kinds: Array, nodes: int) -> _Level:
        """Return the shortest blocks; `kinds` [kinds, changes] have to be smooth."""
        size = 2 * nodes
        at, lagrange = basis(size, nodes)
        count = len(drop) // size
        good = []
        for first, end in _chunks(count):
            values = kinds[:, first * size : end * size].reshape(len(kinds), end - first, size).swapaxes(1, 2)
            good.append(_follows(np.ascontiguousarray(values), values.take(at, axis=1), lagrange))
        return _Level(size, at, np.concatenate(good), drop[: count * size].reshape(count, size) @ lagrange.T)

    def above(self, kinds: Array) -> _Level:
        """Return the blocks twice as long, which see of each half only what stands for it."""
        size, count = 2 * self.size, len(self.smooth) // 2
        at, inner, lagrange = _doubled(self.size, len(self.at))
        good = self.smooth[: 2 * count : 2] & self.smooth[1 : 2 * count : 2]
        for first, end in _chunks(count):
            starts = np.arange(first, end) * size
            values, nodes = (kinds.take(starts + places[:, None], axis=1) for places in (inner, at))
            good[first:end] &= _follows(values, nodes, lagrange)
        return _Level(size, at, good, self.weight[: 2 * count].reshape(count, len(inner)) @ lagrange.T)


def _chunks(count: int) -> list[tuple[int, int]]:
    return [(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]


def _follows(values: Array, nodes: Array, lagrange: Array) -> NDArray[np.bool_]:
    """Return of each block whether its `values` [kinds, n, blocks] follow the polynomial through its nodes."""
    with np.errstate(invalid="ignore"):
        first = nodes[:, :1]
        nodes = nodes - first
        error = np.abs(lagrange.T @ nodes - (values - first)).max(axis=1)
        good: NDArray[np.bool_] = (error <= SMOOTH * np.maximum(np.abs(nodes).max(axis=1), 1e-3)).all(axis=0)
    return good


def chebyshev(size: int, nodes: int) -> Ints:
    """Return indices at about the Chebyshev points of a block."""
    angles = np.pi * (np.arange(nodes) + 0.5) / nodes
    return np.rint((size - 1) / 2 * (1 - np.cos(angles))).astype(np.int64)


def lagrange_at(at: Ints, places: Ints) -> Array:
    """Return the Lagrange polynomials of the nodes `at` in some places: [nodes, places] (barycentric formula)."""
    between = (at[:, None] - at).astype(np.float64)
    np.fill_diagonal(between, 1.0)
    away = (places - at[:, None]).astype(np.float64)
    hit = away == 0
    away[hit] = 1.0
    terms = 1 / (between.prod(axis=1)[:, None] * away)
    lagrange: Array = np.where(hit.any(axis=0), hit, terms / terms.sum(axis=0))
    return lagrange


@cache
def basis(size: int, nodes: int) -> tuple[Ints, Array]:
    """Return the nodes of a block, and their Lagrange polynomials in all of its places: [nodes, size]."""
    at = chebyshev(size, nodes)
    return at, lagrange_at(at, np.arange(size))


@cache
def _doubled(size: int, nodes: int) -> tuple[Ints, Ints, Array]:
    """Return the nodes of a block of twice the size, those of its halves, and the polynomials of the former there."""
    at, half = chebyshev(2 * size, nodes), chebyshev(size, nodes)
    inner = np.concatenate((half, half + size))
    return at, inner, lagrange_at(at, inner)


def _ranges(counts: Ints) -> Ints:
    """Return 0 .. count - 1 for each count, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
