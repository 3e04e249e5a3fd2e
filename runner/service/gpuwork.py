"""What the daemon does about GPUs: which cards the scheduler may use, who holds them, what attempts taught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import SystemFaultError
from runner.gpus.desk import GpuDesk, SampleFile, sample_of
from runner.gpus.learning import kind_of
from runner.model import JobState
from runner.triage import CauseKind
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runner.gpus.desk import GpuPlace, Seen
    from runner.gpus.leases import Lease
    from runner.gpus.packing import Estimate
    from runner.model import Job, Outcome, Slot
    from runner.plans import Plan
    from runner.scheduler import Scheduler
    from runner.service.endings import Running

SAMPLES = "vram.jsonl"


class GpuWork:
    """The GPUs of one daemon."""

    def __init__(self, scheduler: Scheduler, say: Callable[[str], None]) -> None:
        self._scheduler = scheduler
        self._say = say
        self._desk = GpuDesk(say)
        self._samples: SampleFile | None = None
        self._learners: dict[Job, Running] = {}  # the attempts that show what their kind needs
        self._fault = ""

    def ask(self, plan: Plan) -> None:
        """What a plan wants counts from now on."""
        self._desk.ask(plan.header.gpus)
        if self._samples is None and any(item.per_gpu is None for item in plan.header.options.values()):
            self._samples = SampleFile(Path(plan.output) / STATE_DIRECTORY / SAMPLES)
            for kind, sample in self._samples.read():
                self._scheduler.learning.note(kind, sample)

    def next_look(self) -> float | None:
        """When to look again, on the clock since boot."""
        return self._desk.next_look(self._scheduler.waits_for_gpu)

    def look(self, now: float, may_start: bool = True) -> list[int]:
        """Tells the scheduler what may be used; returns the native ids of attempts whose GPU is lost.

        Where nothing `may_start`, whatever is free, no other daemon is to leave a GPU to this one.
        """
        lost: list[int] = []
        try:
            seen = self._desk.look(now)
            lost = seen.lost
            self._scheduler.set_cards(seen.cards)
            self._learn_meanwhile(seen.steady)
            self._give_back()
            self._desk.wait_for(self._scheduler.gpu_wish(now) if may_start else None, now)
        except SystemFaultError as error:
            self._tell_fault(error)
            self._scheduler.set_cards([])
        else:
            self._fault = ""
        return lost

    def lease(self, slot: Slot) -> Lease | None:
        """Leases what a slot has; None where another daemon was faster, or where nothing can be leased."""
        try:
            return self._desk.lease(slot.shares)
        except SystemFaultError as error:
            self._tell_fault(error)
            self._scheduler.set_cards([])  # until the next look
            return None

    def is_leased(self, slot: Slot) -> bool:
        """Whether a slot needs a lease: its GPUs are known to the driver."""
        return bool(slot.shares) and self._desk.is_active

    def begin(self, item: Running, lease: Lease | None) -> None:
        """Watches an attempt that holds GPUs."""
        if not item.slot.shares:
            return
        expected_mib = None
        if item.options.per_gpu is None:
            need = self._need(item.job)
            expected_mib = 0 if need is None else need.mib
            if self._desk.is_active:
                self._learners[item.job] = item
        self._desk.begin(item.native_id, item.slot.shares, expected_mib, lease)

    def end(self, item: Running, outcome: Outcome, fallbacks: int) -> Outcome:
        """The outcome with what was seen of the attempt, and with what follows where it was out of memory.

        `fallbacks`: how many further commands for want of memory its stage has.
        """
        self._learners.pop(item.job, None)
        seen = self._desk.end(item.native_id)
        if seen is not None:
            outcome = replace(outcome, peak_vram_mib=seen.peak_mib, peak_host_mib=seen.usage.host_mib or None)
            if outcome.cpu_s is None:
                outcome = replace(outcome, cpu_s=seen.usage.cpu_s)
        was_oom = outcome.cause == CauseKind.CUDA_OOM.value and outcome.state is JobState.FAILED
        if seen is not None and (was_oom or outcome.state is JobState.COMPLETED):
            self._learn(item, seen, was_oom, None if was_oom else outcome.seconds)
        learning = self._scheduler.learning
        if was_oom and seen is not None:
            count = len(item.slot.shares)
            if learning.was_oom(item.job, seen.most, seen.card_mib, seen.cards_mib, count):
                return replace(outcome, state=JobState.INTERRUPTED, fallback=item.fallback)
        if was_oom and item.fallback < fallbacks:
            return replace(outcome, state=JobState.INTERRUPTED, fallback=item.fallback + 1)
        if outcome.state is not JobState.INTERRUPTED:
            learning.forget(item.job)
            return outcome
        return replace(outcome, fallback=item.fallback)

    def close(self) -> None:
        """Nothing is waited for any more."""
        self._desk.wait_for(None, 0.0)

    def places(self) -> list[GpuPlace]:
        """The GPUs that are meant, as they were last seen."""
        places = self._desk.places()
        return [place if place.reason else replace(place, reason=self._fault) for place in places]

    def _tell_fault(self, error: SystemFaultError) -> None:
        if str(error) != self._fault:
            self._fault = str(error)
            self._say(f"{error} Nothing starts on a GPU until this is over.")

    def _need(self, job: Job) -> Estimate | None:
        return self._scheduler.learning.need(kind_of(job.trial, job.stage))

    def _learn_meanwhile(self, steady: Collection[int]) -> None:
        """Learns from attempts that run: a steady one where nothing is known, and one that needs more than is known."""
        for job, item in self._learners.items():
            seen, need = self._desk.seen(item.native_id), self._need(job)
            if seen is not None and (item.native_id in steady if need is None else (seen.peak_mib or 0) > need.mib):
                self._learn(item, seen, was_oom=False, seconds=None)

    def _give_back(self) -> None:
        """Gives back what running attempts hold of GPUs beyond what is known by now to be needed."""
        for job, item in self._learners.items():
            need, slot = self._need(job), self._scheduler.needed(job)
            if need is not None and slot is not None:
                self._desk.shrink(item.native_id, slot.shares, need.mib)
                self._scheduler.shrink(job, slot)

    def _learn(self, item: Running, seen: Seen, was_oom: bool, seconds: float | None) -> None:
        """`seconds`: how long the attempt took, when it came to its end."""
        if item.options.per_gpu is not None or self._samples is None or item.fallback:  # which needs less than its kind
            return
        sample = sample_of(seen, was_oom, seconds)
        if sample is None:
            return
        kind = kind_of(item.job.trial, item.job.stage)
        self._scheduler.learning.note(kind, sample)
        try:
            self._samples.add(kind, sample)
        except OSError as error:  # it is learned anew by the next daemon
            self._say(f"What `{kind}` needs cannot be kept: {error.strerror}.")
