"""Which GPUs a run asks for, and the cards that a reading of the machine makes of it: decisions without I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner.devices import Limit, allowed, matches
from runner.eligibility import Conditions
from runner.packing import Card, Running

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from runner.devices import Device, Snapshot
    from runner.eligibility import Claim, Verdict


ANYTHING = Limit()


@dataclass(frozen=True)
class GpuWish:
    """`groups`: lists of indices or UUIDs, each of which is given as a whole; one that stands several times takes so
    many attempts. None: every GPU by itself. `limit` is what the surrounding shell allows.
    """

    groups: tuple[str, ...] | None = None
    min_free_mib: int | None = None
    name: str | None = None
    max_util: int | None = None  # percent
    limit: Limit = ANYTHING

    def conditions(self) -> Conditions:
        """What each single GPU must fulfil."""
        devices = None
        if self.groups is not None:
            devices = tuple(dict.fromkeys(item for group in self.groups for item in group.split(",")))
        conditions = Conditions(devices, self.min_free_mib, self.name)
        return conditions if self.max_util is None else replace(conditions, max_util=self.max_util)

    def to_json(self) -> dict[str, Any]:
        """For a plan's file."""
        return {
            "groups": self.groups,
            "min_free_mib": self.min_free_mib,
            "name": self.name,
            "max_util": self.max_util,
            "limit": list(self.limit),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> GpuWish:
        """The inverse of `to_json`."""
        groups = record["groups"]
        given = {**record, "groups": None if groups is None else tuple(groups), "limit": Limit(*record["limit"])}
        return cls(**given)


def unknown(wish: GpuWish, devices: Sequence[Device]) -> str | None:
    """The first item of a list that is no GPU of this machine, or none that the surroundings allow."""
    seen = allowed(wish.limit, devices)
    items = [] if wish.groups is None else [item for group in wish.groups for item in group.split(",")]
    return next((item for item in items if not any(matches(item, device) for device in seen)), None)


def cards(
    wish: GpuWish,
    snapshot: Snapshot,
    verdicts: Mapping[str, Verdict],
    foreign: Mapping[str, Sequence[Claim]],
    settling: Collection[str],
) -> list[Card]:
    """The cards on which something may start now; `foreign` are the leases of others, by UUID."""
    found = []
    for parts, members in _members(wish, snapshot):
        if not all(verdicts[device.uuid].is_open for device in members):
            continue
        claims = [claim for device in members for claim in foreign.get(device.uuid, ())]
        found.append(
            Card(
                uuid=",".join(device.uuid for device in members),
                total_mib=_least([device.total_mib for device in members]),
                running=tuple(Running(claim.share) for claim in claims),
                is_settling=any(device.uuid in settling for device in members),
                label=",".join(device.index for device in members),
                visible=",".join(device.uuid for device in members),
                parts=parts,
            )
        )
    return found


def _members(wish: GpuWish, snapshot: Snapshot) -> list[tuple[int, list[Device]]]:
    usable = snapshot.usable()
    if wish.groups is None:
        return [(1, [device]) for device in usable]
    found: list[tuple[int, list[Device]]] = []
    for group, parts in Counter(wish.groups).items():
        items = group.split(",")
        meant = [[device for device in usable if matches(item, device)] for item in items]
        if len(items) == 1:  # a GPU in MIG mode means each of its instances
            found += [(parts, [device]) for device in meant[0]]
        elif all(meant):
            found.append((parts, [devices[0] for devices in meant]))
    return found


def _least(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return min(known) if known and len(known) == len(sizes) else None
