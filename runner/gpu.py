"""GPUs as NVML shows them."""

from __future__ import annotations

import itertools
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
            # CUDA itself stops reading at the first of these.
            shown = itertools.takewhile(lambda item: item not in {"-1", "NoDevFiles"}, map(str.strip, limit.split(",")))
            return [item for item in shown if item]
        return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
