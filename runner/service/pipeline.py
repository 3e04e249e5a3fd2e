"""Holds back what waits for other trials, and lets it go when these have come to an end.

What a gather or a search's decision waits for, and what waits for them, is decided by the records alone, so that
neither the order of ends nor a kill changes the outcome.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from runner import inputs, records
from runner.errors import RunnerError
from runner.events import Event, Kind
from runner.model import Job, JobState
from runner.queueing import needs
from runner.queueing.waits import Waits
from runner.service.ledger import make_directory
from runner.units import TRIALS_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from runner.model import Needs, Trial
    from runner.plans import Plan
    from runner.scheduler import Scheduler
    from runner.service.submission import Origin


class Origins(Protocol):
    """Where trials come from, and how they are examined; the intake."""

    def origin(self, trial: Trial) -> Origin:
        """Where the commands of a trial come from."""

    def release(self, trial: Trial, given: str) -> None:
        """Gives a trial to the scheduler as its records show it, with these inputs."""


class Pipeline:
    """The waits of a daemon's trials."""

    def __init__(self, scheduler: Scheduler, origins: Origins, tell: Callable[[Event], None]) -> None:
        self._scheduler = scheduler
        self._origins = origins
        self._tell = tell
        self._waits = Waits()
        self._ready: deque[str] = deque()
        self._is_advancing = False
        self._inputs: dict[str, str] = {}
        self._newer: dict[str, Trial] = {}  # of one that runs: as the newest plan has it
        self.limited: dict[str, Trial] = {}  # decisions whose rounds have a time limit
        self._unsure: set[str] = set()  # what ran while that for which it waits was due again
        self.decided: Callable[[Trial], str | None] = lambda _: None  # takes a search's next round in, or says why not

    # --- what happens to trials ---

    def wire(self, trials: Iterable[Trial]) -> None:
        """Takes in what the trials of a plan wait for, after the scheduler has them all."""
        found = list(trials)
        for trial in found:
            if trial.needs is not None and trial.needs.waits:
                if trial.needs.limit_s is not None:
                    self.limited[trial.key] = trial
                if self._scheduler.trial(trial.key) is not trial:
                    self._newer[trial.key] = trial
                others = (*trial.needs.members, *trial.needs.after)
                opened = [key for key in others if not self._is_at_end(key)]
                self._waits.expect(trial.key, others, opened)
                if not opened:
                    self._ready.append(trial.key)
                elif trial.key not in self._newer and not self._is_running(trial):
                    self._withhold(trial)
        for trial in found:
            self.reopen(trial)
        self._advance()

    def reopen(self, trial: Trial) -> None:
        """A trial may be due again: what waits for it, waits again."""
        if self._is_at_end(trial.key):
            return
        for key in self._waits.reopen(trial.key):
            follower = self._scheduler.trial(key)
            if follower is None:
                continue
            if self._is_running(follower):
                self._unsure.add(key)
            else:
                self._withhold(follower)
                self.reopen(follower)

    def ended(self, trial: Trial) -> None:
        """Something of a trial has come to an end, or was taken out of the queue."""
        if self._scheduler.is_stopping:
            return
        key = trial.key
        newer = self._newer.pop(key, None)
        known = self._scheduler.trial(key)
        is_idle = known is None or self._scheduler.is_idle(key)
        if known is not None and is_idle and (newer is not None or self._waits.is_open(key)):
            self._withhold(newer or known)
            if not self._waits.is_open(key):
                self._ready.append(key)
        elif is_idle and key in self._unsure:
            self._unsure.discard(key)
            self._ready.append(key)
        elif is_idle:
            self._ready.extend(self._waits.end(key))
        elif newer is not None:
            self._newer[key] = newer
        self._advance()

    def canceled(self, trial: Trial) -> None:
        """A user's word: the trial waits for nothing any more."""
        self._waits.forget(trial.key)
        self.ended(trial)

    def gone(self, trial: Trial) -> None:
        """Nobody asks for the trial any more."""
        self._inputs.pop(trial.key, None)
        for kept in (self._newer, self.limited):
            kept.pop(trial.key, None)
        self._waits.forget(trial.key)
        self._ready.extend(self._waits.end(trial.key))

    def has_decided(self, trial: Trial) -> bool:
        """A trial is complete; of a search's decision the next round is taken in, before its end is told.

        Returns whether that is so: where the next round cannot be taken in, the decision counts as failed.
        """
        if trial.needs is None or not trial.needs.follows or trial.key in self._newer:
            return True
        problem = self.decided(trial)
        if problem is None:
            return True
        self._scheduler.add(trial, dict.fromkeys(trial.stages, JobState.FAILED), self._origins.origin(trial).terms)
        for stage in trial.stages:
            self._tell(Event(Kind.FAIL, Job(trial, stage), time.time(), cause="exit", line=problem))
        return False

    def repeat(self, trial: Trial) -> None:
        """What is complete is due again."""
        self._make_due(trial, is_withheld=False)

    def open_members(self, trial: Trial) -> list[Trial]:
        """What a unit still waits for."""
        assert trial.needs is not None
        return [member for member in self._known(trial.needs.members) if not self._is_at_end(member.key)]

    def why_blocked(self, trial: Trial) -> str:
        """What is lacking of that for which a trial waits; nothing where it is blocked by a stage of its own."""
        return (trial.needs and needs.problem(trial.needs, self._states)) or ""

    # --- what a trial is given ---

    def inputs(self, trial: Trial, cwd: str) -> str | None:
        """The hash of what other trials made for this one; None for one that reads nothing of theirs."""
        if trial.needs is None:
            return None
        return self._inputs.get(trial.key) or self._look(trial.needs, cwd)

    def _look(self, needs: Needs, cwd: str) -> str:
        if needs.inputs is not None:
            return needs.inputs
        if needs.members:
            # A trial that ran when `run` was typed last is the one of the plan before, with the stages of that.
            return inputs.of_members((member, self._scheduler.states(member)) for member in self._complete(needs))
        return inputs.of_places(cwd, needs.reads)

    def prepare(self, trial: Trial) -> None:
        """Writes the list of a unit's trials, before its attempt begins.

        Raises:
            OutputGoneError: the output directory is no more.
            OSError: it could not be written.
        """
        needs = trial.needs
        if needs is None or not (needs.members or needs.decides):
            return
        members = self._known(needs.members) if needs.decides else self._complete(needs)
        make_directory(trial.directory)
        lines = [json.dumps(self._line(member) | self._place(member, needs)) + "\n" for member in members]
        records.replace_text(f"{trial.directory}/{TRIALS_FILE}", "".join(lines))

    @staticmethod
    def _place(trial: Trial, needs: Needs) -> dict[str, str]:
        return {"records": trial.directory} if needs.decides else {}

    def _line(self, trial: Trial) -> dict[str, Any]:
        states = self._scheduler.states(trial)
        bad = [state for state in states.values() if state is not JobState.COMPLETED]
        line = {
            "id": trial.trial_id,
            "name": trial.name,
            "directory": trial.output,
            "parameters": self._plan(trial).recipe(trial).params,
            "state": (bad[0] if bad else JobState.COMPLETED).value,
            "states": {stage: state.value for stage, state in states.items()},
            "sweep": trial.sweep,
        }
        return line | ({"round": trial.round} if trial.round else {})

    def _plan(self, trial: Trial) -> Plan:
        return next(iter(self._origins.origin(trial).plan_of.values()))

    # --- inside ---

    def _advance(self) -> None:
        """Lets go what has nothing left to wait for; each may let others go."""
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while self._ready:
                key = self._ready.popleft()
                trial = self._scheduler.trial(key)
                if trial is not None and not self._waits.is_open(key):
                    self._settle(trial)
        finally:
            self._is_advancing = False

    def _settle(self, trial: Trial) -> None:
        if self._is_running(trial):
            self._unsure.add(trial.key)
            return
        assert trial.needs is not None
        try:
            problem = needs.problem(trial.needs, self._states)
            if problem is None:
                self._inputs[trial.key] = self._look(trial.needs, self._plan(trial).header.cwd)
                self._origins.release(trial, self._inputs[trial.key])
        except RunnerError as error:
            problem = str(error)
        if problem is not None:
            self._block(trial, problem)
        elif self._is_complete(trial.key):
            self.has_decided(trial)
        if self._is_at_end(trial.key):
            self._ready.extend(self._waits.end(trial.key))

    def _states(self, key: str) -> Collection[JobState] | None:
        trial = self._scheduler.trial(key)
        return None if trial is None else self._scheduler.states(trial).values()

    def _block(self, trial: Trial, problem: str) -> None:
        self._scheduler.add(trial, dict.fromkeys(trial.stages, JobState.BLOCKED), self._origins.origin(trial).terms)
        if os.path.isdir(trial.directory):  # noqa: PTH112 - what an earlier run left there is no longer true
            records.write_stat(trial.directory, dict.fromkeys(trial.stages, JobState.BLOCKED))
        for stage in trial.stages:
            self._tell(Event(Kind.BLOCK, Job(trial, stage), time.time(), line=problem))

    def _withhold(self, trial: Trial) -> None:
        self._make_due(trial, is_withheld=True)

    def _make_due(self, trial: Trial, is_withheld: bool) -> None:
        states = self._scheduler.states(trial)
        was_over = [stage for stage, state in states.items() if state is not JobState.PENDING]
        terms = self._origins.origin(trial).terms
        self._scheduler.add(trial, dict.fromkeys(trial.stages, JobState.PENDING), terms, is_withheld=is_withheld)
        self._inputs.pop(trial.key, None)
        for stage in was_over:
            self._tell(Event(Kind.WAIT, Job(trial, stage), time.time()))

    def _is_running(self, trial: Trial) -> bool:
        return JobState.RUNNING in self._scheduler.states(trial).values()

    def _is_at_end(self, key: str) -> bool:
        if self._scheduler.trial(key) is None:
            return True
        return self._scheduler.is_idle(key) and not self._waits.is_open(key)

    def _is_complete(self, key: str) -> bool:
        trial = self._scheduler.trial(key)
        return trial is not None and set(self._scheduler.states(trial).values()) == {JobState.COMPLETED}

    def _known(self, keys: Iterable[str]) -> list[Trial]:
        return [trial for key in keys if (trial := self._scheduler.trial(key)) is not None]

    def _complete(self, needs: Needs) -> list[Trial]:
        return [trial for trial in self._known(needs.members) if self._is_complete(trial.key)]
