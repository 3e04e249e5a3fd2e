"""The attempts on this machine: what each has while it runs, the limits of its stage, and how it is asked to end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from runner.model import Slot
from runner.process import started_at
from runner.service.endings import Ending, Running, exceeded, judge
from runner.service.gpuwork import GpuWork
from runner.service.places import Place, Places

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runner.executors.base import Ended, Executor
    from runner.model import Job, Outcome
    from runner.plans import Plan
    from runner.records import Record
    from runner.recovery import Adopted
    from runner.scheduler import Scheduler, Start
    from runner.service.intake import Intake
    from runner.service.launching import Launcher

# A batch system may have sent the same signal to all programs: a second one kills a Python that is just leaving.
ASK_S = 1.0


class Attempts:
    """What runs here. Times are on the clock since boot."""

    def __init__(
        self, executor: Executor, scheduler: Scheduler, intake: Intake, launcher: Launcher, say: Callable[[str], None]
    ) -> None:
        self._executor = executor
        self._intake = intake
        self._launcher = launcher
        self._gpus = GpuWork(scheduler, say)
        self._places = Places(scheduler, self._gpus)
        self._running: dict[int, Running] = {}

    def ask(self, plan: Plan) -> None:
        """The GPUs that a plan wants count from now on."""
        self._gpus.ask(plan)

    def running(self) -> Collection[Running]:
        """Those under way."""
        return self._running.values()

    def has(self, item: Running) -> bool:
        """Whether an attempt runs here, and not in a task of a batch."""
        return item.native_id in self._running

    def places(self, now: float, refusal: str) -> list[Place]:
        """Each place where attempts run, as it is shown; `refusal`: why nothing may start, whatever is free."""
        return self._places.shown(now, refusal)

    # --- begin and end ---

    def start(self, start: Start, now: float) -> tuple[Running, Record] | None:
        """Starts an attempt; returns it with what it takes to find it again, or None where its slot is taken.

        Raises:
            OutputGoneError: the output directory is no more.
            OSError: the machine refused.
            RunnerError: its records or its plan were damaged meanwhile.
        """
        lease = None
        if self._gpus.is_leased(start.slot):
            lease = self._gpus.lease(start.slot)
            if lease is None:
                return None
        try:
            item, process = self._launcher.launch(start, now, lease)
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        self._running[item.native_id] = item
        self._gpus.begin(item, lease)
        self._places.start(item.slot, now)
        return item, process

    def adopt(self, job: Job, found: Adopted, now: float) -> Running:
        """Takes in an attempt that an earlier daemon started."""
        options = self._intake.origin(job.trial).options(found.stage)
        item = Running(
            job, found.native_id, found.attempt, Slot(found.slot, None, found.shares), found.started.timestamp(),
            started_at(found.native_id) or now, f"{job.trial.directory}/{found.log}", options, found.fallback,
        )  # fmt: skip
        self._running[found.native_id] = item
        self._gpus.begin(item, None)
        self._places.start(item.slot, now)
        return item

    def ended(self, ended: Ended, now: float) -> tuple[Running, Outcome]:
        """An attempt is over: what came of it."""
        item = self._running.pop(ended.native_id)
        self._places.end(item.slot, now)
        return item, self._gpus.end(item, judge(item, ended, now - item.began), self._fallbacks(item))

    def forget(self, native_id: int) -> None:
        """An attempt is over that another daemon has taken up: what came of it is not asked."""
        self._running.pop(native_id)

    # --- limits ---

    def end(self, item: Running, ending: Ending, now: float) -> None:
        """Asks an attempt to end, if that was not done; what is left of it after its grace is killed."""
        if item.ending is None:
            item.ending = ending
            item.kill_at = now + item.options.grace_s
            if ending in {Ending.LIMIT, Ending.TAKEN}:
                item.ask_at = now + ASK_S
            else:
                self._executor.signal(item.native_id, signal.SIGTERM)

    def kill(self) -> None:
        """Kills all."""
        for item in self._running.values():
            self._executor.signal(item.native_id, signal.SIGKILL)

    def look(self, now: float) -> None:
        """Ends what has come to a limit of its stage, and kills what has had its grace."""
        for item in self._running.values():
            if item.ask_at is not None and now >= item.ask_at:
                item.ask_at = None
                self._executor.signal(item.native_id, signal.SIGTERM)
            if item.kill_at is not None and now >= item.kill_at:
                item.kill_at = None
                self._executor.signal(item.native_id, signal.SIGKILL)
            elif item.ending is None and (ending := exceeded(item, now)) is not None:
                self.end(item, ending, now)

    # --- GPUs ---

    def next_gpu_look(self) -> float | None:
        """When the GPUs are to be looked at again; None: not before something happens."""
        return self._gpus.next_look()

    def look_at_gpus(self, now: float, may_start: bool) -> None:
        """Tells the scheduler which GPUs may be used, if it is time, and ends what has lost its own."""
        look_at = self._gpus.next_look()
        if look_at is not None and now >= look_at:
            for native_id in self._gpus.look(now, may_start):
                self.end(self._running[native_id], Ending.LOST, now)

    def close(self) -> None:
        """Nothing starts any more: no other daemon is to leave a GPU to this one."""
        self._gpus.close()

    def _fallbacks(self, item: Running) -> int:
        """How many commands for want of memory a stage has."""
        if not item.options.on_oom:
            return 0
        plan = self._intake.origin(item.job.trial).plan_of[item.job.stage]
        return len(plan.recipe(item.job.trial).fallbacks.get(item.job.stage, ()))
