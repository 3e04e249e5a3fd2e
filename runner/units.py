"""What is run beside the trials: gathers over many of them, and the decisions of searches; planned like trials.

A unit has one stage and a directory of its own, two levels deep, where no tool looks for a trial.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from runner import gather
from runner.errors import InputError
from runner.model import Needs, PlannedTrial, Recipe
from runner.params.searchfile import DECIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from runner.config import Config
    from runner.gather import Gather
    from runner.grid import Round, Search
    from runner.trials import Draft, Layout
    from runner.values import Params

GATHER = "gather"
"""The sweep under which gathers are counted and shown."""
TRIALS_FILE = "trials.jsonl"


def decision_name(title: str, number: int) -> str:
    """The unit that decides what comes after a round."""
    return f"search.{title}/round_{number}"


def rounds_hash(rounds: Iterable[Iterable[str]]) -> str:
    """What a decision stands for: the trials, by their ids, of its round and of those before it."""
    text = "\n".join(" ".join(sorted(ids)) for ids in rounds)
    return hashlib.sha256(text.encode()).hexdigest()


class Units:
    """The units of one request; `finished` gives the finished units of a gather that does not run now.

    Without it nobody is about to run: what is missing does not matter. `decides`: searches go on with their rounds.
    """

    def __init__(
        self, config: Config, layout: Layout, finished: Callable[[str], Sequence[str]] | None, decides: bool
    ) -> None:
        self._config = config
        self._layout = layout
        self._finished = finished
        self._decides = decides

    def plan(
        self, drafts: Sequence[Draft], trials: Sequence[PlannedTrial], left_out: Collection[str] = ()
    ) -> list[PlannedTrial]:
        """The trials, with what they wait for, and after them the units.

        A draft that is no trial was lost by a decided round; what such a round has lost or pruned is `left_out` of
        gathers.

        Raises:
            InputError: a gather has no member, or too few, or a trial depends on a unit that there is not.
        """
        key_of = {trial.trial_id: trial.key for trial in trials}
        draft_of = {draft.trial_id: draft for draft in drafts}
        read = {trial_id: key for trial_id, key in key_of.items() if trial_id not in left_out}
        decisions = [
            self._decision(sweep.title, sweep.search, sweep.round, drafts, key_of)
            for sweep in self._config.sweeps
            if self._decides and sweep.title is not None and sweep.search is not None and sweep.round is not None
        ]
        members: dict[str, list[Draft]] = {}
        if not self._config.is_part:
            for item in self._config.gathers.values():
                members |= self._groups(item, drafts)
        units = [
            self._gather(self._config.gathers[gather.gather_of(name)], name, found, read, decisions)
            for name, found in members.items()
        ]
        wired = [self._wire(draft_of[trial.trial_id], trial, members) for trial in trials]
        planned = [*wired, *decisions, *units]
        self._refuse_circles(planned)
        return [replace(trial, index=index) for index, trial in enumerate(planned)]

    # --- gathers ---

    def _groups(self, item: Gather, drafts: Iterable[Draft]) -> dict[str, list[Draft]]:
        groups: dict[str, list[Draft]] = {}
        for draft in drafts:
            if not draft.titles.isdisjoint(item.of) and item.takes(draft.params):
                groups.setdefault(item.unit(draft.params), []).append(draft)
        is_searched = any(sweep.search and sweep.title in item.of for sweep in self._config.sweeps)
        if not groups and is_searched and not item.by:  # a later round may bring some
            return {item.unit({}): []}
        if not groups:
            lacks = "is one of `where`" if item.where else "is left"
            raise InputError(f"{item.place}: no trial of {', '.join(item.of)} {lacks}.")
        return groups

    def _gather(
        self,
        item: Gather,
        name: str,
        members: Sequence[Draft],
        key_of: Mapping[str, str],
        decisions: Sequence[PlannedTrial],
    ) -> PlannedTrial:
        keys = tuple(key_of[draft.trial_id] for draft in members if draft.trial_id in key_of)
        need = max(gather.needed(item.need, len(keys)), 1)
        after = [unit.key for unit in decisions if unit.sweep in item.of]
        if need > len(members) and not after:  # a search may bring more
            raise InputError(f"{item.place}, need: {need} trials, but {name} has {len(members)}.")
        params = {key: members[0].params[key] for key in item.by}
        needs = Needs(members=keys, need=need, after=tuple(after))
        output = f"{self._layout.output}/{name}"
        own: Params = {
            "_name": name,
            "_output": output,
            "_time": self._layout.time,
            "_trials": f"{output}/{TRIALS_FILE}",
        }
        command = item.template.render(params | self._layout.found_from(item.name, own))
        priority = max((draft.priority for draft in members), default=0)
        return _unit(name, output, item.name, GATHER, priority, params, command, needs)

    def _wire(self, draft: Draft, trial: PlannedTrial, members: Mapping[str, object]) -> PlannedTrial:
        """The trial with the units that it waits for, and the files of theirs that it reads."""
        if not (draft.places or draft.after):
            return replace(trial, round=draft.round) if draft.round else trial
        reads = [place for places in draft.places.values() for place in places]
        units = list(draft.places)
        for name in sorted(draft.after):
            known = [unit for unit in members if gather.gather_of(unit) == name]
            # In one order, as what they made is hashed: a part of the file finds them on the disk.
            of_gather = sorted(self._made(draft, name) if self._config.is_part else known)
            units += of_gather
            reads += [f"{self._layout.output}/{unit}" for unit in of_gather]
        for unit in draft.places:
            name = gather.gather_of(unit)
            if self._config.is_part:
                self._made(draft, name, unit)
            elif unit not in members:
                known = [other for other in members if gather.gather_of(other) == name]
                raise InputError(
                    f"{self._place(draft, name)}: {draft.preferred_name} needs {unit}, which there is not; "
                    f"the gather makes {', '.join(known)}."
                )
        after = () if self._config.is_part else tuple(dict.fromkeys(units))
        return replace(trial, needs=Needs(after=after, reads=tuple(reads)), round=draft.round)

    def _made(self, draft: Draft, name: str, wanted: str | None = None) -> Sequence[str]:
        """The units of a gather that an earlier run has made, the one that is wanted among them."""
        if self._finished is None:
            return ()
        found = self._finished(name)
        if not found or wanted not in {None, *found}:
            unit = wanted or f"gather.{name}"
            raise InputError(
                f"{self._place(draft, name)}: {self._layout.output}/{unit} has not finished; "
                f"`run` without -t, -c and -d makes it first."
            )
        return found

    def _place(self, draft: Draft, name: str) -> str:
        links = [link for sweep in self._config.sweeps if sweep.title in draft.titles for link in sweep.links]
        return next(link.place for link in links if link.gather == name)

    def _refuse_circles(self, planned: Iterable[PlannedTrial]) -> None:
        """A trial of two grids waits for what either waits for, also for a gather that reads it in the other."""
        circle = gather.cycle({item.key: (*item.needs.members, *item.needs.after) for item in planned if item.needs})
        if circle is None:
            return
        start, unit = next((at, name) for at, name in enumerate(circle) if name.startswith("gather."))
        told = " → ".join([*circle[start:-1], *circle[:start], unit])
        raise InputError(
            f"{self._config.gathers[gather.gather_of(unit)].place}: these wait for each other: {told}. A trial that "
            "stands in two grids waits for what either waits for; leave it out of one."
        )

    # --- searches ---

    def _decision(
        self, title: str, search: Search, stand: Round, drafts: Sequence[Draft], key_of: Mapping[str, str]
    ) -> PlannedTrial:
        members = [item for item in drafts if item.rounds.get(title) == stand.number and item.trial_id in key_of]
        number = stand.number
        needs = Needs(
            members=tuple(key_of[item.trial_id] for item in members),
            after=(decision_name(title, number - 1),) if number > 1 else (),
            inputs=stand.inputs,
            decides=True,
            follows=not stand.is_decided,
            limit_s=None if stand.is_decided else search.round_limit_s,
        )
        name = decision_name(title, number)
        output = f"{self._layout.output}/{name}"
        command = shlex.join([sys.executable, "-P", "-m", "runner.decide", output])
        priority = max((draft.priority for draft in members), default=0)
        unit = _unit(name, output, DECIDE, title, priority, {}, command, needs)
        return replace(unit, round=number)


def _unit(
    name: str, output: str, stage: str, sweep: str, priority: int, params: Params, command: str, needs: Needs
) -> PlannedTrial:
    identity = hashlib.sha256(name.encode()).hexdigest()
    recipe = Recipe(params, {stage: command})
    return PlannedTrial(0, identity, name, output, output, (stage,), sweep, priority, recipe=recipe, needs=needs)
