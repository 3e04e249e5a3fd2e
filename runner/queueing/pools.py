"""Where attempts run: CPU slots that are there or taken, and GPUs of which attempts hold shares."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from runner.gpus.fairness import Wish
from runner.gpus.placing import NOBODY, Card, Running, place
from runner.model import Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runner.gpus.placing import Demand, Placement


class CpuPool:
    """Slots without GPUs; the first free one is taken first."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._places: dict[str, int] = {}
        self._free: list[tuple[int, str]] = []
        self._taken: set[str] = set()  # also of slots that are no more

    def set_slots(self, slots: Sequence[Slot]) -> None:
        """The slots from now on; an attempt on one that is no more keeps it to its end."""
        self._slots = {slot.label: slot for slot in slots}
        self._places = {label: index for index, label in enumerate(self._slots)}
        self._free = [(index, label) for label, index in self._places.items() if label not in self._taken]

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, label: str) -> bool:
        return label in self._slots

    @property
    def labels(self) -> Iterable[str]:
        """All slots."""
        return self._slots

    @property
    def is_full(self) -> bool:
        """Whether no slot is free."""
        return not self._free

    def take(self) -> Slot:
        """The first free slot."""
        slot = self._slots[heapq.heappop(self._free)[1]]
        self._taken.add(slot.label)
        return slot

    def adopt(self, label: str) -> bool:
        """Takes this slot, whether it is there or not; False: it is taken."""
        if label in self._taken:
            return False
        self._taken.add(label)
        if label in self._slots:
            self._free.remove((self._places[label], label))
            heapq.heapify(self._free)
        return True

    def release(self, slot: Slot) -> None:
        """Gives a slot back; one that is no more stays away."""
        self._taken.discard(slot.label)
        if slot.label in self._slots:
            heapq.heappush(self._free, (self._places[slot.label], slot.label))


@dataclass(frozen=True)
class _Held:
    slot: Slot
    max_level: int | None = None


class GpuPool:
    """Cards as they were last seen, and the shares of them that our own attempts hold."""

    def __init__(self) -> None:
        self._cards: dict[str, Card] = {}  # what may be used now; `running` there is what others hold
        self._held: dict[str, _Held] = {}  # by the label of the slot
        self._turn = NOBODY
        self.exists = False  # whether there is any GPU that this run may use at some time

    def set_cards(self, cards: Sequence[Card], exists: bool) -> None:
        """The cards that may be used from now on; an attempt on another one keeps it to its end."""
        self._cards = {card.uuid: card for card in cards}
        self.exists = exists

    def __len__(self) -> int:
        return len(self._cards)

    @property
    def labels(self) -> list[str]:
        """The cards that may be used now."""
        return [f"gpu {card.label}" for card in self._cards.values()]

    @property
    def is_full(self) -> bool:
        """Whether nothing is free on any card."""
        return all(self._now(card).free <= 0 for card in self._cards.values())

    def place(self, demands: Iterable[Demand]) -> list[tuple[Placement, Slot]]:
        """What starts now, each with its slot; taken as done."""
        wanted: dict[object, Demand] = {}

        def noted() -> Iterable[Demand]:
            for demand in demands:
                wanted[demand.key] = demand
                yield demand

        placed = []
        cards = [self._now(card) for card in self._cards.values()]
        placements, self._turn = place(noted(), cards, self._own, self._turn)
        for placement in placements:
            demand = wanted[placement.key]
            slot = self._slot(placement)
            max_level = demand.need.max_level if demand.share is None and demand.need else None
            self._held[slot.label] = _Held(slot, max_level)
            placed.append((placement, slot))
        return placed

    def wish(self, demand: Demand) -> Wish | None:
        """What a job wants of the cards that can serve it; None: they are too few.

        Where our own attempts are as many as are to be together, nobody else can make room.
        """
        able = [card for card in self._cards.values() if not demand.is_refused(card) and self._may_join(card, demand)]
        if len(able) < demand.gpus:
            return None
        share = max(demand.share_of(card) for card in able)
        return Wish(demand.gpus, share, frozenset(card.uuid for card in able))

    def keeps(self, slot: Slot, demand: Demand) -> bool:
        """Whether what comes next wants just what this slot has, so that it goes on there."""
        cards = [self._cards.get(uuid) for uuid in slot.shares]
        return demand.gpus == len(cards) and all(
            card is not None and not demand.is_refused(card) and demand.share_of(card) == slot.shares[card.uuid]
            for card in cards
        )

    def needed(self, slot: Slot, demand: Demand) -> Slot | None:
        """The slot without what it has beyond what is known to be needed; None: it has no more."""
        if demand.share is not None or demand.need is None:
            return None
        known = {uuid: card for uuid in slot.shares if (card := self._cards.get(uuid)) is not None}
        less = {uuid: min(slot.shares[uuid], demand.share_of(card)) for uuid, card in known.items()}
        return None if {**slot.shares, **less} == slot.shares else replace(slot, shares={**slot.shares, **less})

    def shrink(self, slot: Slot) -> None:
        """Less of a slot is taken from now on."""
        self._held[slot.label] = replace(self._held[slot.label], slot=slot)

    def adopt(self, slot: Slot) -> Slot:
        """Takes what an attempt holds already; also of cards that may not be used any more."""
        if slot.label in self._held:
            slot = replace(slot, label=self._free_label(slot.label.partition(" #")[0]))
        self._held[slot.label] = _Held(slot)
        return slot

    def release(self, slot: Slot) -> None:
        """Gives a slot back."""
        self._held.pop(slot.label, None)

    @property
    def _own(self) -> Fraction:
        """How many GPUs our attempts hold in all."""
        shares = [(card, share) for held in self._held.values() for card, share in held.slot.shares.items()]
        return sum((share * len(card.split(",")) for card, share in shares), Fraction(0))

    def _may_join(self, card: Card, demand: Demand) -> bool:
        """Whether our own attempts on a card are so few that it may be one of them."""
        own = [held for held in self._held.values() if card.uuid in held.slot.shares]
        return len(own) < min([demand.max_level, *(held.max_level for held in own if held.max_level is not None)])

    def _now(self, card: Card) -> Card:
        own = tuple(
            Running(held.slot.shares[card.uuid], held.max_level)
            for held in self._held.values()
            if card.uuid in held.slot.shares
        )
        return replace(card, running=(*card.running, *own)) if own else card

    def _slot(self, placement: Placement) -> Slot:
        order = list(self._cards)
        cards = [self._cards[uuid] for uuid in sorted(placement.shares, key=order.index)]
        shares = {card.uuid: placement.shares[card.uuid] for card in cards}
        label = self._free_label(f"gpu {','.join(card.label for card in cards)}")
        return Slot(label, ",".join(card.visible for card in cards), shares)

    def _free_label(self, label: str) -> str:
        number, found = 1, label
        while found in self._held:
            number += 1
            found = f"{label} #{number}"
        return found


def fixed_cards(slots: Sequence[Slot]) -> list[Card]:
    """GPUs that nobody can look at: each slot is one, and taken as a whole."""
    return [
        Card(slot.label, None, label=slot.label.removeprefix("gpu "), visible=slot.gpus)
        for slot in slots
        if slot.gpus is not None
    ]
