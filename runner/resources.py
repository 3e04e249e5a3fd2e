"""Slots from the `resource` of params.yaml."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from runner.header import CpuResource
from runner.model import Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runner.header import Resource
    from runner.options import StageOptions

_CGROUP_ROOT = Path("/sys/fs/cgroup")


def slots(resource: Resource) -> tuple[list[Slot], str]:
    """The slots, and one line that says where they come from.

    `auto` is one slot for each GPU that NVML shows, or, without one, one for each core that this process may use.
    """
    if isinstance(resource, CpuResource):
        return cpu_slots(resource.cpu), f"{resource.cpu} CPU slots"
    if resource == "auto":
        from runner.gpus import visible

        indices = visible.visible_indices()
        if indices:
            return gpu_slots(indices), f"{len(indices)} GPUs"
        count = usable_cores()
        return cpu_slots(count), f"no GPU; {count} CPU slots, one a core"
    return gpu_slots(resource), f"{len(resource)} GPU slots"


def beside(slots: Sequence[Slot], options: Iterable[StageOptions]) -> list[Slot]:
    """CPU slots, one a core, for stages that need no GPU where the others have GPUs."""
    has_gpus = any(slot.gpus is not None for slot in slots)
    return cpu_slots(usable_cores()) if has_gpus and any(item.gpus == 0 for item in options) else []


def cpu_slots(count: int) -> list[Slot]:
    """`count` slots without GPUs."""
    return [Slot(f"cpu {index}") for index in range(count)]


def gpu_slots(items: Sequence[str]) -> list[Slot]:
    """One slot an item, each item what CUDA_VISIBLE_DEVICES says there; repeated ones are numbered."""
    seen: Counter[str] = Counter()
    result = []
    for item in items:
        seen[item] += 1
        suffix = f" #{seen[item]}" if seen[item] > 1 else ""
        result.append(Slot(f"gpu {item}{suffix}", item))
    return result


def usable_cores() -> int:
    """The cores of this process's affinity, or fewer where a cgroup's quota allows fewer; at least one."""
    quota = _cgroup_quota()
    cores = len(os.sched_getaffinity(0))
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def _cgroup_quota(root: Path = _CGROUP_ROOT, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """The tightest CPU quota, in cores, of the cgroups that this process is in; None without one."""
    quotas = []
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += [_read_v2(group) for group in _with_parents(root, path)]
        elif "cpu" in controllers.split(","):
            quotas += [_read_v1(group) for group in _with_parents(root / "cpu", path)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _with_parents(root: Path, path: str) -> list[Path]:
    group = root / path.lstrip("/")
    return [group, *(parent for parent in group.parents if parent.is_relative_to(root))]


def _read_v2(group: Path) -> float | None:
    text = _read(group / "cpu.max")
    limit, period = text.split() if text else ("max", "1")
    return None if limit == "max" else int(limit) / int(period)


def _read_v1(group: Path) -> float | None:
    limit, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    return int(limit) / int(period) if limit and period and int(limit) > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:  # this cgroup has no such limit, or is not shown in a container
        return ""
