"""Taking plans in: what each trial of a plan is to a daemon that may have it already, and where it comes from."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from runner import records, recovery
from runner.events import Event, Kind
from runner.model import DONE, Job, JobState, Slot
from runner.process import this_host
from runner.recovery import UNKNOWN
from runner.service.pipeline import Pipeline
from runner.service.submission import Difference, Origin, Origins

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from runner.executors.base import Executor
    from runner.model import Trial
    from runner.plans import Plan, PlanHeader
    from runner.recovery import Adopted, Fate, Found
    from runner.scheduler import Scheduler
    from runner.service.ledger import Ledger

_KIND = {JobState.COMPLETED: Kind.SKIP, JobState.BLOCKED: Kind.BLOCK, JobState.PRUNED: Kind.PRUNE}


class Away(Protocol):
    """The trials that other executors have."""

    def holds(self, key: str) -> bool:
        """Whether one has a trial."""

    def has_begun(self, key: str) -> bool:
        """Whether it has begun it."""

    def plan_of(self, key: str) -> Mapping[str, str]:
        """The stages of a trial that it runs, each with the id of its plan."""

    def withdraw(self, trial: Trial) -> bool:
        """Takes a trial back that it has not begun, so that it waits again; False: it has."""


class Nowhere:
    """No other executor has anything."""

    def holds(self, _key: str) -> bool:
        """Never."""
        return False

    def has_begun(self, _key: str) -> bool:
        """Never."""
        return False

    def plan_of(self, _key: str) -> Mapping[str, str]:
        """None."""
        return {}

    def withdraw(self, _trial: Trial) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class _Examined:
    """A trial of a new plan; `found` is None where it runs already, `word` says what it is to the plan.

    With `is_withdrawn` another executor has it, which has not begun it, and is to give it back.
    """

    trial: Trial
    origin: Origin
    found: Found | None
    states: dict[str, JobState]
    word: str
    is_withdrawn: bool = False


@dataclass(frozen=True)
class Examined:
    """A plan whose trials have all been looked at; nothing has been changed yet."""

    plan: Plan
    trials: list[_Examined]


class Intake:
    """Knows of each trial of the scheduler where it comes from."""

    def __init__(
        self,
        scheduler: Scheduler,
        ledger: Ledger,
        executor: Executor,
        tell: Callable[[Event], None],
        adopt: Callable[[Job, Adopted], None],
        batch: str = "",
    ) -> None:
        """`batch`: the one in whose task this works."""
        self._scheduler = scheduler
        self._ledger = ledger
        self._executor = executor
        self._tell = tell
        self._adopt = adopt
        self._batch = batch
        self._origins: dict[str, Origin] = {}
        self._left_out: set[str] = set()  # trials that run, but are no longer asked for
        self.away: Away = Nowhere()
        self.pipeline = Pipeline(scheduler, self, tell)

    def origin(self, trial: Trial) -> Origin:
        """Where the commands of a trial come from."""
        return self._origins[trial.key]

    def states(self, trial: Trial) -> Mapping[str, JobState]:
        """The state of each of its stages that was asked for."""
        return self._scheduler.states(trial)

    def plan_ids(self) -> set[str]:
        """The plans to which trials belong."""
        origins = set(self._origins.values())
        return {plan.header.plan_id for origin in origins for plan in origin.plan_of.values()}

    # --- a plan ---

    def examine(self, plan: Plan, record: Callable[[], None]) -> Examined:
        """Looks at every trial of a plan, and then has the plan recorded.

        Raises:
            RunnerError: a trial's records cannot be read, or it may run elsewhere; nothing was changed.
            OSError: raised by `record`; nothing was changed.
        """
        origins = Origins(plan)
        examined: list[_Examined] = []
        try:
            for trial in plan.trials:
                if not self._is_outdated(trial, plan.header):
                    examined.append(self._examine(trial, origins))
            record()
        except BaseException:
            for item in examined:
                for adopted in item.found.adopted if item.found is not None else ():
                    self._executor.release(adopted.native_id)
            raise
        return Examined(plan, examined)

    def enter(self, examined: Examined) -> tuple[Difference, list[Trial]]:
        """Gives the plan's trials to the scheduler; returns what changes, and what runs though it is not asked for."""
        header = examined.plan.header
        self._scheduler.is_breadth_first = header.is_breadth_first
        self._scheduler.set_slots(header.slots, has_gpus=header.gpus is not None)
        difference = Difference()
        for item in examined.trials:
            difference.count(item.word, item.trial)
            self._left_out.discard(item.trial.key)
            known = self._scheduler.trial(item.trial.key)
            if item.is_withdrawn and known is not None and self.away.withdraw(known):
                self._enter(item.trial, self._recover(item.trial, item.origin, revives=True), item.origin)
            elif item.found is None:
                self._origins[item.trial.key] = item.origin
                self._scheduler.add(item.trial, item.states, item.origin.terms)
                if known is None:  # an earlier daemon gave it away
                    self._scheduler.hold(item.trial, Slot(next(iter(item.origin.terms.values())).executor))
            else:
                self._enter(item.trial, item.found, item.origin)
        running = self._leave_out(examined.plan, difference) if header.is_full else []
        self.pipeline.wire(item.trial for item in examined.trials)
        return difference, running

    def _is_outdated(self, trial: Trial, header: PlanHeader) -> bool:
        """Whether the plan of a round comes after one that was made later, which knew the rounds of all searches."""
        old = self._origins.get(trial.key)
        known = () if old is None else [plan.header for plan in old.plan_of.values()]
        return bool(header.begun_by) and any(item.begun_by and item.plan_id > header.plan_id for item in known)

    def _examine(self, trial: Trial, origins: Origins) -> _Examined:
        header = origins.plan.header
        known, old = self._scheduler.trial(trial.key), self._origins.get(trial.key)
        origin = origins.of(trial.stages)
        forced = frozenset(trial.stages if header.is_forced else ())
        before = {} if known is None else dict(self._scheduler.states(known))
        is_others = old is not None and all(plan.header.file != header.file for plan in old.plan_of.values())
        if old is not None and (is_others or not header.is_full) and set(before) - set(trial.stages):
            origin = origins.joined(old, trial.stages)
            trial = replace(trial, stages=tuple(origin.plan_of))
        if self.away.holds(trial.key):
            return self._examine_away(trial, origins, origin, before, forced)
        if known is not None and JobState.RUNNING in before.values():
            # The page of an adopted attempt does not show it.
            told = [before, records.read_stat(known.directory)]
            done = {stage for states in told for stage, state in states.items() if state is JobState.COMPLETED}
            done -= forced
            states = {stage: JobState.COMPLETED if stage in done else JobState.PENDING for stage in trial.stages}
            running = [stage for stage, state in before.items() if state is JobState.RUNNING]
            added = [stage for stage in trial.stages if stage not in before]
            recovery.close_dead(known, added, self._executor, this_host(), header.takes_over)
            if old is not None and not set(running) <= origin.plan_of.keys():
                origin = origins.joined(old, trial.stages, tuple(running))
            return _Examined(trial, origin, None, states, "running")
        # What waits for others is examined again, with what they made, when they have come to an end.
        inputs = None if trial.needs is None or trial.needs.waits else self.pipeline.inputs(trial, header.cwd)
        found = recovery.recover(
            trial, self._executor, this_host(), forced, header.takes_over, origin.ask, origin.retries, inputs,
            revives=JobState.PENDING in before.values(), batch=self._batch,
        )  # fmt: skip
        word = _word(found, was_waiting=old is not None and JobState.PENDING in before.values())
        if word == "waiting" and (old is None or not (origin.is_same(old, trial) and origin.is_run_like(old))):
            word = "changed"
        return _Examined(trial, origin, found, found.states, word)

    def _examine_away(
        self, trial: Trial, origins: Origins, origin: Origin, before: dict[str, JobState], forced: frozenset[str]
    ) -> _Examined:
        """A trial that another executor has: what has not begun may be taken back, if it is asked for otherwise now."""
        has_begun = self.away.has_begun(trial.key)
        old = self._origins.get(trial.key)
        plan_of = self.away.plan_of(trial.key)
        if has_begun and old is not None and not plan_of.keys() <= origin.plan_of.keys():  # it runs them all the same
            origin = origins.joined(old, trial.stages, [stage for stage in plan_of if stage in old.plan_of])
        done = {stage for stage, state in records.read_stat(trial.directory).items() if state is JobState.COMPLETED}
        done |= {stage for stage, state in before.items() if state is JobState.COMPLETED}
        states = {stage: JobState.COMPLETED if stage in done - forced else JobState.PENDING for stage in trial.stages}
        if set(states.values()) == {JobState.COMPLETED}:
            return _Examined(trial, origin, None, states, "finished")
        if has_begun or old is None:
            return _Examined(trial, origin, None, states, "running" if has_begun else "waiting")
        if set(plan_of.values()) == {origins.plan.header.plan_id}:  # an earlier daemon submitted it for this very plan
            return _Examined(trial, origin, None, dict(before), "waiting")
        if origin.is_same(old, trial) and origin.is_run_like(old) and not forced:
            return _Examined(trial, old, None, dict(before), "waiting")
        return _Examined(trial, origin, None, states, "changed", is_withdrawn=True)

    def _recover(
        self, trial: Trial, origin: Origin, fate: Fate = UNKNOWN, given: str | None = None, revives: bool = False,
        batch: str = "",
    ) -> Found:  # fmt: skip
        header = next(iter(origin.plan_of.values())).header
        forced = frozenset(trial.stages if header.is_forced and origin.ask == header.plan_id else ())
        inputs = given or self.pipeline.inputs(trial, header.cwd)
        return recovery.recover(
            trial, self._executor, this_host(), forced, header.takes_over, origin.ask, origin.retries, inputs,
            revives=revives, fate=fate, batch=batch,
        )  # fmt: skip

    def examine_again(self, trial: Trial, batch: str, fate: Fate) -> Found:
        """What has become of a trial that was in a batch; the ledger knows it from now on."""
        found = self._recover(trial, self._origins[trial.key], fate, batch=batch)
        self._ledger.take_in(trial, found)
        return found

    def release(self, trial: Trial, given: str) -> None:
        """Gives a trial to the scheduler that has waited for others: as its records show it, with these inputs."""
        origin = self._origins[trial.key]
        self._enter(trial, self._recover(trial, origin, given=given), origin, is_released=True)

    def _enter(self, trial: Trial, found: Found, origin: Origin, is_released: bool = False) -> None:
        """Gives a trial to the scheduler as it was found, and has watched what runs of it."""
        self._ledger.take_in(trial, found)
        self._origins[trial.key] = origin
        if trial.needs is not None and trial.needs.waits and not found.adopted and not is_released:
            self._scheduler.add(trial, dict.fromkeys(trial.stages, JobState.PENDING), origin.terms, is_withheld=True)
            return
        self._scheduler.add(trial, found.states, origin.terms)
        for stage, state in found.states.items():
            if state is not JobState.PENDING:
                self._tell(Event(_KIND.get(state, Kind.FAIL), Job(trial, stage), time.time()))
        for adopted in found.adopted:
            self._scheduler.adopt(trial, adopted.stage, Slot(adopted.slot, None, adopted.shares))
            self._adopt(Job(trial, adopted.stage), adopted)

    def _leave_out(self, plan: Plan, difference: Difference) -> list[Trial]:
        """Takes out what the file asked for before and does not any more; returns what of it runs, and goes on."""
        asked = {trial.key for trial in plan.trials}
        running = []
        for trial in list(self._scheduler.trials()):
            origin = self._origins[trial.key]
            if trial.key in asked or all(item.header.file != plan.header.file for item in origin.plan_of.values()):
                continue
            states = self._scheduler.states(trial)
            is_running = JobState.RUNNING in states.values() or self.away.holds(trial.key)
            if is_running and self.away.withdraw(trial):
                states, is_running = self._scheduler.states(trial), False
            if is_running or JobState.PENDING in states.values():
                difference.count("kept" if is_running and not plan.header.prunes else "dropped", trial)
            for job in self._scheduler.cancel(trial):
                self._tell(Event(Kind.DROP, job, time.time()))
            if is_running:
                self._scheduler.add(trial, {}, origin.terms)  # but for what runs
                self._left_out.add(trial.key)
                running.append(trial)
            else:
                self.forget(trial)
        return running

    # --- a trial ---

    def retry(self, trials: Collection[Trial], ask: str, is_restored: bool = False) -> int:
        """Makes what failed of these trials due again; returns how many jobs.

        `is_restored`: it was asked of an earlier daemon; what has failed again since stays so.
        """
        count = 0
        for trial in trials:
            origin = self._origins[trial.key] = Origin(self._origins[trial.key].plan_of, ask)
            if is_restored:
                self._restore_retry(trial, origin)
                continue
            jobs = self._scheduler.again(trial)
            count += len(jobs)
            for job in jobs:
                self._ledger.page(trial).failures.pop(job.stage, None)
                self._tell(Event(Kind.WAIT, job, time.time()))
        self.pipeline.wire(self._scheduler.trial(trial.key) or trial for trial in trials)
        return count

    def _restore_retry(self, trial: Trial, origin: Origin) -> None:
        if self.away.holds(trial.key) or JobState.RUNNING in self._scheduler.states(trial).values():
            self._ledger.page(trial).failures = recovery.failures(trial, origin.ask)
            return
        found = recovery.recover(
            trial, self._executor, this_host(), frozenset(), False, origin.ask, origin.retries, revives=True
        )
        self._enter(trial, found, origin)

    def is_left_out(self, trial: Trial) -> bool:
        """Whether a trial runs that nobody asks for any more."""
        return trial.key in self._left_out

    def forget(self, trial: Trial) -> None:
        """Nobody asks for the trial, and nothing of it runs."""
        self._scheduler.drop(trial.key)
        self.pipeline.gone(trial)
        self._ledger.forget(trial)
        del self._origins[trial.key]
        self._left_out.discard(trial.key)


def _word(found: Found, was_waiting: bool) -> str:
    """What a trial is to a plan, as `Difference.count` has the words."""
    if found.adopted:
        return "running"
    if all(state in DONE for state in found.states.values()):
        return "finished"
    if was_waiting:
        return "waiting"
    return "new" if found.is_new else "due"
