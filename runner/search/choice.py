"""The rules of the greedy search: which LR wins a segment, and which are tried next. No files, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Rule: TypeAlias = Callable[[Sequence["Candidate"]], "Candidate"]

ALPHA = 0.1
FIRST_LRS = (1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_DIGITS = 12


@dataclass(frozen=True, eq=False)
class Candidate:
    """A trial that may win: the LR at its end, its last smoothed loss, and the trial's name."""

    lr: float
    loss: float
    name: str = ""


def smoothed(losses: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """The exponential moving average of a curve, as `pandas.Series.ewm(alpha=alpha).mean()` has it.

    The average at row t weighs row t - i with (1 - alpha)^i, and divides by the sum of the weights.
    """
    import pandas as pd

    return [float(value) for value in pd.Series(losses, dtype=float).ewm(alpha=alpha).mean()]


def choose(candidates: Sequence[Candidate], eps: float | None = None) -> Candidate:
    """The lowest loss (greedy), or, with `eps`, the largest LR whose loss is within eps of it (eps-greedy).

    Of equal losses the larger LR is taken, and of equal LRs the lower loss.
    """
    lowest = min(candidate.loss for candidate in candidates)
    near = [candidate for candidate in candidates if candidate.loss <= lowest + (eps or 0.0)]
    return max(near, key=lambda candidate: (candidate.lr, -candidate.loss, candidate.name))


def ranked(candidates: Sequence[Candidate], rule: Rule) -> list[Candidate]:
    """All of them in the order in which the rule takes them: each is its choice when those before it are gone."""
    left, found = list(candidates), []
    while left:
        found.append(rule(left))
        left.remove(found[-1])
    return found


def next_lrs(winner: float, factor: float, reach: int, first: Sequence[float] = FIRST_LRS) -> list[float]:
    """The LRs to try after `winner`: 0 and winner * factor^i for i = -reach..reach; after 0, the first ones and 0."""
    around = [winner * factor**power for power in range(-reach, reach + 1)] if winner else list(first)
    # 0.0003 / 10 is 2.9999999999999997e-05; a directory is named by what a person would write.
    return sorted({0.0, *(float(f"{lr:.{_DIGITS}g}") for lr in around)})


def between(winner: float, tried: Sequence[float], points: int, factor: float) -> list[float]:
    """A linear grid of LRs around the winner, between its neighbours among those tried, itself and them left out.

    Above the largest is winner * factor, below the least one 0.
    """
    below = max((lr for lr in tried if lr < winner), default=0.0)
    above = min((lr for lr in tried if lr > winner), default=winner * factor)
    step = (above - below) / (points + 1)
    grid = {float(f"{below + step * number:.{_DIGITS}g}") for number in range(1, points + 1)}
    return sorted(grid - {winner, *tried})
