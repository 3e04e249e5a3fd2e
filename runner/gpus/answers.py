"""What the driver answers for one GPU; what it lacks is None."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable

Handle = Any  # a ctypes pointer; pynvml has no types

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
# How a sandbox that does not know a call may refuse it; of a GPU that gave the reading before, a fault.
_REFUSED = frozenset(
    {pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_INVALID_ARGUMENT, pynvml.NVML_ERROR_OPERATING_SYSTEM}
)


def told(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call says, or None where it is lacking."""
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _LACKING:
            return None
        raise


class Answers:
    """Remembers of each GPU what it has answered; devices are told apart by their UUIDs."""

    def __init__(self) -> None:
        self._well: set[str] = set()  # what told its memory when it was last asked
        self._given: set[tuple[str, str]] = set()  # a device, and a reading that it has given

    def memory(self, uuid: str, handle: Handle) -> Any:
        """Total, used and free bytes: the first thing to ask, by which a device shows that it is well."""
        self._well.discard(uuid)
        memory = _memory(handle)
        if memory is not None:
            self._well.add(uuid)
        return memory

    def processes(self, uuid: str, kind: str, handle: Handle) -> list[tuple[int, int | None]] | None:
        """The pid and the bytes of each process of a kind."""
        found: list[tuple[int, int | None]] | None = self.ask(uuid, f"{kind} processes", _processes, handle, kind)
        return found

    def ask(self, uuid: str, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a call says; None also where a device that is well has refused it from the first."""
        try:
            value = told(call, *arguments)
        except pynvml.NVMLError as error:
            if uuid not in self._well or (uuid, what) in self._given or error.value not in _REFUSED:
                raise
            return None
        if value is not None:
            self._given.add((uuid, what))
        return value


def _memory(handle: Handle) -> Any:
    """Total, used and free bytes; the older form of the call counts the driver's own memory as used."""
    newer = functools.partial(pynvml.nvmlDeviceGetMemoryInfo, version=pynvml.nvmlMemory_v2)
    memory = told(newer, handle)
    return told(pynvml.nvmlDeviceGetMemoryInfo, handle) if memory is None else memory


def _processes(handle: Handle, kind: str) -> list[tuple[int, int | None]] | None:
    """The pid and the bytes of each process of a kind; None where no form of the call is known."""
    for version in ("v3", "v2"):
        for _ in range(3):  # the list may grow between the two calls that it takes
            try:
                listed = told(getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_{version}"), handle)
            except pynvml.NVMLError_InsufficientSize:
                continue
            if listed is not None:
                return [(process.pid, process.usedGpuMemory) for process in listed]
            break
    return None
