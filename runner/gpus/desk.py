"""The GPUs of this machine as the daemon uses them: looked at, leased, and watched while attempts hold them."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import PositiveFloat, PositiveInt, StrictBool, TypeAdapter

from runner.appendfile import append_line, whole_lines
from runner.gpus import lineage
from runner.gpus.eligibility import Patience, judge, remember, strangers
from runner.gpus.fairness import Holding, precedences
from runner.gpus.leases import LeaseStore, claims
from runner.gpus.nvml import Nvml
from runner.gpus.packing import Growth, Sample, is_settling
from runner.gpus.sampler import Sampler, Usage, process_table
from runner.gpus.waiting import WaitingRoom
from runner.gpus.wish import cards, meant, sizes_mib
from runner.process import boot_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from fractions import Fraction
    from pathlib import Path

    from runner.gpus.devices import Device, Snapshot
    from runner.gpus.eligibility import Claim, Past, Verdict
    from runner.gpus.fairness import Precedence, Waiter, Wish
    from runner.gpus.leases import Lease, LeaseRecord
    from runner.gpus.placing import Card
    from runner.gpus.wish import GpuWish

LOOK_S = 0.5  # between two looks while something waits for a GPU
IDLE_LOOK_S = 1.0  # and while attempts only run
LOOK_PATIENCE_S = 2.0  # while the daemon waits for the driver, it does nothing else

# The kind, and what `Sample` holds.
_LINE = TypeAdapter(tuple[str, PositiveInt, PositiveInt, StrictBool, PositiveFloat | None, PositiveInt | None])


@dataclass
class _Attempt:
    """What is watched of an attempt; `expected_mib` is None where it does not learn."""

    uuids: tuple[str, ...]
    began_s: float
    sampler: Sampler
    expected_mib: int | None
    lease: Lease | None
    growth: Growth
    levels: Counter[int] = field(default_factory=Counter)  # how often it was one of so many on its fullest card
    most: int = 1  # of so many at most, also between two looks


@dataclass(frozen=True)
class Look:
    """What a look at the machine showed: where something may start, and which attempts have lost their GPU."""

    cards: list[Card]
    lost: list[int]  # native ids
    steady: list[int]  # and those of attempts of which this look is enough to tell what they need


@dataclass(frozen=True)
class Seen:
    """What was seen of an attempt."""

    usage: Usage
    level: int  # it was one of so many for most of its time
    most: int  # and one of so many at most
    card_mib: int | None  # the memory of its smallest card
    cards_mib: list[int | None]  # that of all cards that its run may have
    is_adopted: bool = False  # it began before anybody who is here now looked

    @property
    def peak_mib(self) -> int | None:
        """What it needed at most on one card; None where nothing was seen."""
        return max(self.usage.vram_mib.values(), default=0) or None


@dataclass(frozen=True)
class GpuPlace:
    """A GPU as it is shown; `reason` says why nothing new may start there, and is empty where it may."""

    label: str
    name: str
    used_mib: int | None
    total_mib: int | None
    reason: str


class GpuDesk:
    """Every call on NVML and every lease of one daemon."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` hears what the driver turns out not to tell."""
        self._say = say
        self._wish: GpuWish | None = None
        self._nvml = Nvml(boot_seconds, LOOK_PATIENCE_S)
        self._leases = LeaseStore()
        self._room = WaitingRoom(self._leases.directory)
        self._before: Mapping[str, Precedence] = {}  # who comes first, by UUID
        self._past: dict[str, Past] = {}
        self._attempts: dict[int, _Attempt] = {}
        self._snapshot: Snapshot | None = None
        self._next_s = 0.0
        self._lost_since: dict[str, float] = {}  # by UUID
        self._guests: dict[str, int] = {}  # by UUID: how many were not of this daemon at the last look
        self._ours: set[str] = set()  # the GPUs of which this daemon had a part at the last look
        self.verdicts: Mapping[str, Verdict] = {}  # by UUID, as of the last look

    def ask(self, wish: GpuWish | None) -> None:
        """The GPUs that are wanted from now on; None: none that have to be looked at."""
        self._wish = wish
        self._next_s = 0.0

    @property
    def is_active(self) -> bool:
        """Whether there is anything to look at."""
        return self._wish is not None

    def next_look(self, is_waiting: bool) -> float | None:
        """When to look again, on the clock since boot; None: not before something starts."""
        if self._wish is None or not (is_waiting or self._attempts):
            return None
        return self._next_s if is_waiting else self._next_s + IDLE_LOOK_S - LOOK_S

    def look(self, now_s: float) -> Look:
        """Looks at the machine."""
        assert self._wish is not None
        self._next_s = now_s + LOOK_S
        snapshot = self._snapshot = self._nvml.snapshot()
        for notice in self._nvml.take_notices():
            self._say(notice)
        records = self._leases.held()
        if any(record.pid in self._attempts and record.is_from_before for record in records):
            self._leases.adopt(self._attempts)
        held = claims(records, self._attempts)
        conditions = self._wish.conditions()
        self._past = remember(self._past, snapshot, held, conditions)
        self.verdicts = judge(snapshot, self._past, held, conditions, self._wish.limit, Patience())
        self._ours = {uuid for uuid, items in held.items() if any(claim.is_mine for claim in items)}
        foreign = {uuid: [claim for claim in items if not claim.is_mine] for uuid, items in held.items()}
        self._guests = {
            device.uuid: self._count_guests(device, held.get(device.uuid, ())) for device in snapshot.devices
        }
        settling, steady = self._sample(snapshot)
        self._before = self._first(records, self._room.others(now_s))
        left_above = {uuid: precedence.above for uuid, precedence in self._before.items()}
        found = cards(self._wish, snapshot, self.verdicts, foreign, settling, left_above)
        return Look(found, self._lost(now_s), steady)

    def wait_for(self, wish: Wish | None, now_s: float) -> None:
        """Tells the other daemons of this machine what this one waits for; None: nothing."""
        self._room.tell(wish, now_s)

    def lease(self, shares: Mapping[str, Fraction]) -> Lease | None:
        """Leases shares of cards, or, where somebody was faster, none of them."""
        lease = self._leases.take(_by_gpu(shares))
        if lease is None:
            self._next_s = 0.0
        return lease

    def begin(
        self, native_id: int, shares: Mapping[str, Fraction], expected_mib: int | None, lease: Lease | None
    ) -> None:
        """Watches an attempt from its start on, or, without a lease of ours, one that is adopted."""
        if self._wish is None:
            return
        if self._snapshot is None:  # a daemon that has just started adopts before its first look
            self._snapshot = self._nvml.snapshot()
        if lease is not None:
            lease.name_root(native_id)
            self._room.since_s = math.inf
        uuids = tuple(uuid for card in shares for uuid in card.split(","))
        sampler = Sampler(native_id, uuids, self._snapshot)
        began_s = boot_seconds()
        self._attempts[native_id] = _Attempt(uuids, began_s, sampler, expected_mib, lease, Growth(began_s))
        for attempt in self._attempts.values():
            attempt.most = max(attempt.most, 1 + self._beside(attempt))

    def shrink(self, native_id: int, shares: Mapping[str, Fraction], expected_mib: int) -> None:
        """Gives back what an attempt holds beyond these shares."""
        self._leases.shrink(native_id, _by_gpu(shares))
        self._attempts[native_id].expected_mib = expected_mib

    def end(self, native_id: int) -> Seen | None:
        """Gives back what an attempt held; returns what was seen of it."""
        attempt = self._attempts.pop(native_id, None)
        if attempt is None:
            return None
        if attempt.lease is not None:
            attempt.lease.release()
        self._count(attempt)
        return self._seen(attempt)

    def seen(self, native_id: int) -> Seen | None:
        """What has been seen of an attempt so far; None before the first look at it."""
        attempt = self._attempts.get(native_id)
        return self._seen(attempt) if attempt is not None and attempt.levels else None

    def _seen(self, attempt: _Attempt) -> Seen:
        assert self._snapshot is not None  # `begin` has taken one
        level = attempt.levels.most_common(1)[0][0]
        sizes = {device.uuid: device.total_mib for device in self._snapshot.usable()}
        own = [sizes.get(uuid) for uuid in attempt.uuids]
        known = [size for size in own if size is not None]
        smallest_mib = min(known) if known else None
        is_adopted = attempt.lease is None
        assert self._wish is not None
        cards_mib = sizes_mib(self._wish, self._snapshot)
        return Seen(attempt.sampler.peak, level, attempt.most, smallest_mib, cards_mib, is_adopted)

    def places(self) -> list[GpuPlace]:
        """Every GPU that is meant, in the state of the last look."""
        if self._wish is None or self._snapshot is None:
            return []
        return [
            GpuPlace(f"gpu {device.index}", device.name, device.used_mib, device.total_mib, self._reason(device.uuid))
            for device in meant(self._wish, self._snapshot)
        ]

    def _first(self, records: Sequence[LeaseRecord], waiters: Sequence[Waiter]) -> Mapping[str, Precedence]:
        """Who comes first on which GPU; what was adopted of an earlier daemon's is this one's."""
        uid, pid = os.getuid(), os.getpid()
        holdings = [
            Holding(record.uid, pid if record.pid in self._attempts else record.daemon, record.shares)
            for record in records
        ]
        return precedences(uid, pid, self._room.since_s, holdings, waiters)

    def _reason(self, uuid: str) -> str:
        verdict = self.verdicts.get(uuid)
        if verdict is None:  # no look has come to an end since it is there
            return ""
        if not verdict.reason and uuid in self._before:
            return _left_to(self._before[uuid].waiter)
        return "" if verdict.is_full and uuid in self._ours else verdict.reason

    def _lost(self, now_s: float) -> list[int]:
        """The attempts on GPUs that were lost at the look before too: one look may err."""
        lost = [uuid for uuid, verdict in self.verdicts.items() if verdict.is_lost]
        self._lost_since = {uuid: self._lost_since.get(uuid, now_s) for uuid in lost}
        gone = {uuid for uuid, since_s in self._lost_since.items() if now_s - since_s >= LOOK_S / 2}
        return [native_id for native_id, attempt in self._attempts.items() if not gone.isdisjoint(attempt.uuids)]

    def _sample(self, snapshot: Snapshot) -> tuple[set[str], list[int]]:
        """Looks at what attempts use; returns the GPUs where the memory of one is still to appear, and the steady."""
        settling: set[str] = set()
        steady: list[int] = []
        table = process_table() if self._attempts else []
        busy = {device.uuid for device in snapshot.devices if device.utilization}
        for native_id, attempt in self._attempts.items():
            usage = attempt.sampler.sample(snapshot, table)
            self._count(attempt)
            peak_mib = max(attempt.sampler.peak.vram_mib.values(), default=0)
            if attempt.growth.note(snapshot.at_s, peak_mib, busy.issuperset(attempt.uuids)):
                steady.append(native_id)
            if attempt.expected_mib is None:
                continue
            for uuid in attempt.uuids:
                if is_settling(snapshot.at_s - attempt.began_s, usage.vram_mib.get(uuid), attempt.expected_mib):
                    settling.add(uuid)
        return settling, steady

    def _count_guests(self, device: Device, held: Sequence[Claim]) -> int:
        """How many leases of others, and how many programs without a lease, are on a device."""
        without = strangers(device, held, self._past[device.uuid])
        leases = sum(not claim.is_mine for claim in held)
        return leases + sum(not process.descends_from(self._attempts) for process in without)

    def _count(self, attempt: _Attempt) -> None:
        level = 1 + self._beside(attempt)
        attempt.levels[level] += 1
        attempt.most = max(attempt.most, level)

    def _beside(self, attempt: _Attempt) -> int:
        """How many others are on the card that it shares with most: attempts, of other daemons too, and strangers."""
        own = [other.uuids for other in self._attempts.values() if other is not attempt]
        return max(
            (sum(uuid in uuids for uuids in own) + self._guests.get(uuid, 0) for uuid in attempt.uuids), default=0
        )


def _left_to(waiter: Waiter) -> str:
    if waiter.uid == os.getuid():
        return f"left to another daemon of yours (pid {waiter.pid}), which waits and has less"
    return f"left to {lineage.user_name(waiter.uid)}, who waits and has less"


def _by_gpu(shares: Mapping[str, Fraction]) -> dict[str, Fraction]:
    return {uuid: share for card, share in shares.items() for uuid in card.split(",")}


def sample_of(seen: Seen, was_oom: bool, seconds: float | None) -> Sample | None:
    """What an attempt teaches; None where too little was seen. `seconds`: how long it took, when it came to its end."""
    if seen.peak_mib is None or (seen.usage.is_whole_device and seen.most > 1):
        return None
    if seen.is_adopted and not was_oom:  # it may have needed more before
        return None
    return Sample(seen.peak_mib, seen.level, was_oom, 1 / seconds if seconds else None, seen.card_mib)


class SampleFile:
    """The samples of earlier daemons: a cache, which may be deleted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Iterable[tuple[str, Sample]]:
        """Each kind with a sample, in the order of their ends; what cannot be read is left out."""
        for line in whole_lines(self._path):
            try:
                kind, peak_mib, level, was_oom, rate, card_mib = _LINE.validate_json(line)
            except ValueError:  # of another version, or damaged
                continue
            yield kind, Sample(peak_mib, level, was_oom, rate, card_mib)

    def add(self, kind: str, sample: Sample) -> None:
        """Adds a sample."""
        record = [kind, sample.peak_mib, sample.level, sample.was_oom, sample.rate, sample.card_mib]
        append_line(self._path, json.dumps(record).encode() + b"\n")
