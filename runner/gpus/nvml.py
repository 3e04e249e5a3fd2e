"""Readings of all GPUs through NVML; the library's failures become part of the reading."""

from __future__ import annotations

import functools
import math
import os
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pynvml

from runner.devices import Device, GpuProcess, Health, Snapshot
from runner.gpus import lineage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MIB = 2**20
REOPEN_S = 10.0  # NVML's initialisation takes up to seconds where nothing keeps the driver awake
PATIENCE_S = 30.0  # for an answer; a driver in trouble may hold a call for ever

# The driver, the GPU or the user's rights lack this call: the rest goes on without it.
_LACKING = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_NO_DATA,
    }
)
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

Handle = Any  # a ctypes pointer; pynvml has no types


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
            is_divided = bool(_told(pynvml.nvmlDeviceGetMigMode, handle, default=(0, 0))[0])
            gpu = self._with_readings(handle, replace(fixed, is_divided=is_divided))
            return [gpu, *self._instances(handle, gpu)]
        except pynvml.NVMLError as error:
            health = Health.LOST if error.value in _LOST else Health.UNREADABLE
            return [_without_readings(self._known.get(fixed.uuid, fixed), health, str(error))]

    def _with_readings(self, handle: Handle, device: Device) -> Device:
        memory = _memory(handle)
        rates = _told(pynvml.nvmlDeviceGetUtilizationRates, handle)
        compute = _processes(handle, "Compute")
        if not device.is_divided and device.parent is None:
            self._note_missing(device, memory=memory, utilisation=rates, processes=compute)
        return replace(
            device,
            total_mib=None if memory is None else memory.total // MIB,
            used_mib=None if memory is None else memory.used // MIB,
            free_mib=None if memory is None else memory.free // MIB,
            utilization=None if rates is None else rates.gpu,
            processes=None if compute is None else self._whose(handle, compute),
        )

    def _instances(self, handle: Handle, gpu: Device) -> Iterable[Device]:
        if not gpu.is_divided:
            return
        for number in range(_told(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle, default=0)):
            try:
                instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            except pynvml.NVMLError_NotFound:  # no instance has this number
                continue
            uuid, name = pynvml.nvmlDeviceGetUUID(instance), pynvml.nvmlDeviceGetName(instance)
            fixed = Device(uuid, f"{gpu.index}:{number}", name, gpu.bus, parent=gpu.uuid)
            yield self._with_readings(instance, fixed)

    def _whose(self, handle: Handle, compute: list[Any]) -> tuple[GpuProcess, ...]:
        amounts: dict[int, int | None] = {}
        computing = {*compute, *(_processes(handle, "MPSCompute") or [])}
        for pid, used in [*(_processes(handle, "Graphics") or []), *computing]:
            amounts[pid] = None if used is None else used // MIB
        pids = {pid for pid, _ in computing}
        return tuple(
            replace(self._seen(pid), is_compute=pid in pids, used_mib=used_mib) for pid, used_mib in amounts.items()
        )

    def _seen(self, pid: int) -> GpuProcess:
        if pid not in self._processes:
            self._processes[pid] = GpuProcess(
                pid, False, user=lineage.user(pid), command=lineage.command(pid), lineage=lineage.of(pid)
            )
        return self._processes[pid]

    def _note_missing(self, device: Device, **readings: Any) -> None:
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


def _told(call: Callable[..., Any], *arguments: Any, default: Any = None) -> Any:
    """What a call says, or `default` where it is lacking."""
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _LACKING:
            return default
        raise


def _memory(handle: Handle) -> Any:
    """Total, used and free bytes; the older form of the call counts the driver's own memory as used."""
    newer = functools.partial(pynvml.nvmlDeviceGetMemoryInfo, version=pynvml.nvmlMemory_v2)
    memory = _told(newer, handle)
    return _told(pynvml.nvmlDeviceGetMemoryInfo, handle) if memory is None else memory


def _processes(handle: Handle, kind: str) -> list[tuple[int, int | None]] | None:
    """The pid and the bytes of each process of a kind; None where no form of the call is known."""
    for version in ("v3", "v2"):
        for _ in range(3):  # the list may grow between the two calls that it takes
            try:
                listed = _told(getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_{version}"), handle)
            except pynvml.NVMLError_InsufficientSize:
                continue
            if listed is not None:
                return [(process.pid, process.usedGpuMemory) for process in listed]
            break
    return None
