"""The tree that a greedy search grows: each trial is a leg of it, from its parent's checkpoint over one segment.

Everything is read off the trials' parameters (init_from, begin, steps, lr1, lr2), so that a decision needs no memory
of the ones before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.errors import InputError
from runner.search.choice import ranked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from runner.search.choice import Candidate, Rule
    from runner.search.rounds import Trial

OWN = ("lr2", "begin", "steps", "lr1", "init_from")
"""The parameters of a segment, as `python -m train` names them."""


@dataclass(frozen=True, eq=False)
class Leg:
    """A trial of segment `segment` (from 0): steps `begin` to `end`, the LR in a line from `lr1` to `lr2`."""

    trial: Trial
    segment: int
    begin: int
    end: int
    lr1: float
    lr2: float
    checkpoint: Path
    parent: Leg | None

    def chain(self) -> list[Leg]:
        """The legs from the first segment to this one."""
        return [*(self.parent.chain() if self.parent else []), self]

    def knots(self) -> list[tuple[int, float]]:
        """The schedule up to here: (step, LR) pairs, with lines between them."""
        legs = self.chain()
        return [(legs[0].begin, legs[0].lr1), *((leg.end, leg.lr2) for leg in legs)]

    @property
    def others(self) -> dict[str, Any]:
        """The parameters that the search leaves alone; null ones, which templates leave out, would lengthen names."""
        found = self.trial.parameters.items()
        return {name: value for name, value in found if name not in OWN and value is not None}


def grow(trials: Sequence[Trial], edges: Sequence[int], pattern: str) -> list[Leg]:
    """Make the tree of all trials. `edges` are the last steps of the segments; `pattern` is a checkpoint's path.

    Raises InputError for a trial that belongs to no segment, or whose parent is none of the trials.
    """
    legs: dict[str, Leg] = {}
    for trial in sorted(trials, key=lambda trial: _whole(trial, "steps")):
        end = _whole(trial, "steps")
        if end not in edges:
            raise InputError(
                f"trial {trial.name}: steps is {end}, where no segment ends. Allowed: {', '.join(map(str, edges))}; "
                "set steps in the first grid to the first of them."
            )
        origin = trial.parameters.get("init_from")
        parent = legs.get(str(origin)) if origin else None
        segment = edges.index(end)
        if (segment > 0) != (parent is not None):
            raise InputError(
                f"trial {trial.name}: init_from is {origin!r}; needed is "
                + ("the checkpoint of a trial of the segment before it." if segment else "none in the first segment.")
            )
        begin, lr1 = (parent.end, parent.lr2) if parent else (0, _number(trial, "lr1", 0.0))
        checkpoint = trial.directory / pattern.replace("{steps}", str(end))
        legs[str(checkpoint)] = Leg(trial, segment, begin, end, lr1, _number(trial, "lr2"), checkpoint, parent)
    return list(legs.values())


def _number(trial: Trial, name: str, default: float | None = None) -> float:
    value = trial.parameters.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"trial {trial.name}: {name} is {value!r}; a greedy search needs a number there.")
    return float(value)


def _whole(trial: Trial, name: str) -> int:
    value = _number(trial, name)
    if value != int(value):
        raise InputError(f"trial {trial.name}: {name} is {value!r}; a greedy search needs a whole number there.")
    return int(value)


def open_legs(leaves: Mapping[Candidate, Leg], rule: Rule, beam: int, ahead: int) -> list[Leg]:
    """The legs from which the search goes on, the best first: of the newest segment's candidates the `beam` best.

    A branch is committed to `ahead` segments later: the leg that the best candidate goes back to, `ahead` - 1
    segments before it, is settled, and candidates of other branches are dropped. With `ahead` 1 only the best is left.
    """
    order = [leaves[candidate] for candidate in ranked([*leaves], rule)]
    settled = order[0].chain()[: max(order[0].segment + 2 - ahead, 0)]
    kept = [leg for leg in order if leg.chain()[: len(settled)] == settled]
    return kept[:beam]


def losers(legs: Iterable[Leg], newest: int) -> list[Leg]:
    """The legs before segment `newest` that no leg of it goes back to: their checkpoints are needed no more."""
    legs = list(legs)
    needed = {id(ancestor) for leg in legs if leg.segment == newest for ancestor in leg.chain()}
    return [leg for leg in legs if leg.segment < newest and id(leg) not in needed]
