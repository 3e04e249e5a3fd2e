"""The places where attempts run, as they are shown: how busy each was, and why it is idle."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runner.model import Slot
from runner.queueing.busy import BusyTimes

if TYPE_CHECKING:
    from runner.gpus.desk import GpuPlace
    from runner.scheduler import Scheduler
    from runner.service.gpuwork import GpuWork


class Place(NamedTuple):
    """A place as it is shown; of a CPU slot there is neither name nor memory."""

    label: str
    busy: float  # share of the time, from 0 to 1
    why_idle: str
    name: str = ""
    used_mib: int | None = None
    total_mib: int | None = None


class Places:
    """Keeps the times of all places."""

    def __init__(self, scheduler: Scheduler, gpus: GpuWork) -> None:
        self._scheduler = scheduler
        self._gpus = gpus
        self._busy = BusyTimes()

    def start(self, slot: Slot, now: float) -> None:
        """An attempt has begun there."""
        for label in slot.places:
            self._busy.start(label, now)

    def end(self, slot: Slot, now: float) -> None:
        """An attempt there is over."""
        for label in slot.places:
            self._busy.end(label, now)

    def shown(self, now: float, refusal: str) -> list[Place]:
        """Every place that there is; `refusal`: why nothing may start, whatever is free."""
        gpus = {place.label: place for place in self._gpus.places()}
        single = [place for label in self._scheduler.labels() for place in Slot(label).places]
        labels = list(dict.fromkeys([*gpus, *single]))
        self._busy.see(labels, now)
        return [self._place(label, gpus.get(label), now, refusal) for label in labels]

    def _place(self, label: str, gpu: GpuPlace | None, now: float, refusal: str) -> Place:
        readings = () if gpu is None else (gpu.name, gpu.used_mib, gpu.total_mib)
        return Place(label, self._busy.share(label, now), self._why_idle(label, gpu, refusal), *readings)

    def _why_idle(self, label: str, gpu: GpuPlace | None, refusal: str) -> str:
        if self._busy.is_busy(label):
            return ""
        if gpu is not None and gpu.reason:
            return gpu.reason
        if self._scheduler.is_stopping:
            return "the daemon is about to leave"
        if self._scheduler.paused is None:
            return "paused"
        waits = self._scheduler.waits_for_gpu if label.startswith("gpu") else self._scheduler.waits_for_cpu
        if not waits:
            return "nothing waits for it that is not paused" if self._scheduler.paused else "nothing waits for it"
        return refusal or "what waits is not due yet, or needs more than there is"
