"""Taking plans in: what each trial of a plan is to a daemon that may have it already, and where it comes from."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner import records, recovery
from runner.events import Event, Kind
from runner.model import Job, JobState, Slot
from runner.pipeline import Pipeline
from runner.process import this_host
from runner.submission import Difference, Origin, Origins

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runner.executors.base import Executor
    from runner.ledger import Ledger
    from runner.model import Trial
    from runner.plans import Plan
    from runner.recovery import Adopted, Found
    from runner.scheduler import Scheduler

_KIND = {JobState.COMPLETED: Kind.SKIP, JobState.BLOCKED: Kind.BLOCK, JobState.PRUNED: Kind.PRUNE}


@dataclass(frozen=True)
class _Examined:
    """A trial of a new plan; `found` is None where it runs already, `word` says what it is to the plan."""

    trial: Trial
    origin: Origin
    found: Found | None
    states: dict[str, JobState]
    word: str


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
    ) -> None:
        self._scheduler = scheduler
        self._ledger = ledger
        self._executor = executor
        self._tell = tell
        self._adopt = adopt
        self._origins: dict[str, Origin] = {}
        self._left_out: set[str] = set()  # trials that run, but are no longer asked for
        self.pipeline = Pipeline(scheduler, self, tell)

    def origin(self, trial: Trial) -> Origin:
        """Where the commands of a trial come from."""
        return self._origins[trial.key]

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
            if item.found is None:
                self._origins[item.trial.key] = item.origin
                self._scheduler.add(item.trial, item.states, item.origin.terms)
            else:
                self._enter(item.trial, item.found, item.origin)
        running = self._leave_out(examined.plan, difference) if header.is_full else []
        self.pipeline.wire(item.trial for item in examined.trials)
        return difference, running

    def _examine(self, trial: Trial, origins: Origins) -> _Examined:
        header = origins.plan.header
        known, old = self._scheduler.trial(trial.key), self._origins.get(trial.key)
        origin = origins.of(trial.stages)
        forced = frozenset(trial.stages if header.is_forced else ())
        before = {} if known is None else dict(self._scheduler.states(known))
        if old is not None and not header.is_full and set(before) - set(trial.stages):
            origin = origins.joined(old, trial.stages)
            trial = replace(trial, stages=tuple(origin.plan_of))
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
            trial, self._executor, this_host(), forced, header.takes_over, origin.ask, origin.retries, inputs
        )
        word = _word(found, was_waiting=old is not None and JobState.PENDING in before.values())
        if word == "waiting" and (old is None or not origin.is_same(old, trial)):
            word = "changed"
        return _Examined(trial, origin, found, found.states, word)

    def release(self, trial: Trial, given: str) -> None:
        """Gives a trial to the scheduler that has waited for others: as its records show it, with these inputs."""
        origin = self._origins[trial.key]
        header = next(iter(origin.plan_of.values())).header
        forced = frozenset(trial.stages if header.is_forced and origin.ask == header.plan_id else ())
        found = recovery.recover(
            trial, self._executor, this_host(), forced, header.takes_over, origin.ask, origin.retries, given
        )
        self._enter(trial, found, origin, is_released=True)

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
            is_running = JobState.RUNNING in states.values()
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
        if JobState.RUNNING in self._scheduler.states(trial).values():
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
    if all(state in {JobState.COMPLETED, JobState.PRUNED} for state in found.states.values()):
        return "finished"
    if was_waiting:
        return "waiting"
    return "new" if found.is_new else "due"
