"""A trial that the scheduler has taken in: the states of its stages, counted as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from runner.model import FOLLOWS, Job, JobState, Terms

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection, Mapping

    from runner.model import Trial

Counts: TypeAlias = "Counter[tuple[str, str, JobState]]"
"""How many jobs there are, by sweep, stage and state."""


class Entry:
    """A trial with the states of its stages, in their order; its place in the line is valid while the ticket is."""

    __slots__ = ("_counts", "is_queued", "not_before", "sequence", "states", "terms", "ticket", "trial")

    def __init__(self, trial: Trial, terms: Mapping[str, Terms], sequence: int, counts: Counts) -> None:
        """It has no stages yet; `counts` are kept for all entries together."""
        self.trial = trial
        self.states: dict[str, JobState] = {}
        self.terms = terms
        self.sequence = sequence
        self.ticket = 0
        self.is_queued = False
        self.not_before = 0.0
        self._counts = counts

    def due(self) -> str | None:
        """The first stage that waits."""
        return next((stage for stage, state in self.states.items() if state is JobState.PENDING), None)

    def due_terms(self) -> Terms:
        """What that stage asks for."""
        return self.terms_of(self.due() or "")

    def terms_of(self, stage: str) -> Terms:
        """What a stage asks for."""
        return self.terms.get(stage, Terms())

    def put(self, states: Mapping[str, JobState], trial: Trial | None = None) -> None:
        """The stages and their states from now on, whatever they were, and the trial as it is known now."""
        self._count(-1)
        if trial is not None:
            self.trial = trial
        self.states = dict(states)
        self._count(+1)

    def move(self, stage: str, state: JobState) -> None:
        """A stage comes from its state to one that may follow."""
        before = self.states[stage]
        assert state in FOLLOWS[before], f"{stage}: {before} to {state}"
        self._set(stage, state)

    def move_all(self, before: Collection[JobState], state: JobState, after: str | None = None) -> list[Job]:
        """Moves each stage that is in a state of `before`, or those of them that come `after` one; returns them."""
        stages = list(self.states)
        first = 0 if after is None else stages.index(after) + 1
        moved = [stage for stage in stages[first:] if self.states[stage] in before]
        for stage in moved:
            self.move(stage, state)
        return [Job(self.trial, stage) for stage in moved]

    def take_back(self, stage: str) -> None:
        """A stage that was about to start waits again."""
        self._set(stage, JobState.PENDING)

    def _set(self, stage: str, state: JobState) -> None:
        sweep = self.trial.sweep
        self._counts[sweep, stage, self.states[stage]] -= 1
        self._counts[sweep, stage, state] += 1
        self.states[stage] = state

    def _count(self, sign: int) -> None:
        for stage, state in self.states.items():
            self._counts[self.trial.sweep, stage, state] += sign
