"""The GPUs that `resource: auto` means."""

from __future__ import annotations

import os

from runner.devices import allowed, limit_of
from runner.gpus.nvml import Nvml


def visible_indices() -> list[str]:
    """What to put into CUDA_VISIBLE_DEVICES for each GPU; empty without a driver or without GPUs.

    A CUDA_VISIBLE_DEVICES around this process, or a Slurm allocation, limits them.
    """
    nvml = Nvml()
    try:
        devices = nvml.snapshot().usable()
    finally:
        nvml.close()
    return [device.index if device.parent is None else device.uuid for device in allowed(limit_of(os.environ), devices)]
