"""What the daemon makes of its looks at the GPUs."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from typing import TYPE_CHECKING

import pynvml
import pytest

from runner.gpus.desk import GpuDesk
from runner.gpus.devices import Limit
from runner.gpus.leases import LeaseStore
from runner.gpus.packing import STEADY_S
from runner.gpus.placing import WHOLE
from runner.gpus.wish import GpuWish
from tests.fakenvml.driver import FakeGpu, FakeNvml, uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def desk(fake_nvml: Callable[..., FakeNvml]) -> Iterator[tuple[GpuDesk, FakeNvml]]:
    """A daemon's view of one GPU, on which this process is an attempt."""
    fake = fake_nvml(FakeGpu(0))
    desk = GpuDesk(print)
    desk.ask(GpuWish())
    desk.begin(os.getpid(), {uuid(0): WHOLE}, None, None)
    yield desk, fake
    fake.heal()
    pynvml.nvmlShutdown()


def test_one_look_that_errs_interrupts_nothing(desk: tuple[GpuDesk, FakeNvml]) -> None:
    one, fake = desk
    fake.fail("*", uuid(0), pynvml.NVML_ERROR_UNKNOWN)
    assert one.look(100.0).lost == []
    fake.heal()
    assert one.look(100.5).lost == []
    fake.fail("*", uuid(0), pynvml.NVML_ERROR_UNKNOWN)
    assert one.look(101.0).lost == []
    assert one.look(101.5).lost == [os.getpid()]


@pytest.mark.parametrize(
    ("wish", "cards_mib"),
    [
        (GpuWish(), [24_000, 80_000, 80_000]),
        (GpuWish(("0",)), [24_000]),
        (GpuWish(("0,1", "2")), [24_000, 80_000]),
        (GpuWish(limit=Limit("2,0")), [24_000, 80_000]),
    ],
)
def test_the_cards_on_which_an_attempt_could_run_again_are_those_of_its_run(
    fake_nvml: Callable[..., FakeNvml], wish: GpuWish, cards_mib: list[int]
) -> None:
    fake_nvml(FakeGpu(0, total_mib=24_000), FakeGpu(1, total_mib=80_000), FakeGpu(2, total_mib=80_000))
    desk = GpuDesk(print)
    desk.ask(wish)
    desk.begin(os.getpid(), {uuid(0): WHOLE}, None, None)
    seen = desk.end(os.getpid())
    assert seen is not None
    assert (seen.card_mib, seen.cards_mib) == (24_000, cards_mib)
    pynvml.nvmlShutdown()


def test_other_daemons_see_that_what_was_adopted_is_this_ones(desk: tuple[GpuDesk, FakeNvml]) -> None:
    store = LeaseStore()
    lease, other = store.take({uuid(0): Fraction(1, 2)}), store.take({uuid(0): Fraction(1, 4)})
    assert lease is not None
    assert other is not None
    for one, pid in ((lease, os.getpid()), (other, os.getppid())):
        os.write(one.fd, b'{"pid": %d, "daemon": 1}\n' % pid)
    desk[0].look(100.0)
    daemons = {record.pid: record.daemon for record in store.held()}
    assert daemons == {os.getpid(): os.getpid(), os.getppid(): 1}
    lease.release()
    other.release()


def test_a_gpu_that_is_left_to_another_daemon_of_the_same_user_says_so(
    fake_nvml: Callable[..., FakeNvml], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("runner.gpus.desk.boot_seconds", lambda: now_s)
    fake_nvml(FakeGpu(0))
    other = {"pid": os.getppid(), "since": 1.0, "at": 100.0, "count": 1, "share": "1", "cards": [uuid(0)]}
    store = LeaseStore()
    lease = store.take({uuid(0): WHOLE})
    assert lease is not None
    lease.release()
    (store.directory / "other.wait").write_text(json.dumps(other))
    desk = GpuDesk(print)
    desk.ask(GpuWish())
    for now_s in (100.0, 104.0):  # a free GPU is watched for a while
        desk.look(now_s)
    (place,) = desk.places()
    assert place.reason == f"left to another daemon of yours (pid {os.getppid()}), which waits and has less"
    pynvml.nvmlShutdown()


@pytest.mark.parametrize("has_lease", [True, False])
def test_what_another_daemon_or_a_stranger_runs_beside_an_attempt_counts(
    desk: tuple[GpuDesk, FakeNvml], has_lease: bool
) -> None:
    one, fake = desk
    mine = LeaseStore().take({uuid(0): Fraction(1, 2)})
    assert mine is not None
    mine.name_root(os.getpid())
    other = os.getppid()  # not below this one
    if has_lease:
        lease = LeaseStore().take({uuid(0): Fraction(1, 2)})
        assert lease is not None
        lease.name_root(other)
    fake.gpus[0].processes = [(os.getpid(), "C", 1_000), (other, "C", 5_000)]
    fake.show()
    one.look(100.0)
    mine.release()
    seen = one.end(os.getpid())
    assert seen is not None
    assert (seen.most, seen.peak_mib) == (2, 1_000)


def test_attempts_that_were_together_between_two_looks_were_together(desk: tuple[GpuDesk, FakeNvml]) -> None:
    one, _ = desk
    second = os.getppid()
    one.begin(second, {uuid(0): Fraction(1, 2)}, None, None)
    first_seen, second_seen = one.end(os.getpid()), one.end(second)
    assert first_seen is not None
    assert second_seen is not None
    assert (first_seen.most, second_seen.most) == (2, 2)


@pytest.mark.parametrize("utilization", [60, 0])
def test_an_attempt_whose_gpu_works_becomes_steady(
    fake_nvml: Callable[..., FakeNvml], monkeypatch: pytest.MonkeyPatch, utilization: int
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("runner.gpus.desk.boot_seconds", lambda: now_s)
    fake = fake_nvml(FakeGpu(0), FakeGpu(1))
    desk = GpuDesk(print)
    desk.ask(GpuWish())
    desk.begin(os.getpid(), {f"{uuid(0)},{uuid(1)}": WHOLE}, 0, None)
    assert desk.seen(os.getpid()) is None
    for gpu in fake.gpus:
        gpu.processes, gpu.utilization = [(os.getpid(), "C", 5_000)], utilization
    fake.show()
    found = []
    while now_s < 1000.0 + 2 * STEADY_S:
        now_s += 20.0
        found += [(now_s, steady) for steady in [desk.look(now_s).steady] if steady]
    assert found == ([(1020.0 + STEADY_S, [os.getpid()])] if utilization else [])
    seen = desk.seen(os.getpid())
    assert seen is not None
    assert (seen.peak_mib, seen.level) == (5_000, 1)
    pynvml.nvmlShutdown()
