"""Carries out plans: the only place that acts, one action at a time.

It asks the scheduler what to start, starts it, hears of ends, and has written what happened into the trials' records
before it decides anew. It may be killed at any instruction: a job counts as finished only by its recorded exit code.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runner.batch.batches import Batches
from runner.batch.trialreturns import KIND_OF_END, Returns
from runner.errors import RunnerError
from runner.events import Event, Kind
from runner.model import LOCAL, JobState
from runner.process import boot_seconds
from runner.scheduler import Scheduler
from runner.service.aftermath import Aftermath
from runner.service.attempts import Attempts
from runner.service.endings import QUICK_S, Ending, again_at
from runner.service.intake import Intake
from runner.service.launching import Launcher
from runner.service.ledger import Ledger, OutputGoneError
from runner.service.places import Place
from runner.service.pruning import Pruning
from runner.service.shortage import HOLD_S, Shortage, is_shortage, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from runner.executors.base import Ended, Executor
    from runner.model import Job, Outcome, Trial
    from runner.plans import Plan
    from runner.recovery import Adopted
    from runner.scheduler import Start
    from runner.service.endings import Running
    from runner.service.submission import Difference

LIMITS_S = 0.5  # between two looks at the limits of what runs


class Daemon:
    """Runs the trials of its plans to their ends, or until it is told to stop."""

    def __init__(
        self,
        executor: Executor,
        tell: Callable[[Event], None],
        say: Callable[[str], None],
        paused: Callable[[str, str], None],
        task: str | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`tell` hears of every event, `say` of what belongs to no job, `paused` of a sweep that pauses.

        `wake` has `step` called soon, from any thread; `task`: in which task of a batch it works, for another daemon.
        """
        self.scheduler = Scheduler()
        self._tell = tell
        self._say = say
        self._paused = paused
        self._ledger = Ledger()
        batch = (task or "").partition("/")[0]
        self.intake = Intake(self.scheduler, self._ledger, executor, tell, self._adopt, batch)
        launcher = Launcher(executor, self.intake, self._ledger, task)
        self._attempts = Attempts(executor, self.scheduler, self.intake, launcher, say)
        self._shortage = Shortage(self._ledger, say)
        self._pruning = Pruning(self.scheduler)
        self._aftermath = Aftermath(self.scheduler, self.intake, self._pruning, tell, self._pause_itself)
        self._returns = Returns(self.scheduler, self.intake, tell, self._aftermath.returned, launcher.note_failure)
        self._batches = self.intake.away = Batches(self.scheduler, self.intake, self._returns, tell, say, wake)
        self._looked_at = 0.0
        self._has_left = False
        self.stopped = 0  # how often it was told to stop at once

    # --- what is asked for ---

    def submit(self, plan: Plan, record: Callable[[], None], spared: Collection[str] = ()) -> Difference:
        """Takes a plan in, as the trials' records show them; attempts that still run are watched from here on.

        `record` makes it durable that the plan was asked for; it is called when nothing can prevent it any more. What a
        plan with `prunes` lacks is ended, but for the trials `spared`, which were asked for after it.

        Raises:
            RunnerError: a trial's records cannot be read, or it may run elsewhere; nothing of the plan was taken in.
            OSError: raised by `record`; likewise.
        """
        examined = self.intake.examine(plan, record)
        self._aftermath.fail_fast.limit = plan.header.fail_fast
        self._attempts.ask(plan)
        difference, no_longer_asked = self.intake.enter(examined)
        if plan.header.prunes:
            self.cancel(trial for trial in no_longer_asked if trial.key not in spared)
        return difference

    def restore(self, output: Path) -> None:
        """Takes up what an earlier daemon of the directory gave to batch systems; before its plans are submitted."""
        self._batches.restore(output)

    def end_strays(self) -> None:
        """Ends what batch systems have for which no plan asks."""
        self._batches.end_strays()

    def plans_in_use(self) -> set[str]:
        """The plans that somebody still reads."""
        return self.intake.plan_ids() | self._batches.plan_ids()

    def pause(self, sweep: str | None = None) -> None:
        """Lets nothing more of a sweep start, or nothing at all."""
        self.scheduler.pause(sweep)
        self._batches.withdraw_all(sweep)

    def resume(self) -> None:
        """Takes every pause back."""
        self._aftermath.fail_fast.forget()
        self.scheduler.resume()

    def cancel(self, trials: Iterable[Trial]) -> int:
        """Takes trials out of the queue and ends what runs of them; returns how many jobs."""
        count = 0
        self._batches.catch_up()
        for trial in trials:
            self._batches.withdraw(trial)
            canceled = self.scheduler.cancel(trial)
            for job in canceled:
                self._tell(Event(Kind.CANCEL, job, time.time()))
            here = (item for item in self._attempts.running() if item.job.trial.key == trial.key)
            running = [*here, *self._batches.running_of(trial.key)]
            self._end_attempts(running, Ending.CANCEL)
            self._batches.end([trial.key], Ending.CANCEL.value)  # also where no attempt has begun yet
            self.intake.pipeline.canceled(trial)
            count += len(canceled) + len(running)
        return count

    @property
    def canceled_elsewhere(self) -> list[str]:
        """The keys of trials that somebody has taken out of a batch system's queue, until they are cleared."""
        return self._returns.canceled

    def drain(self) -> None:
        """Lets what runs come to its end, and starts nothing more."""
        self.scheduler.stop()
        self._batches.withdraw_all()

    def leave(self) -> None:
        """Ends what runs here politely; what batch systems have goes on, and is taken up by the next daemon."""
        self._has_left = True
        self.stop()

    def prune(self, trials: Iterable[Trial]) -> None:
        """Ends what runs of trials that have fallen behind."""
        keys = {trial.key for trial in trials}
        self._end_attempts([item for item in self.running() if item.job.trial.key in keys], Ending.PRUNE)

    def stop(self, ending: Ending = Ending.STOP) -> None:
        """Ends everything politely; called again, at once."""
        self.stopped += 1
        self.scheduler.stop()
        if not self._has_left:
            self._batches.catch_up()
            self._batches.withdraw_all()
        running = list(self._attempts.running() if self._has_left else self.running())
        if self.stopped == 1:
            self._end_attempts(running, ending)
            if not self._has_left:
                self._batches.end(self._batches.begun(), ending.value)
            self._say_stopping(running)
            return
        self._batches.kill()
        self._attempts.kill()

    def _say_stopping(self, running: Sequence[Running]) -> None:
        if running:
            count = len(running)
            grace = max(item.options.grace_s for item in running)
            self._say(
                f"Stopping: {count} running {'attempt was' if count == 1 else 'attempts were'} asked to end "
                f"(SIGTERM; SIGKILL after {grace:g} s, or at once with another Ctrl-C)."
            )

    @property
    def is_done(self) -> bool:
        """Whether nothing runs, and nothing is left that may start."""
        if self._attempts.running() or self._shortage.has_ends or not (self._has_left or self._batches.is_idle):
            return False
        return self.scheduler.is_done or self.scheduler.is_stopping

    def running(self) -> Iterable[Running]:
        """The attempts under way."""
        return [*self._attempts.running(), *self._batches.running()]

    def places(self) -> list[Place]:
        """Each place where attempts run, as it is shown."""
        now = boot_seconds()
        return self._attempts.places(now, self._shortage.why(now)) + [Place(*told) for told in self._batches.standing()]

    # --- one step ---

    def step(self) -> float | None:
        """Does what is due; returns after how many seconds it must be called again, None: when something happens."""
        now = boot_seconds()
        self._shortage.try_again(now)
        self._attempts.look_at_gpus(now, may_start=not self._shortage.lasts(now))
        if not self._has_left:
            self._batches.settle()
        if not self._shortage.lasts(now):
            self._start_all(self.scheduler.decide(now), now)
        batches_at = None if self._has_left else self._batches.step(now)
        watched = [item for item in self.running() if item.needs_watch]
        if watched and now >= self._looked_at + LIMITS_S:
            self._looked_at = now
            self._attempts.look(boot_seconds())  # a grace begins now, after all that was started above
            self._look_at_rungs(watched)
        times = (
            self._looked_at + LIMITS_S if watched else None,
            self._shortage.next_time(now),
            None if self._shortage.lasts(now) else self.scheduler.next_time(),
            self._attempts.next_gpu_look(),
            batches_at,
        )
        due = [time for time in times if time is not None]
        return max(0.0, min(due) - now) if due else None

    def take(self, ends: Iterable[Ended]) -> None:
        """Hears of attempts that are over."""
        for ended in ends:
            self._end(ended)

    def disown(self, ends: Iterable[Ended]) -> bool:
        """Hears of attempts that are over and no longer its own: nothing of them is recorded. Whether more run."""
        for ended in ends:
            self._attempts.forget(ended.native_id)
        return bool(self._attempts.running())

    def close(self) -> None:
        """It leaves; what runs goes on."""
        self._attempts.close()

    # --- attempts ---

    def _adopt(self, job: Job, adopted: Adopted) -> None:
        item = self._attempts.adopt(job, adopted, boot_seconds())
        self._tell(Event(Kind.ADOPT, job, item.started, item.slot.label, attempt=item.attempt, log=item.log))

    def _start_all(self, starts: Iterable[Start], now: float) -> None:
        for start in starts:
            is_here = self.intake.origin(start.job.trial).options(start.job.stage).executor == LOCAL
            self._start(start, now, self._launch if is_here else self._batches.take)

    def _start(self, start: Start, now: float, launch: Callable[[Start, float], None]) -> None:
        job = start.job
        try:
            launch(start, now)
        except OutputGoneError:
            self._say(f"{job.trial.directory}: the output directory was removed; nothing more is started.")
            self.scheduler.ended(job, JobState.INTERRUPTED)
            self.stop()
        except OSError as error:
            text = refusal(error, job.trial.directory)
            if is_shortage(error):
                self._shortage.hold(text, now)
                self.scheduler.ended(job, JobState.INTERRUPTED, again_at=now + HOLD_S)
            else:
                self._refuse(job, text)
        except RunnerError as error:  # its records or its plan were damaged meanwhile
            self._refuse(job, str(error))

    def _launch(self, start: Start, now: float) -> None:
        started = self._attempts.start(start, now)
        if started is None:
            self.scheduler.refuse(start)
            return
        item, process = started
        try:
            self._ledger.note_process(item.job, item.attempt, process)
        except OSError as error:  # its shell can be found without
            self._shortage.hold(refusal(error, item.job.trial.directory), now)
        self._tell(Event(Kind.START, item.job, item.started, item.slot.label, attempt=item.attempt, log=item.log))

    def _refuse(self, job: Job, text: str) -> None:
        """A job that cannot be started, whatever is tried: a directory that cannot be written, for one."""
        blocked = self.scheduler.ended(job, JobState.FAILED)
        self._tell(Event(Kind.FAIL, job, time.time(), cause="exit", line=text))
        for item in blocked:
            self._tell(Event(Kind.BLOCK, item, time.time()))
        self.intake.pipeline.ended(job.trial)

    def _end(self, ended: Ended) -> None:
        now = boot_seconds()
        item, outcome = self._attempts.ended(ended, now)
        job = item.job
        failures, quick = self._ledger.page(job.trial).note(job.stage, outcome, QUICK_S)
        due_at = None if self.intake.is_left_out(job.trial) else again_at(outcome, item, failures, quick, now)
        blocked = self.scheduler.ended(job, outcome.state, due_at, now)
        self._shortage.record(item, outcome, blocked, now)
        if outcome.state is not JobState.COMPLETED or self.intake.pipeline.has_decided(job.trial):
            self._tell_end(item, outcome, is_again=due_at is not None)
        for other in blocked:
            self._tell(Event(Kind.PRUNE if outcome.state is JobState.PRUNED else Kind.BLOCK, other, time.time()))
        rule = item.options.prune
        if rule is not None and outcome.state is JobState.COMPLETED and self._pruning.has_nothing_of(job, rule):
            self._say(
                f"{job.trial.name}: {job.stage} wrote no {rule.metric!r} to metrics.csv; `prune` has nothing to go by."
            )
        self._aftermath.ended(job.trial, outcome.cause, {job.stage: rule}, is_again=due_at is not None)

    def _pause_itself(self, sweep: str, why: str) -> None:
        self.pause(sweep)
        self._paused(sweep, why)

    def _tell_end(self, item: Running, outcome: Outcome, is_again: bool) -> None:
        kind = KIND_OF_END[outcome.state]
        if is_again:
            kind = Kind.RETRY
        self._tell(
            Event(
                kind, item.job, time.time(), item.slot.label, outcome.seconds, outcome.exit_code,
                item.attempt, item.log, outcome.cause or "", outcome.line or "",
            )
        )  # fmt: skip

    def _look_at_rungs(self, items: Iterable[Running]) -> None:
        """Ends what has fallen behind at the rung to which it came, unless it ends anyway."""
        for item in items:
            if item.ending is None and (rule := item.options.prune) and self._pruning.has_news(item.job, rule):
                if self._pruning.is_behind(item.job, rule):
                    self._end_attempts([item], Ending.PRUNE)
                self._aftermath.revive(item.job, rule)

    def _end_attempts(self, items: Iterable[Running], ending: Ending) -> None:
        """Asks attempts to end, wherever they are."""
        away = []
        for item in items:
            if self._attempts.has(item):
                self._attempts.end(item, ending, boot_seconds())
            elif item.ending is None:
                item.ending = ending
                away.append(item.job.trial.key)
        self._batches.end(away, ending.value)
