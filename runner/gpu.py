"""GPUs as NVML shows them."""

from __future__ import annotations

import os


def visible_indices() -> list[str]:
    """What to put into CUDA_VISIBLE_DEVICES for each GPU; empty without a driver or without GPUs.

    A CUDA_VISIBLE_DEVICES around this process limits them.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        limit = os.environ.get("CUDA_VISIBLE_DEVICES")
        if limit is not None:
            return [item.strip() for item in limit.split(",") if item.strip()]
        return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
