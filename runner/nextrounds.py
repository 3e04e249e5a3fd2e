"""The rounds of searches in a daemon: the next one is taken in when it is decided; one that takes too long is ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner import plans, rounds
from runner.errors import RunnerError
from runner.service.roundlimits import RoundLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from runner.daemon import Daemon
    from runner.model import Trial
    from runner.plan import Entry, Journal


class NextRounds:
    """What the decisions of searches ask of a daemon, each once, as the journal tells."""

    def __init__(
        self,
        daemon: Daemon,
        journal: Journal,
        output: Path,
        joined: Callable[[Sequence[Trial]], None],
        keep: Callable[[plans.Plan], None],
    ) -> None:
        """`joined` tells whoever watches of trials that were added; `keep` holds the plan from which they come."""
        self._daemon = daemon
        self._journal = journal
        self._output = output
        self._joined = joined
        self._keep = keep
        self._limits = RoundLimits(daemon.scheduler, daemon.intake)
        self._told: set[str] = set()
        self._held: list[Trial] | None = None  # decisions, while earlier plans are taken up
        daemon.intake.pipeline.decided = self.follow_up

    def hold(self, told: Collection[str]) -> None:
        """The plans that the journal names are about to be taken up: what they lack comes after them."""
        self._told = set(told)
        self._held = []

    def let_go(self) -> None:
        """All plans have been taken up."""
        held, self._held = self._held or [], None
        for unit in held:
            known = self._daemon.scheduler.trial(unit.key)  # as the last of the plans has it
            if known is not None:
                self._daemon.intake.pipeline.has_decided(known)

    def follow_up(self, unit: Trial) -> str | None:
        """Takes in the round that a decision has planned, once; returns why it cannot be.

        A decision that was under way when a `run` was typed has planned it by the file of before: it plans once more.
        """
        intake = self._daemon.intake
        if intake.is_left_out(unit):
            return None
        if not os.path.exists(f"{unit.directory}/{rounds.RECORD}"):  # noqa: PTH110
            return f"{unit.output}: lacks {rounds.RECORD}; delete the directory, type `run`."
        plan_id = rounds.next_plan(unit.directory)
        if plan_id in self._told | {""}:
            return None
        if self._held is not None:
            self._held.append(unit)
            return None
        try:
            plan = plans.Plan(self._output, plan_id)
            if plan.header.asked not in {item.header.asked for item in intake.origin(unit).plan_of.values()}:
                plan.close()
                intake.pipeline.repeat(unit)
                return None
            entry = {"kind": "plan", "time": plan.header.time, "options": {}, "trials": len(plan.trials)}
            self._daemon.submit(plan, lambda: self._record({**entry, "plan": plan_id}, plan.trials))
        except (RunnerError, OSError) as error:
            return f"its next round cannot be taken in: {error} Type `run`."
        self._told.add(plan_id)
        self._keep(plan)
        return None

    def _record(self, entry: Entry, trials: Sequence[Trial]) -> None:
        self._journal.append(entry)
        self._joined(trials)  # before anything is told of them

    def tend(self, say: Callable[[str], None]) -> None:
        """Ends rounds that take too long."""
        for unit, trials in self._limits.overdue():
            say(f"{unit.name}: the round's time limit is reached; what still runs is ended.")
            self._journal.append({"kind": "cancel", "trials": [trial.key for trial in trials]})
            self._daemon.cancel(trials)
