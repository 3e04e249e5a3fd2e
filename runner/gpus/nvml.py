"""Readings of all GPUs through NVML; the library's failures become part of the reading."""

from __future__ import annotations

import math
import os
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pynvml

from runner.gpus import lineage
from runner.gpus.answers import Answers, Handle, told
from runner.gpus.devices import Device, GpuProcess, Health, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MIB = 2**20
REOPEN_S = 10.0  # NVML's initialisation takes up to seconds where nothing keeps the driver awake
INIT = 1  # a sandbox may show all its programs as the one process outside that it is, which is the first of its own
PATIENCE_S = 30.0  # for an answer; a driver in trouble may hold a call for ever

# The GPU is gone. 'Unknown' is what most drivers say of one that fell off the bus.
_LOST = frozenset(
    {
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_UNKNOWN,
    }
)
_NO_DRIVER = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver: libnvidia-ml.so.1 was not found",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA driver was replaced while it ran; a reboot is needed",
}
_GONE = "it is gone from the driver's list"


class Nvml:
    """The driver, opened at the first reading and again after a loss; no method raises or hangs because of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, patience_s: float = PATIENCE_S) -> None:
        """`patience_s`: how long a reading may keep its caller waiting; it goes on without that."""
        self._clock = clock
        self._patience_s = patience_s
        self._reading: Future[Snapshot] | None = None  # one without an answer
        self._is_open = False
        self._reopen_at = -math.inf
        self._no_driver = ""
        self._is_mute = False  # it does not answer, and may be there: what runs on its GPUs may well go on
        self._handles: list[Handle] = []
        self._fixed: dict[int, Device] = {}  # what does not change, by index
        self._known: dict[str, Device] = {}  # the last reading of each, by UUID
        self._answers = Answers()
        self._processes: dict[int, GpuProcess] = {}  # what /proc said of each pid, while it is on a GPU
        self._noticed: set[str] = set()
        self._notices: list[str] = []

    def snapshot(self) -> Snapshot:
        """All GPUs and MIG instances now; one that was there earlier and is no more is lost.

        None of them can be read until a reading that has outlasted the patience is over.
        """
        if self._reading is None or self._reading.done():  # what came so late is no more so
            self._reading = _in_thread(self._read_now)
            with suppress(TimeoutError):
                snapshot = self._reading.result(self._patience_s)
                self._reading = None
                return snapshot
        silent = f"the NVIDIA driver has not answered for {self._patience_s:g} s"
        devices = tuple(_without_readings(device, Health.UNREADABLE, silent) for device in self._shown())
        return Snapshot(self._clock(), devices, silent)

    def _read_now(self) -> Snapshot:
        now_s = self._clock()
        if now_s >= self._reopen_at:
            self._open(now_s)
        devices = {device.uuid: device for device in self._read_all()}
        for uuid, last in self._known.items():
            if uuid in devices:
                continue
            gpu = devices.get(last.parent or "")
            if gpu is not None and gpu.health is not Health.WELL:
                devices[uuid] = _without_readings(last, gpu.health, gpu.fault)
            else:
                health = Health.UNREADABLE if self._is_mute else Health.LOST
                devices[uuid] = _without_readings(last, health, self._no_driver or _GONE)
        self._known = devices
        listed = {process.pid for device in devices.values() for process in device.processes or ()}
        self._processes = {pid: process for pid, process in self._processes.items() if pid in listed}
        if self._no_driver or any(device.health is not Health.WELL for device in devices.values()):
            self._reopen_at = min(self._reopen_at, now_s + REOPEN_S)
        return Snapshot(now_s, self._shown(), self._no_driver)

    def _shown(self) -> tuple[Device, ...]:
        return tuple(sorted(self._known.values(), key=lambda device: (device.bus, device.index)))

    def take_notices(self) -> list[str]:
        """What the driver turned out not to tell, each thing once."""
        notices, self._notices = self._notices, []
        return notices

    def close(self) -> None:
        """Gives the driver back, unless it is still held by a call."""
        if self._reading is not None and not self._reading.done():
            return
        self._close()

    def _close(self) -> None:
        if self._is_open:
            with suppress(pynvml.NVMLError):  # it went before us
                pynvml.nvmlShutdown()
        self._is_open = False
        self._handles.clear()
        self._fixed.clear()

    def _open(self, now_s: float) -> None:
        self._close()
        self._no_driver, self._is_mute = "", False
        self._reopen_at = math.inf
        try:
            pynvml.nvmlInit()
            self._is_open = True
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            self._no_driver = _NO_DRIVER.get(error.value, f"the NVIDIA driver does not answer: {error}")
            self._is_mute = error.value not in _NO_DRIVER
            self._reopen_at = now_s + REOPEN_S
            return
        for index in range(count):
            try:
                self._handles.append(pynvml.nvmlDeviceGetHandleByIndex(index))
            except pynvml.NVMLError as error:  # the number alone tells nobody which one this is
                self._reopen_at = now_s + REOPEN_S
                self._notice(f"GPU {index}", f"GPU {index} does not answer: {error}")

    def _read_all(self) -> Iterable[Device]:
        for index, handle in enumerate(self._handles):
            try:
                fixed = self._fixed.get(index) or _identity(handle)
            except pynvml.NVMLError:  # it was never read, or its earlier reading stands for it, as lost
                continue
            self._fixed[index] = fixed
            yield from self._read(handle, fixed)

    def _read(self, handle: Handle, fixed: Device) -> list[Device]:
        """A GPU and its instances; where one of them cannot be read, none of them is used."""
        try:
            gpu = self._with_readings(handle, fixed)
            mode = self._answers.ask(gpu.uuid, "MIG mode", pynvml.nvmlDeviceGetMigMode, handle)
            gpu = replace(gpu, is_divided=bool(mode and mode[0]))
            if not gpu.is_divided:
                self._note_missing(gpu)
            return [gpu, *self._instances(handle, gpu)]
        except pynvml.NVMLError as error:
            health = Health.LOST if error.value in _LOST else Health.UNREADABLE
            return [_without_readings(self._known.get(fixed.uuid, fixed), health, str(error))]

    def _with_readings(self, handle: Handle, device: Device) -> Device:
        memory = self._answers.memory(device.uuid, handle)
        rates = self._answers.ask(device.uuid, "utilisation", pynvml.nvmlDeviceGetUtilizationRates, handle)
        compute = self._answers.processes(device.uuid, "Compute", handle)
        return replace(
            device,
            total_mib=None if memory is None else memory.total // MIB,
            used_mib=None if memory is None else memory.used // MIB,
            free_mib=None if memory is None else memory.free // MIB,
            utilization=None if rates is None else rates.gpu,
            processes=None if compute is None else self._whose(handle, device.uuid, compute),
        )

    def _instances(self, handle: Handle, gpu: Device) -> Iterable[Device]:
        if not gpu.is_divided:
            return
        for number in range(told(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            try:
                instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            except pynvml.NVMLError_NotFound:  # no instance has this number
                continue
            uuid, name = pynvml.nvmlDeviceGetUUID(instance), pynvml.nvmlDeviceGetName(instance)
            fixed = Device(uuid, f"{gpu.index}:{number}", name, gpu.bus, parent=gpu.uuid)
            yield self._with_readings(instance, fixed)

    def _whose(self, handle: Handle, uuid: str, compute: list[Any]) -> tuple[GpuProcess, ...]:
        amounts: dict[int, int | None] = {}
        computing = {*compute, *(self._answers.processes(uuid, "MPSCompute", handle) or [])}
        for pid, used in [*(self._answers.processes(uuid, "Graphics", handle) or []), *computing]:
            amounts[pid] = None if used is None else used // MIB
        pids = {pid for pid, _ in computing}
        return tuple(
            replace(self._seen(pid), is_compute=pid in pids, used_mib=used_mib) for pid, used_mib in amounts.items()
        )

    def _seen(self, pid: int) -> GpuProcess:
        if pid == INIT:
            return GpuProcess(pid, False)
        if pid not in self._processes:
            self._processes[pid] = GpuProcess(
                pid, False, user=lineage.user(pid), command=lineage.command(pid), lineage=lineage.of(pid)
            )
        return self._processes[pid]

    def _note_missing(self, device: Device) -> None:
        readings = {"memory": device.total_mib, "utilisation": device.utilization, "processes": device.processes}
        for what, reading in readings.items():
            if reading is None:
                self._notice(
                    what, f"GPU {device.index} ({device.name}): the driver does not tell its {what}; not checked there."
                )

    def _notice(self, key: str, text: str) -> None:
        if key not in self._noticed:
            self._noticed.add(key)
            self._notices.append(text)


def _in_thread(call: Callable[[], Snapshot]) -> Future[Snapshot]:
    """What a call will say; the thread does not outlive the program, not even where the call never ends."""
    future: Future[Snapshot] = Future()

    def answer() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=answer, name="nvml", daemon=True).start()
    return future


def one_look() -> Snapshot:
    """All GPUs as they are now, for who looks only once."""
    nvml = Nvml()
    try:
        return nvml.snapshot()
    finally:
        nvml.close()


def _identity(handle: Handle) -> Device:
    bus = pynvml.nvmlDeviceGetPciInfo(handle).busId
    return Device(
        pynvml.nvmlDeviceGetUUID(handle),
        str(pynvml.nvmlDeviceGetIndex(handle)),
        pynvml.nvmlDeviceGetName(handle),
        os.fsdecode(bus),
    )


def _without_readings(device: Device, health: Health, fault: str) -> Device:
    return Device(
        device.uuid,
        device.index,
        device.name,
        device.bus,
        total_mib=device.total_mib,
        processes=None,
        parent=device.parent,
        is_divided=device.is_divided,
        health=health,
        fault=fault,
    )
