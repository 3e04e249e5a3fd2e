"""Which GPUs a run asks for, and the cards that a reading of the machine makes of it: decisions without I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner.gpus.devices import Limit, allowed, matches
from runner.gpus.eligibility import Conditions
from runner.gpus.placing import Card, Running

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from fractions import Fraction

    from runner.gpus.devices import Device, Snapshot
    from runner.gpus.eligibility import Claim, Verdict


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


def shared(wish: GpuWish, devices: Sequence[Device]) -> str | None:
    """The first item of a list whose GPU stands in another group too, or twice in one: these could not be together."""
    taken: set[str] = set()
    for group in dict.fromkeys(wish.groups or ()):
        for item in group.split(","):
            meant = {device.uuid for device in devices if matches(item, device)} or {item}
            if meant & taken:
                return item
            taken |= meant
    return None


def meant(wish: GpuWish, snapshot: Snapshot) -> list[Device]:
    """The devices that a run may have at some time, whatever their state."""
    conditions, shown = wish.conditions(), {device.uuid for device in allowed(wish.limit, snapshot.usable())}
    return [device for device in snapshot.usable() if conditions.means(device) and device.uuid in shown]


def sizes_mib(wish: GpuWish, snapshot: Snapshot) -> list[int | None]:
    """The memory of each card that a run may have at some time; of devices that are given together the least."""
    return [_least([one.total_mib for one in together]) for _, together in members(wish, meant(wish, snapshot))]


def cards(
    wish: GpuWish,
    snapshot: Snapshot,
    verdicts: Mapping[str, Verdict],
    foreign: Mapping[str, Sequence[Claim]],
    settling: Collection[str],
    left_above: Mapping[str, Fraction],
) -> list[Card]:
    """The cards on which something may start now; `foreign` are the leases of others, by UUID.

    Where this daemon has so many GPUs as `left_above` says, somebody else comes first.
    """
    found = []
    for parts, together in members(wish, snapshot.usable()):
        if not all(verdicts[device.uuid].is_open for device in together):
            continue
        claims = [claim for device in together for claim in foreign.get(device.uuid, ())]
        found.append(
            Card(
                uuid=",".join(device.uuid for device in together),
                total_mib=_least([device.total_mib for device in together]),
                running=tuple(Running(claim.share) for claim in claims),
                is_settling=any(device.uuid in settling for device in together),
                label=",".join(device.index for device in together),
                visible=",".join(device.uuid for device in together),
                parts=parts,
                left_above=min((left_above[one.uuid] for one in together if one.uuid in left_above), default=None),
            )
        )
    return found


def members(wish: GpuWish, devices: Sequence[Device]) -> list[tuple[int, list[Device]]]:
    """The devices that are given together, each time with how many attempts the user wants there."""
    if wish.groups is None:
        return [(1, [device]) for device in devices]
    found: list[tuple[int, list[Device]]] = []
    for group, parts in Counter(wish.groups).items():
        items = group.split(",")
        meant = [[device for device in devices if matches(item, device)] for item in items]
        if len(items) == 1:  # a GPU in MIG mode means each of its instances
            found += [(parts, [device]) for device in meant[0]]
        elif all(meant):
            found.append((parts, [instances[0] for instances in meant]))
    return found


def _least(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return min(known) if known and len(known) == len(sizes) else None
