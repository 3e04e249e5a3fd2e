"""A program that 'uses' memory of a fake GPU: python program.py 500 1500@0.2 for-ever

Each word is an amount in MiB, taken after some seconds. The GPU is the first of CUDA_VISIBLE_DEVICES. An amount that
does not fit beside what is used is refused as torch refuses it. After the last word the program ends, its memory gone.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from pynvml import (
    nvmlDeviceGetCount,
    nvmlDeviceGetHandleByIndex,
    nvmlDeviceGetMemoryInfo,
    nvmlDeviceGetUUID,
    nvmlInit,
)


def first_device() -> str:
    """The UUID behind the first item of CUDA_VISIBLE_DEVICES."""
    item = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0]
    return item if not item.isdigit() else str(nvmlDeviceGetUUID(nvmlDeviceGetHandleByIndex(int(item))))


def free_mib(device: str) -> int | None:
    """What is free on a GPU; None for a MIG instance."""
    for index in range(nvmlDeviceGetCount()):
        handle = nvmlDeviceGetHandleByIndex(index)
        if nvmlDeviceGetUUID(handle) == device:
            return int(nvmlDeviceGetMemoryInfo(handle).free) // 2**20
    return None


def use(device: str, held_mib: int, wanted_mib: int) -> None:
    """Takes memory; one program at a time, so that no two get the same."""
    state = Path(os.environ["FAKE_NVML"])
    with state.with_name(f"{state.name}.uses").open("a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        free = free_mib(device)
        if free is not None and wanted_mib - held_mib > free:
            message = f"CUDA out of memory. Tried to allocate {wanted_mib - held_mib} MiB, {free} MiB is free."
            raise SystemExit(f"torch.OutOfMemoryError: {message}")
        file.write(f"{os.getpid()} {device} {wanted_mib}\n")


def main() -> NoReturn:
    """Follows the curve."""
    nvmlInit()
    device, held_mib = first_device(), 0
    for word in sys.argv[1:]:
        if word == "for-ever":
            while True:
                signal.pause()
        amount, _, delay = word.partition("@")
        time.sleep(float(delay or 0))
        use(device, held_mib, int(amount))
        if not held_mib:
            os.write(1, b"ready\n")  # at once: print writes the end of a line by itself where Python is unbuffered
        held_mib = int(amount)
    raise SystemExit(0)


if __name__ == "__main__":
    main()
