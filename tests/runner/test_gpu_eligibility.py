"""Which GPU may be used, and the sentence that says why another may not."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.gpus.devices import Device, GpuProcess, Health, Limit, Snapshot
from runner.gpus.eligibility import Claim, Conditions, Past, Patience, Verdict, judge, remember, strangers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UUID = "GPU-0"
IDLE = Device(UUID, "0", "NVIDIA A100-SXM4-80GB", total_mib=80_000, used_mib=0, free_mib=80_000, utilization=0)
STRANGER = GpuProcess(700, True, 9_000, "eve", "python train.py", (700, 690, 600))
XORG = GpuProcess(800, True, 100, "root", "/usr/lib/xorg/Xorg :0", (800, 800))
OURS = GpuProcess(501, True, 2_000, "me", "python mine.py", (501, 500, 500, 400))
MINE = Claim(Fraction(1, 3), 500, "me")
PATIENCE = Patience(first_s=2.0, stranger_s=15.0)


class Story:
    """Readings of one GPU, one after another."""

    def __init__(self, conditions: Conditions | None = None) -> None:
        self.conditions = conditions or Conditions()
        self.past: dict[str, Past] = {}

    def tell(self, at_s: float, device: Device = IDLE, claims: Sequence[Claim] = ()) -> Verdict:
        """One more reading, and the verdict after it."""
        snapshot = Snapshot(at_s, (device,))
        held: Mapping[str, Sequence[Claim]] = {UUID: claims} if claims else {}
        self.past = remember(self.past, snapshot, held, self.conditions)
        return judge(snapshot, self.past, held, self.conditions, patience=PATIENCE)[UUID]


def verdict(device: Device, conditions: Conditions | None = None, claims: Sequence[Claim] = ()) -> Verdict:
    """What is said of a GPU at one moment, without patience."""
    conditions = conditions or Conditions()
    snapshot, held = Snapshot(0.0, (device,)), {device.uuid: claims}
    return judge(snapshot, remember({}, snapshot, held, conditions), held, conditions)[device.uuid]


def with_processes(*processes: GpuProcess, **changes: int) -> Device:
    used = sum(process.used_mib or 0 for process in processes)
    changes = {"used_mib": used, "free_mib": 80_000 - used, **changes}
    return replace(IDLE, processes=processes, **changes)  # type: ignore[arg-type]


# --- one moment ---


def test_an_idle_gpu_is_free() -> None:
    assert verdict(IDLE).is_usable
    assert verdict(IDLE).free_share == 1


@pytest.mark.parametrize(
    ("device", "conditions", "reason"),
    [
        (with_processes(STRANGER), Conditions(), "in use by eve (python train.py, pid 700)"),
        (
            with_processes(STRANGER, replace(STRANGER, pid=701, lineage=(701,))),
            Conditions(),
            "in use by eve (python train.py, pid 700) and 1 more",
        ),
        (
            with_processes(GpuProcess(9, True, 2_000, "eve", "/opt/env/python /home/eve/train.py --lr 1 --width 1024")),
            Conditions(),
            "in use by eve (python train.py --lr 1 --width 1024, pid 9)",
        ),
        (
            with_processes(GpuProcess(9, True, None, None, None)),
            Conditions(),
            "in use by somebody (a program that cannot be seen, pid 9)",
        ),
        (replace(IDLE, utilization=11), Conditions(), "11% busy (the limit is 10%)"),
        (replace(IDLE, utilization=11), Conditions(max_util=11), ""),
        (replace(IDLE, used_mib=8_001), Conditions(), "8001 MiB are used by others (the limit is 8000 MiB)"),
        (replace(IDLE, free_mib=19_000), Conditions(min_free_mib=20_000), "19000 MiB free, 20000 MiB are asked for"),
        (IDLE, Conditions(name="H100"), "not asked for: its name has no 'H100'"),
        (IDLE, Conditions(name="a100"), ""),
        (IDLE, Conditions(devices=("1", "GPU-7")), "not asked for: resource is 1, GPU-7"),
        (IDLE, Conditions(devices=("0",)), ""),
        (replace(IDLE, is_divided=True), Conditions(), "divided into MIG instances, which are used instead"),
        (
            Device(UUID, "0", "A100", health=Health.UNREADABLE, fault="Timeout", processes=None),
            Conditions(),
            "cannot be read now: Timeout",
        ),
        (Device(UUID, "0", "A100", health=Health.LOST, fault="GPU is lost"), Conditions(), "lost: GPU is lost"),
    ],
)
def test_the_reason_against_a_gpu_is_said(device: Device, conditions: Conditions, reason: str) -> None:
    assert verdict(device, conditions).reason == reason


def test_only_a_lost_gpu_is_drained() -> None:
    assert verdict(replace(IDLE, health=Health.LOST)).is_lost
    assert not verdict(replace(IDLE, health=Health.UNREADABLE)).is_lost


@pytest.mark.parametrize(
    "process",
    [
        XORG,
        GpuProcess(801, False, 300, "eve", "blender"),
        GpuProcess(802, True, 30, "root", "nvidia-cuda-mps-server"),
        GpuProcess(803, True, 200, "gdm", "/usr/bin/gnome-shell --wayland"),
    ],
)
def test_a_screens_processes_do_not_count(process: GpuProcess) -> None:
    assert verdict(with_processes(process)).is_usable


def test_what_the_driver_does_not_tell_is_no_reason() -> None:
    blind = Device(UUID, "0", "GB10", processes=None)
    assert verdict(blind, Conditions(min_free_mib=20_000)).is_usable


def test_a_limit_of_the_shell_is_named() -> None:
    snapshot = Snapshot(0.0, (IDLE,))
    past = remember({}, snapshot, {}, Conditions())
    limit = Limit("3", "CUDA_VISIBLE_DEVICES=3")
    assert judge(snapshot, past, {}, Conditions(), limit)[UUID].reason == "not allowed here: CUDA_VISIBLE_DEVICES=3"


# --- leases ---


def test_a_share_of_ours_leaves_the_rest() -> None:
    said = verdict(with_processes(OURS, utilization=100), claims=[MINE])
    assert (said.is_usable, said.free_share) == (True, Fraction(2, 3))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ([MINE, MINE, MINE], "leased by this run"),
        ([Claim(Fraction(1), 9, "bob", is_mine=False)], "leased by bob"),
        ([Claim(Fraction(2, 3), 9, "bob", is_mine=False), MINE], "leased by bob, this run"),
    ],
)
def test_a_gpu_that_is_leased_out_is_said_to_be(claims: list[Claim], reason: str) -> None:
    assert verdict(IDLE, claims=claims).reason == reason


def test_programs_below_another_users_lease_are_no_strangers() -> None:
    theirs = Claim(Fraction(1, 2), 690, "eve", is_mine=False)
    assert verdict(with_processes(STRANGER), claims=[theirs]).is_usable


def test_a_stranger_beside_our_attempt_is_seen() -> None:
    said = verdict(with_processes(OURS, STRANGER), claims=[MINE])
    assert said.reason == "in use by eve (python train.py, pid 700)"


def test_our_own_memory_does_not_count_against_the_condition() -> None:
    device = with_processes(replace(OURS, used_mib=70_000))
    assert verdict(device, Conditions(min_free_mib=75_000), [MINE]).is_usable


def test_processes_that_cannot_be_seen_are_ours_while_we_hold_a_lease() -> None:
    hidden = with_processes(GpuProcess(9, True, 500, None, None))
    assert not verdict(hidden).is_usable
    assert verdict(hidden, claims=[MINE]).is_usable


# --- patience ---


def test_at_first_sight_a_gpu_is_watched_a_moment() -> None:
    story = Story()
    said = story.tell(100.0)
    assert said.reason == "watched for 2 s more: a program may be starting"
    assert said.ready_at_s == 102.0
    assert not story.tell(101.9).is_usable
    assert story.tell(102.0).is_usable


def test_a_program_that_starts_meanwhile_is_noticed_by_its_memory() -> None:
    story = Story()
    story.tell(100.0)
    said = story.tell(101.0, replace(IDLE, used_mib=9_000))
    assert "9000 MiB are used by others" in said.reason
    assert "it was 9000 MiB" in story.tell(103.0).reason
    assert story.tell(116.0).is_usable


def test_after_a_stranger_the_gpu_is_watched_longer() -> None:
    story = Story()
    story.tell(0.0)
    assert story.tell(10.0).is_usable
    assert not story.tell(20.0, with_processes(STRANGER)).is_usable
    said = story.tell(21.0)
    assert said.reason == "watched for 14 s more: somebody's program was here"
    assert not story.tell(34.0).is_usable
    assert story.tell(35.0).is_usable  # it comes back by itself


def test_a_share_of_ours_passes_on_at_once() -> None:
    story = Story()
    for at_s in (0.0, 1.0, 2.0):
        story.tell(at_s)
    for at_s in range(3, 60):
        assert story.tell(float(at_s), with_processes(OURS, utilization=100), [MINE]).is_usable
    # The lease has gone; the program's last breath and the readings of its last second have not.
    assert story.tell(60.0, with_processes(OURS, utilization=90)).is_usable
    assert story.tell(60.1, replace(IDLE, used_mib=60_000, utilization=80)).is_usable
    assert story.tell(61.0).is_usable


def test_what_lingers_longer_than_an_ending_program_is_somebody_elses() -> None:
    story = Story()
    story.tell(0.0)
    story.tell(5.0, with_processes(OURS), [MINE])
    assert not story.tell(20.0, replace(IDLE, used_mib=60_000)).is_usable


def test_a_stranger_beside_us_delays_the_next_start_after_he_left() -> None:
    story = Story()
    story.tell(0.0)
    story.tell(5.0, with_processes(OURS, STRANGER), [MINE])
    assert "somebody's program was here" in story.tell(6.0).reason


def test_a_gpu_that_was_lost_is_looked_at_anew() -> None:
    story = Story()
    story.tell(0.0)
    assert story.tell(50.0, replace(IDLE, health=Health.LOST, fault="GPU is lost")).is_lost
    assert not story.tell(51.0).is_usable
    assert story.tell(52.0).is_usable


# --- whatever happens ---

PROCESSES = st.lists(st.sampled_from([STRANGER, XORG, OURS]), max_size=3, unique=True)
READINGS = st.lists(
    st.tuples(st.floats(0.0, 40.0), PROCESSES, st.integers(0, 100), st.booleans(), st.sampled_from(list(Health))),
    min_size=1,
    max_size=20,
)


@given(READINGS)
def test_a_strangers_gpu_is_never_used(readings: list[tuple[float, list[GpuProcess], int, bool, Health]]) -> None:
    story, at_s = Story(), 0.0
    stranger_at_s: float | None = None
    for gap_s, processes, utilization, is_held, health in readings:
        at_s += gap_s
        claims = [MINE] if is_held else []
        device = with_processes(*processes, utilization=utilization)
        device = replace(device, health=health)
        said = story.tell(at_s, device, claims)
        if health is not Health.WELL:
            assert not said.is_usable
            stranger_at_s = None
            continue
        if STRANGER in processes:
            stranger_at_s = at_s
            assert not said.is_usable
            assert strangers(device, claims) == [STRANGER] or OURS in processes
        elif said.is_usable and not is_held and stranger_at_s is not None:
            assert at_s - stranger_at_s >= PATIENCE.stranger_s
