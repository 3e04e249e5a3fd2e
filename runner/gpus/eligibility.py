"""Which GPUs may be used now, and why the others may not: decisions without I/O and without a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from runner.gpus.devices import Device, Health, Limit, allowed, matches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.gpus.devices import GpuProcess, Snapshot

# They compute a little, for the screen or for others, and are no program that wants the GPU for itself.
SERVERS = frozenset(
    {
        "nvidia-cuda-mps-server",
        "nvidia-cuda-mps-control",
        "nvidia-persistenced",
        "Xorg",
        "X",
        "Xwayland",
        "gnome-shell",
        "kwin_wayland",
        "kwin_x11",
        "plasmashell",
        "sddm",
        "gdm",
        "weston",
        "mutter",
    }
)


# The driver needs a moment to free an ended program's memory, and its utilisation is that of the last second.
_AFTERGLOW_S = 5.0


@dataclass(frozen=True)
class Conditions:
    """What a GPU must fulfil; None: no such condition."""

    devices: tuple[str, ...] | None = None  # indices or UUIDs; any of them
    min_free_mib: int | None = None
    name: str | None = None  # a part of the name, in any case
    max_util: int = 10  # percent, as far as it is not ours
    max_used: Fraction = Fraction(1, 10)  # of the memory, by what is not ours

    def means(self, device: Device) -> bool:
        """Whether it is one of those that are asked for, whatever its state."""
        return not device.is_divided and not _unasked_reason(device, self)


@dataclass(frozen=True)
class Patience:
    """How long a GPU must have been quiet before it is taken, in seconds.

    At first sight, a program that is just starting shows itself by its growing memory. Where a stranger's program was
    seen, the next one of the same script may need that long until it has imported what it needs.
    """

    first_s: float = 2.0
    stranger_s: float = 15.0


@dataclass(frozen=True)
class Claim:
    """A lease, as far as it concerns one GPU."""

    share: Fraction
    pid: int  # the root of its processes
    user: str
    is_mine: bool = True  # of this daemon


@dataclass(frozen=True)
class Past:
    """What earlier readings of one GPU said."""

    first_seen_s: float
    stranger_seen_s: float | None = None
    noisy_s: float | None = None  # used over the limits by nobody who could be seen
    noise: str = ""
    ours: frozenset[int] = frozenset()  # processes that were below a lease, until they leave the GPU
    leased_s: float = -math.inf


@dataclass(frozen=True)
class Verdict:
    """Whether a new attempt may start on a GPU; `reason` is a sentence without a subject, empty where it may."""

    reason: str = ""
    is_lost: bool = False  # what runs there is lost
    ready_at_s: float | None = None  # where only time is missing: when it will be usable, if it stays quiet
    free_share: Fraction = Fraction(1)
    is_full: bool = False  # nothing is against it, but leases that take all of it

    @property
    def is_usable(self) -> bool:
        """Whether a new attempt may start here."""
        return not self.reason

    @property
    def is_open(self) -> bool:
        """Whether one may start here as soon as a lease leaves room."""
        return not self.reason or self.is_full


def strangers(device: Device, claims: Sequence[Claim], past: Past | None = None) -> list[GpuProcess]:
    """The compute processes of people who hold no lease.

    A process that cannot be seen, as from within a container, counts as ours while we hold a lease there.
    """
    roots = {claim.pid for claim in claims}
    known = past.ours if past else frozenset()
    return [
        process
        for process in device.compute_processes()
        if not (process.descends_from(roots) or process.pid in known)
        and not _is_server(process)
        and not (claims and process.user is None)
    ]


def remember(
    past: Mapping[str, Past],
    snapshot: Snapshot,
    claims: Mapping[str, Sequence[Claim]],
    conditions: Conditions,
) -> dict[str, Past]:
    """The past of each GPU after one more reading; `claims` are by UUID, the leases of all users."""
    return {
        device.uuid: _remember(past.get(device.uuid), device, claims.get(device.uuid, ()), conditions, snapshot.at_s)
        for device in snapshot.devices
    }


def judge(
    snapshot: Snapshot,
    past: Mapping[str, Past],
    claims: Mapping[str, Sequence[Claim]],
    conditions: Conditions,
    limit: Limit | None = None,
    patience: Patience | None = None,
) -> dict[str, Verdict]:
    """A verdict for each GPU and MIG instance, by UUID; `past` includes this snapshot.

    `limit` is what the surroundings allow. Without `patience` a GPU is taken as it is at the moment.
    """
    limit = limit or Limit()
    shown = {device.uuid for device in allowed(limit, snapshot.usable())}
    verdicts = {}
    for device in snapshot.devices:
        held = claims.get(device.uuid, ())
        free_share = max(Fraction(0), 1 - sum((claim.share for claim in held), Fraction(0)))
        reason = _standing_reason(device, conditions) or _limit_reason(device, shown, limit)
        reason = reason or _stranger_reason(strangers(device, held, past[device.uuid]))
        reason = reason or _load_reason(device, held, past[device.uuid], conditions, snapshot.at_s)
        is_full = not reason and not free_share
        reason = reason or _lease_reason(held, free_share)
        ready_at_s = None if reason or held else _ready_at_s(past[device.uuid], patience)
        if ready_at_s is not None and ready_at_s > snapshot.at_s:
            reason = f"watched for {ready_at_s - snapshot.at_s:.0f} s more: {_watched_for(past[device.uuid])}"
        else:
            ready_at_s = None
        verdicts[device.uuid] = Verdict(reason, device.health is Health.LOST, ready_at_s, free_share, is_full)
    return verdicts


def _remember(past: Past | None, device: Device, held: Sequence[Claim], conditions: Conditions, at_s: float) -> Past:
    roots = {claim.pid for claim in held}
    on_it = {process.pid for process in device.processes or ()}
    below = {process.pid for process in device.compute_processes() if process.descends_from(roots)}
    old = past or Past(at_s)
    ours = frozenset(old.ours & on_it | below)
    leased_s = at_s if held else old.leased_s
    noise = "" if ours or at_s <= leased_s + _AFTERGLOW_S else _noise(device, conditions)
    if device.health is not Health.WELL:  # what comes back is looked at as if for the first time
        return Past(at_s)
    return Past(
        first_seen_s=old.first_seen_s,
        stranger_seen_s=at_s if strangers(device, held, old) else old.stranger_seen_s,
        noisy_s=at_s if noise else old.noisy_s,
        noise=noise or old.noise,
        ours=ours,
        leased_s=leased_s,
    )


def _noise(device: Device, conditions: Conditions) -> str:
    """What shows that somebody uses a GPU on which we have nothing."""
    if device.utilization is not None and device.utilization > conditions.max_util:
        return f"{device.utilization}% busy (the limit is {conditions.max_util}%)"
    if device.used_mib is None or device.total_mib is None:
        return ""
    if device.used_mib > conditions.max_used * device.total_mib:
        limit_mib = int(conditions.max_used * device.total_mib)
        return f"{device.used_mib} MiB are used by others (the limit is {limit_mib} MiB)"
    return ""


def _standing_reason(device: Device, conditions: Conditions) -> str:
    if device.health is Health.LOST:
        return f"lost: {device.fault}"
    if device.health is Health.UNREADABLE:
        return f"cannot be read now: {device.fault}"
    if device.is_divided:
        return "divided into MIG instances, which are used instead"
    return _unasked_reason(device, conditions)


def _unasked_reason(device: Device, conditions: Conditions) -> str:
    if conditions.devices is not None and not any(matches(item, device) for item in conditions.devices):
        return f"not asked for: resource is {', '.join(conditions.devices)}"
    if conditions.name is not None and conditions.name.lower() not in device.name.lower():
        return f"not asked for: its name has no {conditions.name!r}"
    return ""


def _limit_reason(device: Device, shown: set[str], limit: Limit) -> str:
    return "" if device.uuid in shown else f"not allowed here: {limit.said}"


def _stranger_reason(found: Sequence[GpuProcess]) -> str:
    if not found:
        return ""
    first = found[0]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"in use by {first.user or 'somebody'} ({first.program}, pid {first.pid}){more}"


def _load_reason(device: Device, held: Sequence[Claim], past: Past, conditions: Conditions, at_s: float) -> str:
    # What we ourselves use, or have just left, is no reason against it.
    if not past.ours and at_s > past.leased_s + _AFTERGLOW_S:
        noise = _noise(device, conditions)
        if noise:
            return noise
    needed, free = conditions.min_free_mib, device.free_mib
    if needed is not None and free is not None and free + _ours_mib(device, held, past) < needed:
        return f"{free} MiB free, {needed} MiB are asked for"
    return ""


def _ours_mib(device: Device, held: Sequence[Claim], past: Past) -> int:
    return device.used_by({claim.pid for claim in held} | past.ours) or 0


def _lease_reason(held: Sequence[Claim], free_share: Fraction) -> str:
    if free_share > 0:
        return ""
    users = sorted({"this run" if claim.is_mine else claim.user for claim in held})
    return f"leased by {', '.join(users)}"


def _ready_at_s(past: Past, patience: Patience | None) -> float | None:
    if patience is None:
        return None
    times = [past.first_seen_s + patience.first_s]
    times += [since_s + patience.stranger_s for since_s in (past.stranger_seen_s, past.noisy_s) if since_s is not None]
    return max(times)


def _watched_for(past: Past) -> str:
    if past.stranger_seen_s is not None and past.stranger_seen_s >= (past.noisy_s or 0.0):
        return "somebody's program was here"
    return f"it was {past.noise}" if past.noisy_s is not None else "a program may be starting"


def _is_server(process: GpuProcess) -> bool:
    return process.program.partition(" ")[0] in SERVERS
