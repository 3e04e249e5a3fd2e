"""What an attempt needs of a GPU, from what earlier ones showed: decisions without I/O and without a clock.

A class is a stage with the values of the parameters named in `vram_by`: its attempts are taken to need equal memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_MARGIN = Fraction(1, 10)
_MIN_MARGIN_MIB = 256  # contexts of libraries that are loaded late
_AFTER_OOM = Fraction(5, 4)
# Packing one more is slower where the sum is less by more than this part, and chance explains it with less than that.
_LOSS, _DOUBT = 0.02, 0.001
_MIN_FREEDOM = 2  # samples beyond one for each level
# The beginnings of what an attempt needs: the rest is counted from its start, and may come with the last evaluation.
_APPEARED = Fraction(1, 10)
STEADY_S = 300.0  # of work without a larger peak: what an attempt needs is seen before its end
_GROWN = 1.01  # allocators creep; what is less than the margin by far is no news


@dataclass(frozen=True)
class Sample:
    """What one past attempt of a class showed."""

    peak_mib: int  # on the card where it needed most
    level: int = 1  # the attempts on that card, itself included, for most of its time
    was_oom: bool = False
    rate: float | None = None  # work per second, in any unit that is the same for the class
    card_mib: int | None = None  # what the card has


@dataclass(frozen=True)
class Estimate:
    """What the next attempt of a class needs of each of its cards; `max_level` where more together were slower."""

    mib: int
    max_level: int | None = None


def estimate(samples: Sequence[Sample]) -> Estimate | None:
    """The need of a class from its past attempts in the order of their ends; None: not known, so it runs alone.

    An attempt that ran out of memory shows only that it needs more than it got. When that happened beside others the
    estimate is raised, and the class is not known again until an attempt has ended well.
    """
    done = [sample for sample in samples if not sample.was_oom]
    if not done or samples[-1].was_oom:
        return None
    peak_mib = max(sample.peak_mib for sample in samples)
    mib = peak_mib + max(_MIN_MARGIN_MIB, int(peak_mib * _MARGIN))
    raises = sum(sample.was_oom and sample.level > 1 for sample in samples)
    return Estimate(int(mib * _AFTER_OOM**raises), best_level(done))


def best_level(samples: Sequence[Sample]) -> int | None:
    """How many of a class at most run on one card; None while more together were not surely seen to be slower.

    The sum of their rates decides, not the rate of each: that of a level is compared with that of the best one below
    it by a t-test of the logs, with the spread within all levels. Trials of a class may be of unequal length, and the
    short ones end first: what one or two of them show is no evidence.
    """
    logs: dict[int, list[float]] = {}
    for sample in samples:
        if sample.rate:
            logs.setdefault(sample.level, []).append(math.log(sample.rate))
    means = {level: fmean(values) for level, values in logs.items()}
    freedom = sum(map(len, logs.values())) - len(logs)
    if freedom < _MIN_FREEDOM:
        return None
    squares = sum((value - means[level]) ** 2 for level, values in logs.items() for value in values)
    best = min(logs)
    for level in sorted(logs):
        error = math.sqrt(squares / freedom * (1 / len(logs[best]) + 1 / len(logs[level])))
        loss = math.log(best) + means[best] - math.log(level) - means[level]
        if loss > max(_LOSS, _quantile(freedom) * error):
            return best
        best = level if loss < 0 else best
    return None


def _quantile(freedom: int) -> float:
    """About that of Student's t for _DOUBT (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(1 - _DOUBT)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def is_settling(age_s: float, seen_mib: int | None, expected_mib: int, limit_s: float = 30.0) -> bool:
    """Whether the memory of an attempt is still to begin to appear, so that the next one on its card waits.

    `seen_mib`: what it uses now, None where the driver does not tell. After `limit_s` it is not waited for any more:
    a program may begin with something else.
    """
    if age_s >= limit_s:
        return False
    return seen_mib is None or seen_mib < expected_mib * _APPEARED


class Growth:
    """How the memory of an attempt has grown, look by look; all times on one clock, in seconds."""

    def __init__(self, began_s: float) -> None:
        self._began_s = self._grew_s = self._seen_s = began_s
        self._peak_mib = 0
        self._worked_s = 0.0  # since it grew last

    def note(self, now_s: float, peak_mib: int, is_busy: bool) -> bool:
        """Takes in a look; returns whether it became steady with it.

        It is steady once its GPU has been busy for five minutes without a larger peak, and for as long as it took to
        come to that. Time in which the GPU does nothing tells nothing: a program may have taken hold of it early and
        still be preparing its data.
        """
        was_steady = self._is_steady
        if peak_mib > self._peak_mib * _GROWN:
            self._peak_mib, self._grew_s, self._worked_s = peak_mib, now_s, 0.0
        elif is_busy:
            self._worked_s += now_s - self._seen_s
        self._seen_s = now_s
        return self._is_steady and not was_steady

    @property
    def _is_steady(self) -> bool:
        return self._peak_mib > 0 and self._worked_s >= max(STEADY_S, self._grew_s - self._began_s)


def after_oom(
    was_alone: bool, card_mib: int | None, cards_mib: Collection[int | None], count: int = 1
) -> tuple[bool, int]:
    """What follows when an attempt ran out of memory: whether it is run again, and above which size of card.

    Beside others: again, alone. Alone: on larger cards, where there are as many as it needs; otherwise it failed.
    """
    if not was_alone:
        return True, 0
    if card_mib is None:
        return False, 0
    return sum(size is not None and size > card_mib for size in cards_mib) >= count, card_mib
