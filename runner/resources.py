"""Slots from the `resource` of params.yaml."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import InputError
from runner.gpus.devices import allowed, limit_of
from runner.gpus.wish import GpuWish, members, shared, unknown
from runner.model import LOCAL, Slot
from runner.params.header import ResourceKeys
from runner.text import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from runner.gpus.devices import Device, Limit
    from runner.options import StageOptions
    from runner.params.header import Resource

_LEARNED = 4  # attempts that are thought to share a GPU where it is to be learned
_CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Places:
    """Where attempts may run: fixed slots, and GPUs that are looked at first; `origin` is a line that says so."""

    slots: tuple[Slot, ...]
    gpus: GpuWish | None
    origin: str
    count: int  # how many attempts there is room for here, as far as it is known
    has_others: bool = False  # and more, that nobody has counted, where other executors have them run

    @property
    def room(self) -> int:
        """How many attempts there is room for; 0: that is not known."""
        return 0 if self.has_others else self.count

    def first(self) -> Places:
        """One slot, for one attempt."""
        return replace(self, slots=self.slots[:1], gpus=None) if self.gpus is None else self


NOWHERE = Places((), None, "", 1)


def places(resource: Resource, options: Collection[StageOptions], said: str = "resource") -> Places:
    """Where trials run: on this machine, on others through a batch system, or both. `said`: where `resource` stands.

    Raises:
        InputError: this machine does not have what is asked for; it begins with `said`.
    """
    others = sorted({item.executor for item in options} - {LOCAL})
    own = [item for item in options if item.executor == LOCAL]
    if not others:
        return _here(resource, options, said)
    if not own:
        return Places(tuple(cpu_slots(1)), None, ", ".join(others), 1, has_others=True)
    found = _here(resource, own, said)
    return replace(found, origin=f"{', '.join(others)}, and here {found.origin}", has_others=True)


def _here(resource: Resource, options: Collection[StageOptions], said: str) -> Places:
    """The slots and GPUs of this machine that a file asks for.

    `auto` is every GPU that NVML shows, or, without one, a slot for each core that this process may use.
    """
    if isinstance(resource, ResourceKeys) and not resource.has_gpus:
        assert resource.cpu is not None
        return Places(tuple(cpu_slots(resource.cpu)), None, counted(resource.cpu, "CPU slot"), resource.cpu)
    # NVML takes a while to load, and is only needed where GPUs may be.
    from runner.gpus.nvml import one_look

    snapshot, limit = one_look(), limit_of(os.environ)
    wish = _wish(resource, limit)
    twice = shared(wish, snapshot.usable())
    if twice is not None:
        raise InputError(f"{said}: GPU {twice} stands in it as part of different entries, or twice in one.")
    if not snapshot.devices:
        return _without_driver(resource, snapshot.no_driver, options, said)
    devices = allowed(limit, snapshot.usable())
    if not devices and resource == "auto":
        return _one_a_core(f"no GPU ({limit.said})", options)
    matching = _matching(wish, devices, snapshot.usable(), said)
    given = members(wish, matching)
    _check_most(options, len(given), said)
    cpus = _beside(resource, options)
    origin = counted(len(matching), "GPU")
    return Places(tuple(cpus), wish, origin, sum(parts for parts, _ in given) + len(cpus))


def _check_most(options: Collection[StageOptions], given: int, said: str) -> None:
    most = max((item.gpus or 1 for item in options if item.gpus != 0), default=1)
    if most > given:
        raise InputError(f"{said}: gives {given}, but a stage has `gpus: {most}`.")


def _matching(wish: GpuWish, devices: Sequence[Device], everything: Sequence[Device], said: str) -> list[Device]:
    """Those of the `devices` that are allowed here that a wish means: what it names is there, and large enough."""
    missing = unknown(wish, everything)
    if missing is not None:
        why = f" ({wish.limit.said})" if wish.limit.items is not None else ""
        raise InputError(
            f"{said}: no GPU {missing} here; there are: {', '.join(one.index for one in devices) or 'none'}{why}."
        )
    matching = [device for device in devices if wish.conditions().means(device)]
    if not matching:
        names = ", ".join(sorted({device.name for device in devices}))
        raise InputError(f"{said}: no GPU is called {wish.name!r} here; there are: {names}.")
    needed_mib = wish.min_free_mib or 0
    largest_mib = max(needed_mib if one.total_mib is None else one.total_mib for one in matching)
    if largest_mib < needed_mib:
        raise InputError(f"{said}: no GPU has {needed_mib} MiB here; the largest has {largest_mib} MiB.")
    return matching


def in_allocation(has_gpus: bool, count: int) -> Places:
    """Where so many attempts run in what a batch system has given: on its GPUs, as far as the driver shows them.

    Without a driver they all see what CUDA_VISIBLE_DEVICES says.
    """
    if has_gpus:
        from runner.gpus.nvml import one_look

        limit = limit_of(os.environ)
        if allowed(limit, one_look().usable()):
            return Places(tuple(cpu_slots(count)), GpuWish(limit=limit), "an allocation", count)
    return Places(tuple(cpu_slots(count)), None, "an allocation", count)


def _wish(resource: Resource, limit: Limit) -> GpuWish:
    if isinstance(resource, ResourceKeys):
        return GpuWish(None, resource.min_free_vram, resource.name, resource.max_util, limit)
    return GpuWish(None if resource == "auto" else tuple(resource), limit=limit)


def _without_driver(resource: Resource, reason: str, options: Collection[StageOptions], said: str) -> Places:
    if resource == "auto":
        return _one_a_core("no GPU", options)
    if isinstance(resource, ResourceKeys):
        raise InputError(f"{said}: GPUs are asked for, but there is none: {reason}.")
    _check_most(options, len(set(resource)), said)
    slots = [*gpu_slots(resource), *_beside(resource, options)]
    return Places(tuple(slots), None, f"{counted(len(resource), 'GPU slot')}, unchecked ({reason})", len(slots))


def _one_a_core(why: str, options: Collection[StageOptions]) -> Places:
    """CPU slots; where a stage says that it uses several cores, one for so many."""
    cores = max((item.cpus or 1 for item in options), default=1)
    count = max(1, usable_cores() // cores)
    what = "one a core" if cores == 1 else f"one for {cores} cores"
    return Places(tuple(cpu_slots(count)), None, f"{why}; {counted(count, 'CPU slot')}, {what}", count)


def resolved(options: StageOptions, places: Places, resource: Resource) -> StageOptions:
    """The options of a stage with its share of the cores: the same whatever else runs, so that results repeat.

    In a batch system it has what it asks for, and a GPU where there are any, unless only CPUs are wanted.
    """
    if options.executor != LOCAL:
        is_cpu_only = isinstance(resource, ResourceKeys) and not resource.has_gpus
        gpus = 0 if is_cpu_only and options.gpus is None else options.gpus
        return replace(options, cpus=options.cpus or 1, gpus=gpus)
    if options.cpus is not None:
        return options
    per_gpu = _LEARNED if options.per_gpu is None else options.per_gpu
    together = places.count * (per_gpu if places.gpus is not None and options.gpus != 0 else 1)
    return replace(options, cpus=max(1, usable_cores() // together))


def _beside(resource: Resource, options: Iterable[StageOptions]) -> list[Slot]:
    """CPU slots, one a core, for stages that need no GPU where the others have GPUs."""
    if not any(item.gpus == 0 for item in options):
        return []
    count = resource.cpu if isinstance(resource, ResourceKeys) else None
    return cpu_slots(count or usable_cores())


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
