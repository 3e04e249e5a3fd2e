"""Carries out plans: the only place that acts, one action at a time.

It asks the scheduler what to start, starts it, hears of ends, and has written what happened into the trials' records
before it decides anew. It may be killed at any instruction: a job counts as finished only by its recorded exit code.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING

from runner import recovery
from runner.batches import Batches
from runner.endings import QUICK_S, Ending, Running, again_at, exceeded, judge
from runner.errors import RunnerError
from runner.events import Event, Kind
from runner.failfast import FailFast
from runner.gpuwork import GpuWork
from runner.intake import Intake
from runner.keep import remove_files
from runner.launching import Launcher
from runner.ledger import Ledger, OutputGoneError
from runner.model import BLOCKING, LOCAL, Job, JobState, Outcome, Slot
from runner.places import Place, Places
from runner.process import boot_seconds, started_at
from runner.pruning import Pruning
from runner.returns import KIND_OF_END, Returns
from runner.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from runner.executors.base import Ended, Executor
    from runner.halving import Rule
    from runner.model import Trial
    from runner.plans import Plan
    from runner.scheduler import Start
    from runner.submission import Difference

HOLD_S = 5.0  # between two tries to write on a machine that refused
# A batch system may have sent the same signal to all programs: a second one kills a Python that is just leaving.
ASK_S = 1.0
LIMITS_S = 0.5  # between two looks at the limits of what runs
# What a machine says when it is short of something that may come back.
_SHORTAGES = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.EIO}


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
        self._executor = executor
        self._tell = tell
        self._say = say
        self._paused = paused
        self._ledger = Ledger()
        self.intake = Intake(self.scheduler, self._ledger, executor, tell, self._adopt)
        self._launcher = Launcher(executor, self.intake, self._ledger, task)
        self._gpus = GpuWork(self.scheduler, say)
        self._places = Places(self.scheduler, self._gpus)
        self._running: dict[int, Running] = {}
        self._pruning = Pruning(self.scheduler)
        returns = Returns(self.scheduler, self.intake, tell, self._returned)
        self._batches = self.intake.away = Batches(self.scheduler, self.intake, returns, tell, say, wake)
        self._fail_fast = FailFast()
        self._unwritten: list[tuple[Running, Outcome, list[Job]]] = []
        self._held_until = 0.0
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
        self._fail_fast.limit = plan.header.fail_fast
        self._gpus.ask(plan)
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
        self._fail_fast.forget()
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
            here = (item for item in self._running.values() if item.job.trial.key == trial.key)
            running = [*here, *self._batches.running_of(trial.key)]
            self._end_attempts(running, Ending.CANCEL)
            self._batches.end([trial.key], Ending.CANCEL.value)  # also where no attempt has begun yet
            self.intake.pipeline.canceled(trial)
            count += len(canceled) + len(running)
        return count

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
        running = list(self._running.values() if self._has_left else self.running())
        if self.stopped == 1:
            self._end_attempts(running, ending)
            if not self._has_left:
                self._batches.end(self._batches.begun(), ending.value)
            self._say_stopping(running)
            return
        self._batches.kill()
        for item in self._running.values():
            self._executor.signal(item.native_id, signal.SIGKILL)

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
        if self._running or self._unwritten or not (self._has_left or self._batches.is_idle):
            return False
        return self.scheduler.is_done or self.scheduler.is_stopping

    def running(self) -> Iterable[Running]:
        """The attempts under way."""
        return [*self._running.values(), *self._batches.running()]

    def places(self) -> list[Place]:
        """Each place where attempts run, as it is shown."""
        return self._places.shown(boot_seconds()) + [Place(*told) for told in self._batches.standing()]

    # --- one step ---

    def step(self) -> float | None:
        """Does what is due; returns after how many seconds it must be called again, None: when something happens."""
        now = boot_seconds()
        if self._unwritten and now >= self._held_until:
            self._write_ends(now)
        look_at = self._gpus.next_look()
        if look_at is not None and now >= look_at:
            for native_id in self._gpus.look(now):
                self._end_attempt(self._running[native_id], Ending.LOST)
        if not self._has_left:
            self._batches.settle()
        if not self._unwritten and now >= self._held_until:
            self._start_all(self.scheduler.decide(now), now)
        batches_at = None if self._has_left else self._batches.step(now)
        watched = [item for item in self.running() if item.needs_watch]
        if watched and now >= self._looked_at + LIMITS_S:
            self._looked_at = now
            for item in watched:
                self._look(item, now)
        times = [self._looked_at + LIMITS_S] if watched else []
        if self._unwritten or self._held_until > now:
            times.append(self._held_until)
        others = (self.scheduler.next_time(), self._gpus.next_look(), batches_at)
        times += [time for time in others if time is not None]
        return max(0.0, min(times) - now) if times else None

    def take(self, ends: Iterable[Ended]) -> None:
        """Hears of attempts that are over."""
        for ended in ends:
            self._end(ended)

    def disown(self, ends: Iterable[Ended]) -> bool:
        """Hears of attempts that are over and no longer its own: nothing of them is recorded. Whether more run."""
        for ended in ends:
            self._running.pop(ended.native_id)
        return bool(self._running)

    # --- attempts ---

    def _adopt(self, job: Job, adopted: recovery.Adopted) -> None:
        log = f"{job.trial.directory}/{adopted.log}"
        options = self.intake.origin(job.trial).options(adopted.stage)
        began = started_at(adopted.native_id) or boot_seconds()
        running = Running(
            job, adopted.native_id, adopted.attempt, Slot(adopted.slot, None, adopted.shares),
            adopted.started.timestamp(), began, log, options, adopted.fallback,
        )  # fmt: skip
        self._running[adopted.native_id] = running
        self._gpus.begin(running, None)
        self._places.start(running.slot, boot_seconds())
        self._tell(Event(Kind.ADOPT, job, running.started, adopted.slot, attempt=adopted.attempt, log=log))

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
            text = f"{error.filename or job.trial.directory}: {error.strerror}"
            if error.errno in _SHORTAGES:
                self._hold(text, now)
                self.scheduler.ended(job, JobState.INTERRUPTED, again_at=now + HOLD_S)
            else:
                self._refuse(job, text)
        except RunnerError as error:  # its records or its plan were damaged meanwhile
            self._refuse(job, str(error))

    def _launch(self, start: Start, now: float) -> None:
        lease = None
        if self._gpus.is_leased(start.slot):
            lease = self._gpus.lease(start.slot)
            if lease is None:
                self.scheduler.refuse(start)
                return
        try:
            running, process = self._launcher.launch(start, now, lease)
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        self._running[running.native_id] = running
        self._gpus.begin(running, lease)
        self._places.start(running.slot, now)
        try:
            self._ledger.note_process(start.job, running.attempt, process)
        except OSError as error:  # its shell can be found without
            self._hold(f"{error.filename or start.job.trial.directory}: {error.strerror}", now)
        self._tell(
            Event(Kind.START, start.job, running.started, start.slot.label, attempt=running.attempt, log=running.log)
        )

    def _refuse(self, job: Job, text: str) -> None:
        """A job that cannot be started, whatever is tried: a directory that cannot be written, for one."""
        blocked = self.scheduler.ended(job, JobState.FAILED)
        self._tell(Event(Kind.FAIL, job, time.time(), cause="exit", line=text))
        for item in blocked:
            self._tell(Event(Kind.BLOCK, item, time.time()))
        self.intake.pipeline.ended(job.trial)

    def _hold(self, text: str, now: float) -> None:
        if now >= self._held_until + 2 * HOLD_S:
            self._say(f"{text}. Nothing starts until this is over; what runs goes on.")
        self._held_until = now + HOLD_S

    def _end(self, ended: Ended) -> None:
        item = self._running.pop(ended.native_id)
        now = boot_seconds()
        self._places.end(item.slot, now)
        job = item.job
        outcome = self._gpus.end(item, judge(item, ended, now - item.began), self._fallbacks(item))
        page = self._ledger.page(job.trial)
        failures, quick = page.note(job.stage, outcome, QUICK_S)
        is_left_out = self.intake.is_left_out(job.trial)
        due_at = None if is_left_out else again_at(outcome, item, failures, quick, now)
        blocked = self.scheduler.ended(job, outcome.state, due_at, now)
        self._unwritten.append((item, outcome, blocked))
        self._write_ends(now)
        if outcome.state is not JobState.COMPLETED or self.intake.pipeline.has_decided(job.trial):
            self._tell_end(item, outcome, is_again=due_at is not None)
        for other in blocked:
            self._tell(Event(Kind.PRUNE if outcome.state is JobState.PRUNED else Kind.BLOCK, other, time.time()))
        if due_at is None:
            self._after_end(job.trial, outcome.cause)
        if is_left_out:
            self.intake.forget(job.trial)
        elif item.options.prune is not None:
            # Before the others hear of the end: with what is revived, more is to come.
            self._revive(job, item.options.prune)
        self.intake.pipeline.ended(job.trial)

    def _fallbacks(self, item: Running) -> int:
        """How many commands for want of memory a stage has."""
        if not item.options.on_oom:
            return 0
        plan = self.intake.origin(item.job.trial).plan_of[item.job.stage]
        return len(plan.recipe(item.job.trial).fallbacks.get(item.job.stage, ()))

    def _returned(self, trial: Trial, cause: str | None) -> None:
        """A trial that another executor had has come to its end, as far as nobody asks anew."""
        self._after_end(trial, cause)
        if self.intake.is_left_out(trial):
            self.intake.forget(trial)
        for stage in self.scheduler.states(trial) if self.scheduler.trial(trial.key) else ():
            if (rule := self.intake.origin(trial).options(stage).prune) is not None:
                self._revive(Job(trial, stage), rule)
        self.intake.pipeline.ended(trial)

    def _after_end(self, trial: Trial, cause: str | None) -> None:
        states = self.scheduler.states(trial)
        is_complete = all(state is JobState.COMPLETED for state in states.values())
        if is_complete:
            for stage in states:
                remove_files(trial.directory, self.intake.origin(trial).options(stage).keep)
        if is_complete or not BLOCKING.isdisjoint(states.values()):
            cause = None if is_complete else cause
            if self._fail_fast.must_pause(trial.sweep, cause):
                self.pause(trial.sweep)
                why = f"its first {self._fail_fast.limit} trials all failed ({cause})"
                self._paused(
                    trial.sweep, f"Paused {trial.sweep}: {why}; `run resume` goes on, `run status` shows more."
                )

    def _write_ends(self, now: float) -> None:
        """Records what has ended; what the machine refuses to write is kept and tried again."""
        while self._unwritten:
            item, outcome, blocked = self._unwritten[0]
            try:
                self._ledger.close(item.job, item.attempt, outcome, blocked)
            except OSError as error:
                if os.path.isdir(item.job.trial.directory):  # noqa: PTH112
                    self._hold(f"{error.filename or item.job.trial.directory}: {error.strerror}", now)
                    return
            except RunnerError as error:  # the end itself is on record
                self._say(str(error))
            self._unwritten.pop(0)

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

    # --- limits ---

    def _look(self, item: Running, now: float) -> None:
        if item.ask_at is not None and now >= item.ask_at:
            item.ask_at = None
            self._executor.signal(item.native_id, signal.SIGTERM)
        if item.kill_at is not None and now >= item.kill_at:
            item.kill_at = None
            self._executor.signal(item.native_id, signal.SIGKILL)
        elif item.ending is None and (ending := exceeded(item, now)) is not None:
            self._end_attempt(item, ending)
        elif item.ending is None and (rule := item.options.prune) and self._pruning.has_news(item.job, rule):
            if self._pruning.is_behind(item.job, rule):
                self._end_attempts([item], Ending.PRUNE)
            self._revive(item.job, rule)

    def _revive(self, job: Job, rule: Rule) -> None:
        """Makes the pruned trials due again that have not fallen behind after all, after news of a job."""
        for trial in self._pruning.revived(job, rule):
            for due in self.scheduler.again(trial):
                self._tell(Event(Kind.WAIT, due, time.time()))
            self.intake.pipeline.reopen(trial)

    def _end_attempts(self, items: Iterable[Running], ending: Ending) -> None:
        """Asks attempts to end, wherever they are."""
        away = []
        for item in items:
            if item.native_id in self._running:
                self._end_attempt(item, ending)
            elif item.ending is None:
                item.ending = ending
                away.append(item.job.trial.key)
        self._batches.end(away, ending.value)

    def _end_attempt(self, item: Running, ending: Ending) -> None:
        """Asks an attempt to end; what is left of it after its grace is killed."""
        if item.ending is None:
            item.ending = ending
            item.kill_at = boot_seconds() + item.options.grace_s
            if ending in {Ending.LIMIT, Ending.TAKEN}:
                item.ask_at = boot_seconds() + ASK_S
            else:
                self._executor.signal(item.native_id, signal.SIGTERM)
