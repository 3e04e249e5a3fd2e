"""Carries out a plan: the only place that acts, one action at a time.

It asks the scheduler what to start, starts it, waits for ends, and writes what happened into the trials' records before
it decides anew. It may be killed at any instruction: a job counts as finished only by its recorded exit code.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner import records, recovery, yamlfile
from runner.errors import SystemFaultError
from runner.events import Event, Kind
from runner.executors.base import Launch
from runner.model import Job, JobState, Outcome
from runner.process import this_host
from runner.trials import CONFIG_FILE, nested

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.events import Watcher
    from runner.executors.base import Ended, Executor
    from runner.model import Slot, Trial
    from runner.scheduler import Scheduler, Start

GRACE_S = 20.0  # between the polite signal and the hard one
TICK_S = 0.25

_KIND_OF_END = {
    JobState.COMPLETED: Kind.DONE,
    JobState.FAILED: Kind.FAIL,
    JobState.INTERRUPTED: Kind.INTERRUPT,
}


@dataclass
class Running:
    """An attempt under way."""

    job: Job
    attempt: int
    slot: str
    started: float  # seconds since the epoch, for the records
    began: float  # on the monotonic clock, for durations
    log: str


@dataclass
class _Trial:
    """What the daemon remembers of a trial."""

    attempts: dict[str, int]
    stat: dict[str, JobState]
    is_new: bool  # without a directory: nothing there to be read
    is_written: bool = False


class Daemon:
    """Runs trials to their ends, or until it is told to stop."""

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        watcher: Watcher,
        plan_time: str,
        environment: Mapping[str, str],
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._watcher = watcher
        self._plan_time = plan_time
        self._environment = dict(environment)
        self._running: dict[int, Running] = {}
        self._trials: dict[int, _Trial] = {}
        self._stops = 0
        self._kill_at: float | None = None
        self._fault: OSError | None = None

    def submit(self, trials: Sequence[Trial], is_forced: bool, takes_over: bool) -> None:
        """Takes trials in, as their records show them; attempts that still run are watched from here on."""
        for trial in trials:
            found = recovery.recover(trial, self._executor, this_host(), is_forced, takes_over)
            self._trials[trial.index] = _Trial(found.attempts, {}, found.is_new)
            self._scheduler.add(trial, found.states)
            for stage, state in found.states.items():
                if state is JobState.COMPLETED:
                    self._watcher.handle(Event(Kind.SKIP, Job(trial, stage), time.time()))
            for adopted in found.adopted:
                self._adopt(trial, adopted)

    def request_stop(self) -> None:
        """Ends everything politely; called again, at once. Safe in a signal handler."""
        self._stops += 1

    @property
    def was_stopped(self) -> bool:
        """Whether the run was told to stop before its end."""
        return self._stops > 0

    def run(self) -> None:
        """Works until nothing is left to do.

        Raises:
            SystemFaultError: the records could not be written; what ran was ended.
        """
        stops_seen = 0
        while True:
            if self._stops > stops_seen:
                stops_seen = self._stops
                self._end_all(is_hard=stops_seen > 1)
            for start in self._scheduler.decide():
                self._start_or_stop(start)
            if not self._running:
                break
            for ended in self._executor.wait(TICK_S):
                self._end(ended)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._end_all(is_hard=True)
            self._watcher.tick(time.time())
        if self._fault is not None:
            raise SystemFaultError(
                f"{self._fault.filename}: {self._fault.strerror}; what ran was ended."
            ) from self._fault

    # --- actions ---

    def _start_or_stop(self, start: Start) -> None:
        if self._fault is None:
            try:
                self._start(start)
            except OSError as error:
                self._fail_all(error)
        if self._fault is not None and all(running.job != start.job for running in self._running.values()):
            self._scheduler.ended(start.job, JobState.INTERRUPTED)

    def _start(self, start: Start) -> None:
        job = start.job
        trial, stage = job
        known = self._prepare(trial)
        attempt = known.attempts.get(stage, 0) + 1
        now = time.time()
        log = _new_log(trial.directory, stage, now)
        records.append_attempt(trial.directory, _start_record(stage, attempt, now, start.slot, log))
        known.attempts[stage] = attempt
        known.stat[stage] = JobState.RUNNING
        records.write_stat(trial.directory, known.stat)
        log_path = f"{trial.directory}/{log}"
        exit_record = recovery.exit_record(trial.directory, stage, attempt)
        environment = self._environment_of(trial, stage, attempt, start.slot)
        native_id, process = self._executor.start(Launch(trial.commands[stage], exit_record, log_path, environment))
        self._running[native_id] = Running(job, attempt, start.slot.label, now, time.monotonic(), log_path)
        record = {"event": "process", "stage": stage, "attempt": attempt, **process}
        records.append_attempt(trial.directory, record)
        self._watcher.handle(Event(Kind.START, job, now, start.slot.label, attempt=attempt, log=log_path))

    def _prepare(self, trial: Trial) -> _Trial:
        """The trial's directory with its `param`, as this run's first job of it needs them."""
        known = self._trials[trial.index]
        if known.is_written:
            return known
        _make_directory(trial.directory)
        old = {} if known.is_new else records.read_param(trial.directory) or {}
        states = self._scheduler.states(trial)
        due = {stage: line for stage, line in trial.commands.items() if states[stage] is not JobState.COMPLETED}
        own = {"_name": trial.name, "_output": trial.output, "_time": self._plan_time}
        records.write_param(trial.directory, trial.params, own, (old.get("_scripts") or {}) | due)
        if trial.needs_config:
            records.replace_text(f"{trial.directory}/{CONFIG_FILE}", yamlfile.dump(nested(trial.params)))
        if not known.is_new:
            known.stat = records.read_stat(trial.directory) | known.stat
        known.is_written = True
        return known

    def _environment_of(self, trial: Trial, stage: str, attempt: int, slot: Slot) -> dict[str, str]:
        own = {"RUNNER_OUTPUT": trial.output, "RUNNER_STAGE": stage, "RUNNER_ATTEMPT": str(attempt)}
        if slot.gpus is not None:
            # Without the order, CUDA counts GPUs by speed and NVML by bus.
            own |= {"CUDA_VISIBLE_DEVICES": slot.gpus, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return {**self._environment, **own}

    def _adopt(self, trial: Trial, adopted: recovery.Adopted) -> None:
        job = Job(trial, adopted.stage)
        log = f"{trial.directory}/{adopted.log}"
        self._scheduler.adopt(trial, adopted.stage, adopted.slot)
        started = adopted.started.timestamp()
        began = time.monotonic() - max(0.0, time.time() - started)
        running = Running(job, adopted.attempt, adopted.slot, started, began, log)
        self._running[adopted.native_id] = running
        self._watcher.handle(Event(Kind.ADOPT, job, running.started, adopted.slot, attempt=adopted.attempt, log=log))

    def _end(self, ended: Ended) -> None:
        running = self._running.pop(ended.native_id)
        now = time.time()
        outcome = self._outcome(ended, running)
        blocked = self._scheduler.ended(running.job, outcome.state)
        try:
            self._record_end(running, outcome, blocked, now)
        except OSError as error:
            if os.path.isdir(running.job.trial.directory):  # noqa: PTH112
                self._fail_all(error)
        kind, slot = _KIND_OF_END[outcome.state], running.slot
        seconds, code = outcome.seconds, outcome.exit_code
        self._watcher.handle(Event(kind, running.job, now, slot, seconds, code, running.attempt, running.log))
        for job in blocked:
            self._watcher.handle(Event(Kind.BLOCK, job, now))

    def _outcome(self, ended: Ended, running: Running) -> Outcome:
        trial, stage = running.job
        exit_code = ended.exit_code
        if exit_code is None:
            exit_code = records.read_exit_code(trial.directory, stage, running.attempt)
        state = recovery.state_of(exit_code, self._stops > 0 or self._fault is not None)
        if not os.path.isdir(trial.directory):  # noqa: PTH112 - a command that deletes its own directory leaves no result
            state = JobState.FAILED
        seconds = time.monotonic() - running.began
        return Outcome(state, exit_code, seconds, ended.peak_rss_mib, ended.cpu_s)

    def _record_end(self, running: Running, outcome: Outcome, blocked: Sequence[Job], now: float) -> None:
        trial, stage = running.job
        records.append_attempt(trial.directory, records.end_record(stage, running.attempt, outcome, _iso(now)))
        known = self._trials[trial.index]
        if not known.stat:  # an adopted attempt: this run has not read it yet
            known.stat = records.read_stat(trial.directory)
        known.stat[stage] = outcome.state
        known.stat.update((job.stage, JobState.BLOCKED) for job in blocked)
        records.write_stat(trial.directory, known.stat)

    def _end_all(self, is_hard: bool) -> None:
        """Signals every running attempt; the polite signal is followed by the hard one after the grace time."""
        self._scheduler.stop()
        for native_id in self._running:
            self._executor.signal(native_id, signal.SIGKILL if is_hard else signal.SIGTERM)
        self._kill_at = None if is_hard else time.monotonic() + GRACE_S
        if self._running and not is_hard:
            count = len(self._running)
            self._watcher.say(
                f"Stopping: {count} running {'attempt was' if count == 1 else 'attempts were'} asked to end "
                f"(SIGTERM; SIGKILL after {GRACE_S:g} s, or at once with another Ctrl-C)."
            )

    def _fail_all(self, error: OSError) -> None:
        if self._fault is None:
            self._fault = error
            self._end_all(is_hard=False)


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")


@functools.lru_cache(maxsize=4)
def _local(second: int) -> str:
    return time.strftime("%Y%m%d.%H%M%S", time.localtime(second))


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path)  # noqa: PTH102 - called for every trial; the directory above is nearly always there
    except (FileExistsError, FileNotFoundError):
        os.makedirs(path, exist_ok=True)  # noqa: PTH103


def _start_record(stage: str, attempt: int, now: float, slot: Slot, log: str) -> records.Record:
    host = this_host()
    return {
        "event": "start",
        "stage": stage,
        "attempt": attempt,
        "started": _iso(now),
        "slot": slot.label,
        "log": log,
        "host": host.name,
        "boot": host.boot,
        "pid_namespace": host.pid_namespace,
    }


def _new_log(directory: str, stage: str, now: float) -> str:
    """A log name that no earlier attempt has, in mlrunner's form."""
    second = name = f"log.{stage}.{_local(int(now))}"
    count = 1
    while os.path.exists(f"{directory}/{name}"):  # noqa: PTH110 - called for every job
        count += 1
        name = f"{second}.{count}"
    return name
