"""Why what waits for others cannot run: decisions from the states of all, without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import gather
from runner.model import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from runner.model import Needs, Trial

    States = Collection[JobState]  # of the stages of a trial

_TOLD = {
    JobState.PENDING: "has not run",
    JobState.RUNNING: "still runs",
    JobState.FAILED: "failed",
    JobState.TIMEOUT: "took too long",
    JobState.CANCELED: "was canceled",
    JobState.INTERRUPTED: "was interrupted",
    JobState.BLOCKED: "is blocked",
}
_LOST = frozenset({JobState.FAILED, JobState.TIMEOUT, JobState.CANCELED, JobState.PRUNED, JobState.BLOCKED})


def problem(needs: Needs, states: Callable[[str], States | None]) -> str | None:
    """Why a trial cannot run as things are; `states` are those of a trial by its key, None: it is not asked for."""
    missing = [key for key in needs.after if not _is_complete(states(key))]
    if missing:
        return f"{missing[0]} {_told(states(missing[0]))}"
    others = [key for key in needs.members if not _is_complete(states(key))]
    complete = len(needs.members) - len(others)
    if complete >= needs.need:
        return None
    return gather.sentence(complete, needs.need, len(needs.members), [f"{key} {_told(states(key))}" for key in others])


def blocked(trials: Collection[Trial], states: Mapping[str, States]) -> dict[str, str]:
    """Why some of the trials that wait will not run, though all that still can comes to its end: by their keys."""
    known = dict(states)
    found: dict[str, str] = {}
    waiting = [trial for trial in trials if trial.needs is not None and not _is_complete(known.get(trial.key))]
    is_new = True
    while is_new:
        is_new = False
        for trial in waiting:
            assert trial.needs is not None
            if trial.key not in found and _is_hopeless(trial.needs, known):
                found[trial.key] = problem(trial.needs, known.get) or ""
                known[trial.key] = {JobState.BLOCKED}
                is_new = True
    return found


def _is_hopeless(needs: Needs, states: Mapping[str, States]) -> bool:
    lost = [key for key in (*needs.members, *needs.after) if not _LOST.isdisjoint(states.get(key, ()))]
    return not set(needs.after).isdisjoint(lost) or len(needs.members) - len(lost) < needs.need


def _is_complete(states: States | None) -> bool:
    return states is not None and set(states) == {JobState.COMPLETED}


def _told(states: States | None) -> str:
    if states is None:
        return "is no longer asked for"
    bad = [state for state in states if state is not JobState.COMPLETED]
    return _TOLD.get(bad[0], f"is {bad[0].value}") if bad else "is complete"
