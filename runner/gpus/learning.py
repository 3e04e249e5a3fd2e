"""What attempts of each kind were seen to need, and what the next one asks for: decisions without I/O and a clock.

A kind is a stage with the values of the parameters named in `vram_by`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from runner.gpus.packing import Estimate, Sample, after_oom, estimate
from runner.gpus.placing import WHOLE, Card, Demand

if TYPE_CHECKING:
    from collections.abc import Collection

    from runner.model import Job, Terms, Trial


@dataclass(frozen=True)
class _Again:
    """How a job runs that was out of memory: alone, and on a card with more than this."""

    min_total_mib: int = 0


def kind_of(trial: Trial, stage: str) -> str:
    """The kind of a job."""
    return stage if trial.kinds is None else trial.kinds.get(stage, stage)


class Learning:
    """Samples of all kinds, and the jobs that were out of memory."""

    def __init__(self) -> None:
        self._samples: dict[str, list[Sample]] = {}
        self._estimates: dict[str, Estimate | None] = {}
        self._again: dict[tuple[str, str], _Again] = {}  # by the trial's key and the stage

    def note(self, kind: str, sample: Sample) -> None:
        """Takes in what an attempt showed."""
        self._samples.setdefault(kind, []).append(sample)
        self._estimates.pop(kind, None)

    def need(self, kind: str) -> Estimate | None:
        """What the next attempt of a kind needs; None: not known."""
        if kind not in self._estimates:
            self._estimates[kind] = estimate(self._samples.get(kind, ()))
        return self._estimates[kind]

    def fits(self, kind: str) -> int | None:
        """How many attempts of a kind share the smallest card that one of them had; None: not known."""
        need = self.need(kind)
        cards = [sample.card_mib for sample in self._samples.get(kind, ()) if sample.card_mib is not None]
        if need is None or not cards:
            return None
        share = Demand(kind, 1, None, need).share_of(Card(kind, min(cards)))
        count = max(1, share.denominator // share.numerator)
        return count if need.max_level is None else min(count, need.max_level)

    def demand(self, trial: Trial, stage: str, terms: Terms) -> Demand:
        """What a job asks of the GPUs."""
        gpus = max(1, terms.gpus)
        again = self._again.get((trial.key, stage))
        if again is not None:
            return Demand(trial.key, gpus, WHOLE, min_total_mib=again.min_total_mib, priority=trial.priority)
        if terms.per_gpu is not None:
            return Demand(trial.key, gpus, Fraction(1, terms.per_gpu), priority=trial.priority)
        return Demand(trial.key, gpus, None, self.need(kind_of(trial, stage)), priority=trial.priority)

    def was_oom(
        self, job: Job, level: int, card_mib: int | None, cards_mib: Collection[int | None], count: int = 1
    ) -> bool:
        """Takes in that a job was out of memory as one of `level` on one of its `count` cards; whether it runs again.

        It does so alone where it was beside others, and on larger cards where it was alone and there are enough. Beside
        what takes no heed of leases it does so once.
        """
        was_alone = level == 1 or (job.trial.key, job.stage) in self._again
        runs_again, min_total_mib = after_oom(was_alone, card_mib, cards_mib, count)
        if runs_again:
            self._again[job.trial.key, job.stage] = _Again(min_total_mib)
        return runs_again

    def forget(self, job: Job) -> None:
        """The job is over."""
        self._again.pop((job.trial.key, job.stage), None)
