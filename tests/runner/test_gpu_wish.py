"""Which cards a reading of the machine makes of what a run asks for."""

from fractions import Fraction

from runner.gpus.devices import Device, Limit, Snapshot
from runner.gpus.eligibility import Claim, Verdict
from runner.gpus.placing import Card, Running
from runner.gpus.wish import GpuWish, cards, unknown


def gpu(index: int, total_mib: int | None = 24_000) -> Device:
    return Device(f"GPU-{index}", str(index), "NVIDIA", total_mib=total_mib)


SNAPSHOT = Snapshot(0.0, tuple(gpu(index) for index in range(4)))
OPEN = {device.uuid: Verdict() for device in SNAPSHOT.devices}


def labels(wish: GpuWish, verdicts: dict[str, Verdict] = OPEN) -> list[str]:
    return [card.label for card in cards(wish, SNAPSHOT, verdicts, {}, (), {})]


def test_each_gpu_is_a_card_unless_groups_are_asked_for() -> None:
    assert labels(GpuWish()) == ["0", "1", "2", "3"]
    assert labels(GpuWish(("2", "0"))) == ["2", "0"]
    assert labels(GpuWish(("0,1", "GPU-2,3"))) == ["0,1", "2,3"]


def test_a_group_is_there_when_all_of_it_is() -> None:
    closed = {**OPEN, "GPU-1": Verdict("in use by eve")}
    assert labels(GpuWish(("0,1", "2,3")), closed) == ["2,3"]
    assert labels(GpuWish(("0,9", "2,3"))) == ["2,3"]
    full = {**OPEN, "GPU-1": Verdict("leased by this run", is_full=True)}
    assert labels(GpuWish(("0,1", "2,3")), full) == ["0,1", "2,3"]


def test_what_stands_twice_takes_two_attempts() -> None:
    found = cards(GpuWish(("0", "0", "1")), SNAPSHOT, OPEN, {}, (), {})
    assert [(card.label, card.parts) for card in found] == [("0", 2), ("1", 1)]


def test_a_card_says_what_others_hold_and_what_is_still_to_appear() -> None:
    claim = Claim(Fraction(1, 3), 7, "bob", is_mine=False)
    mixed = Snapshot(0.0, (gpu(0), gpu(1, 16_000)))
    left = {"GPU-1": Fraction(2), "GPU-7": Fraction(1)}
    (card,) = cards(GpuWish(("0,1",)), mixed, OPEN, {"GPU-1": [claim]}, {"GPU-0"}, left)
    assert card == Card("GPU-0,GPU-1", 16_000, (Running(claim.share),), True, "0,1", "GPU-0,GPU-1", 1, Fraction(2))


def test_an_unknown_item_is_named() -> None:
    assert unknown(GpuWish(("0,1", "7")), SNAPSHOT.devices) == "7"
    assert unknown(GpuWish(("0",), limit=Limit("1", "CUDA_VISIBLE_DEVICES=1")), SNAPSHOT.devices) == "0"
    assert unknown(GpuWish(("0,1",)), SNAPSHOT.devices) is None
    assert unknown(GpuWish(), SNAPSHOT.devices) is None
