"""A task of a batch, on the machine that the batch system chose: it runs its trials as a daemon does, in their
directories, and leaves word of it for the daemon that submitted it.

`python -m runner.task enter FOLDER SCRIPT` runs the batch's script anew in the environment of whoever typed `run`, and
the script's last line, `python -m runner.task run FOLDER`, runs the task.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner import plans, process, resources
from runner.appendfile import write_all
from runner.batch import batchfile, claims
from runner.batch.script import INSIDE
from runner.daemon import Daemon
from runner.errors import RunnerError
from runner.events import Kind
from runner.executors import registry, scripts
from runner.executors.local import LocalExecutor
from runner.guard import Guard
from runner.model import LOCAL, Needs
from runner.recovery import exit_record
from runner.service.endings import Ending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.batch.batchfile import Intent, Part
    from runner.batch.claims import Claim
    from runner.events import Event
    from runner.executors.batch import BatchKeys
    from runner.resources import Places

_GOLDEN = 0.6180339887  # its multiples spread evenly, however many there are
BEATS = 25  # in the time after which a task that shows no sign of life counts as dead
_BLIND_BEATS = 20  # so many may fail, before what runs is killed: after a few more another copy may begin
# What the batch system says about the allocation; the rest of the environment is the user's.
_ITS_OWN = ("SLURM", "SGE_", "PE_", "CUDA_VISIBLE", "NVIDIA_VISIBLE", "ROCR_VISIBLE", "GPU_DEVICE_", "ZE_AFFINITY")
_ITS_OWN_NAMES = {
    "JOB_ID", "JOB_NAME", "TASK_ID", "NSLOTS", "NHOSTS", "NQUEUES", "QUEUE", "HOSTNAME", "TMPDIR", "TMP", "RESTARTED",
}  # fmt: skip
EXIT_OK, EXIT_FAILED = 0, 1


def main(arguments: Sequence[str]) -> int:
    """Does what the batch's script asks for."""
    word, folder, *rest = arguments
    try:
        if word == "enter":
            _enter(Path(folder), rest)
        return _run(Path(folder))
    except RunnerError as error:
        print(f"run: error: {error}", file=sys.stderr)
        return EXIT_FAILED


def _enter(folder: Path, script: Sequence[str]) -> None:
    """Becomes the script, in the user's environment with what the batch system says of the allocation."""
    if not folder.is_dir():
        raise RunnerError(f"{folder}: this batch is over, or was taken back.")
    intent = batchfile.read(folder)
    theirs = plans.read_secrets(_output(folder), intent.plan).environment
    own = {name: value for name, value in os.environ.items() if _is_its_own(name)}
    environment = {name: value for name, value in theirs.items() if not _is_its_own(name)} | own | {INSIDE: "1"}
    os.execve(process.bash(), [process.bash(), *script], environment)


def _is_its_own(name: str) -> bool:
    return name.startswith(_ITS_OWN) or name in _ITS_OWN_NAMES


def _output(folder: Path) -> Path:
    return folder.parents[2]


def _run(folder: Path) -> int:
    if not folder.is_dir():
        raise RunnerError(f"{folder}: this batch is over, or was taken back.")
    intent = batchfile.read(folder)
    executor = registry.load(intent.executor)
    keys = executor.keys.model_validate(intent.told)
    here = executor.here(os.environ)
    if here is None:
        raise RunnerError(f"{folder}: not in a task of {intent.executor}.")
    signals = _Signals()
    claim = claims.take(folder, here.id.number, here, keys.lease)
    if claim is None:
        print(f"{folder}: task {here.id.number} was taken back, or another copy runs it.")
        return EXIT_OK
    os.environ.pop(INSIDE, None)
    try:
        return _Task(folder, intent, keys, here.id.number, claim, signals).run()
    except RunnerError as error:  # it would be no better in another allocation
        claim.over("failed", str(error))
        raise


class _Signals:
    """Hears that the allocation is about to end: at its time limit, or because somebody else needs it."""

    def __init__(self) -> None:
        self.told: signal.Signals | None = None  # the first that was heard
        self._read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
            signal.signal(number, self._hear)

    def wait(self, timeout_s: float) -> None:
        """Waits for a signal, a child's end among them."""
        if select.select([self._read], [], [], timeout_s)[0]:
            os.read(self._read, 4096)

    @property
    def is_told(self) -> bool:
        """Whether one was heard."""
        return self.told is not None

    def die(self) -> None:
        """Ends this process by a signal of Grid Engine's that it has heard, if it was one: its accounting tells a task
        that was deleted, or came to its time limit, from others by nothing else."""
        if self.told in {signal.SIGUSR1, signal.SIGUSR2}:
            signal.signal(self.told, signal.SIG_DFL)
            os.kill(os.getpid(), self.told)

    def _hear(self, number: int, _frame: object) -> None:
        self.told = self.told or signal.Signals(number)


class _Task:
    """One task, and the daemon of its trials."""

    def __init__(
        self, folder: Path, intent: Intent, keys: BatchKeys, number: int, claim: Claim, signals: _Signals
    ) -> None:
        self._folder, self._intent, self._keys = folder, intent, keys
        self._number = number
        self._parts = intent.tasks[number]
        self._claim = claim
        self._signals = signals
        self._words = batchfile.Words(folder)
        self._guard = Guard()
        self._executor = LocalExecutor()
        self._daemon = Daemon(self._executor, self._tell, self._say, lambda _, why: self._say(why), claim.name)
        self._beat_s = keys.lease / BEATS
        self._shown_at = time.monotonic()
        self._began_at = time.monotonic()
        self._is_told = self._was_ended = False

    def run(self) -> int:
        """Runs the trials to their ends; returns the exit code of the task."""
        try:
            return self._work()
        except BaseException:  # whoever begins the task anew must not find anything alive
            self._kill()
            raise

    def _work(self) -> int:
        for plan in self._plans():
            self._daemon.submit(plan, lambda: None)
        self._spread()
        beat_at = 0.0
        while not self._daemon.is_done:
            now = time.monotonic()
            if now >= beat_at:  # before anything else: this process may have been stopped for long
                beat_at = now + self._beat_s
                if not self._beat(now):
                    return self._lose()
            if self._signals.is_told and not self._is_told:
                # Before what has ended is judged: at preemption programs get the same signal at the same time.
                self._end_with_allocation()
            self._daemon.take(self._executor.poll())
            step_s = self._daemon.step()
            waits = [step_s, self._executor.poll_s, beat_at - time.monotonic()]
            self._signals.wait(max(0.0, min(item for item in waits if item is not None)))
        self._claim.over(claims.ENDED if self._was_ended else "done")
        if self._was_ended:
            self._signals.die()
        return EXIT_OK

    def _end_with_allocation(self) -> None:
        self._is_told = True
        self._hear_words()  # it may end because the user said so
        if not self._daemon.stopped:
            self._say("The allocation is about to end; programs are asked to save and to leave.")
            is_time_up = scripts.is_time_up(self._keys, time.monotonic() - self._began_at)
            self._daemon.stop(Ending.LIMIT if is_time_up else Ending.TAKEN)
            self._was_ended = True

    def _spread(self) -> None:
        """Waits a part of the first stage's `stagger`, so that tasks that begin at once do not all read at once."""
        first = next(iter(self._daemon.scheduler.trials()))
        spread = self._daemon.intake.origin(first).options(first.stages[0]).stagger_s
        end = time.monotonic() + spread * (self._number * _GOLDEN % 1)
        while not self._signals.is_told and (left := end - time.monotonic()) > 0:
            self._claim.beat()
            self._signals.wait(min(left, self._beat_s))

    def _beat(self, now: float) -> bool:
        """Shows that this copy lives, and hears what it is told; False: another one may have the task."""
        try:
            if self._claim.is_lost:
                return False
            self._claim.beat()
            self._hear_words()
        except FileNotFoundError:  # the batch is over
            return False
        except OSError as error:  # a file server that does not answer, for one
            self._say(f"{error.filename or self._folder}: {error.strerror}.")
            return now < self._shown_at + _BLIND_BEATS * self._beat_s
        self._shown_at = now
        return True

    def _hear_words(self) -> None:
        for item in self._words.take():
            known = [trial for trial in self._daemon.scheduler.trials() if trial.key in item["trials"]]
            if not known:  # another task's
                continue
            if item["word"] in {Ending.STOP, batchfile.KILL}:
                self._daemon.stop()
                if item["word"] == batchfile.KILL:
                    self._daemon.stop()  # the second time at once
            else:
                (self._daemon.prune if item["word"] == Ending.PRUNE else self._daemon.cancel)(known)

    def _lose(self) -> int:
        """Another copy has the task: nothing of this one may write any more, nor is anything of it recorded."""
        self._kill()
        with suppress(OSError):  # whoever waits for it sees that the beats have ended
            self._claim.over("lost")
        self._say("Another copy of this task has begun, or its batch is over: what ran here was killed.")
        return EXIT_FAILED

    def _kill(self) -> None:
        for item in list(self._daemon.running()):
            self._executor.signal(item.native_id, signal.SIGKILL)
        while self._daemon.disown(self._executor.poll()):
            self._signals.wait(0.1)

    # --- what it runs ---

    def _plans(self) -> list[plans.Plan]:
        """The plans of the task's trials, each with those alone, as they run here."""
        groups: dict[tuple[str, str], list[tuple[Part, list[str]]]] = defaultdict(list)
        for part in self._parts:
            for plan_id in dict.fromkeys(plan_id for plan_id, *_ in part.stages.values()):
                stages = [stage for stage, (owner, *_) in part.stages.items() if owner == plan_id]
                groups[plan_id, part.ask].append((part, stages))
        return [_plan(_output(self._folder), *key, members, self._places()) for key, members in groups.items()]

    def _places(self) -> Places:
        count = len(self._parts) if self._keys.pack == "auto" else self._keys.pack
        return resources.in_allocation(self._intent.gpus != 0, count)

    # --- what is told ---

    def _tell(self, event: Event) -> None:
        trial, stage = event.job
        token = exit_record(trial.directory, stage, event.attempt).token
        (self._guard.add if event.kind in {Kind.START, Kind.ADOPT} else self._guard.remove)(token)
        try:
            self._claim.tell(replace(event, slot=f"{process.this_host().name} {event.slot}".strip()).to_wire())
        except OSError as error:  # the trial's records have it
            self._say(f"{error.filename or self._folder}: {error.strerror}.")

    def _say(self, message: str) -> None:
        with suppress(OSError):
            write_all(1, f"{message}\n".encode())


class _PartOfPlan(plans.Plan):
    """A plan with some of its trials, asked for by a word of the user's that may be later than the plan."""

    _ask = ""

    @property
    def ask(self) -> str:
        """By which word of the user's its trials are asked for."""
        return self._ask


def _plan(
    output: Path, plan_id: str, ask: str, members: Sequence[tuple[Part, list[str]]], places: Places
) -> plans.Plan:
    spots = [(offset, checksum) for part, stages in members for _, offset, checksum in [part.stages[stages[0]]]]
    plan = _PartOfPlan(output, plan_id, spots)
    plan._ask = ask
    per_gpu = len(members)
    options = {stage: replace(item, executor=LOCAL, prune=None, keep={}) for stage, item in plan.header.options.items()}
    if places.gpus is not None:
        options = {
            stage: item if item.per_gpu is None else replace(item, per_gpu=per_gpu) for stage, item in options.items()
        }
    plan.header = replace(
        plan.header, slots=places.slots, gpus=places.gpus, options=options, is_full=False, prunes=False,
        takes_over=True, source=None, fail_fast=None,
    )  # fmt: skip
    plan.secrets = plans.Secrets(dict(os.environ))
    plan.trials = [
        replace(trial, stages=tuple(stages), needs=None if part.inputs is None else Needs(inputs=part.inputs))
        for trial, (part, stages) in zip(plan.trials, members, strict=True)
    ]
    return plan


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
