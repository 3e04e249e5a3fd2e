"""How much of the machine a run uses."""

from __future__ import annotations

import psutil
import torch

MIB = 2**20


class Usage:
    """Use of CPU and memory by this process, and of its GPU by everybody, since it was last asked."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.process = psutil.Process()
        self.process.cpu_percent()
        self.tells_gpu_percent = True

    def now(self) -> dict[str, float]:
        """Return the scalars: percent (100 is one core), and MiB."""
        found = {
            "use/cpu_percent": self.process.cpu_percent(),
            "use/memory_mib": self.process.memory_info().rss / MIB,
        }
        if self.device.type == "cuda":
            found["use/gpu_memory_mib"] = torch.cuda.max_memory_allocated(self.device) / MIB
            if self.tells_gpu_percent:
                found |= self._gpu_percent()
        return found

    def _gpu_percent(self) -> dict[str, float]:
        """Return how busy the GPU is; nothing, from then on, where the driver does not tell, as of a MIG instance."""
        try:
            return {"use/gpu_percent": torch.cuda.utilization(self.device)}
        except Exception:  # noqa: BLE001 - NVML has its own errors, and none of them is worth a run
            self.tells_gpu_percent = False
            return {}
