"""What the daemon learns from attempts while they run, and what it does about it."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pynvml
import pytest

from runner.gpus.leases import LeaseStore
from runner.gpus.packing import STEADY_S
from runner.gpus.wish import GpuWish
from runner.model import JobState, Outcome, Terms, Trial
from runner.options import StageOptions
from runner.scheduler import Scheduler, Start
from runner.service.endings import Running
from runner.service.gpuwork import SAMPLES, GpuWork
from runner.triage import CauseKind
from runner.trials import STATE_DIRECTORY
from tests.fakenvml.driver import FakeGpu, FakeNvml, uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOTAL_MIB = 19_000  # for attempts, of 20,000
OPTIONS = StageOptions(per_gpu=None)
WELL = Outcome(JobState.COMPLETED, 0, 10.0)


class World:
    """A daemon with one GPU, whose attempts are sleeping processes that 'use' what a test says."""

    def __init__(self, fake: FakeNvml, output: Path) -> None:
        self.now_s = 1000.0
        self.said: list[str] = []
        self._fake, self._output = fake, output
        self._scheduler = Scheduler()
        self._scheduler.set_slots([], has_gpus=True)
        self._work = GpuWork(self._scheduler, self.said.append)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._indices = itertools.count()
        (output / STATE_DIRECTORY).mkdir()

    def ask(self, trials: int) -> None:
        """A plan comes with so many trials more."""
        header = SimpleNamespace(gpus=GpuWish(), options={"train": OPTIONS})
        self._work.ask(cast("Any", SimpleNamespace(header=header, output=str(self._output))))
        for index in itertools.islice(self._indices, trials):
            trial = Trial(index, f"id{index}", f"T_{index}", f"o/T_{index}", f"o/T_{index}", ("train",))
            self._scheduler.add(trial, {"train": JobState.PENDING}, {"train": Terms(per_gpu=None)})

    def look(self, seconds: float = 30.0) -> list[Running]:
        """The daemon looks, a while later, and starts what may start."""
        self.now_s += seconds
        self._work.look(self.now_s)
        return [item for start in self._scheduler.decide(self.now_s) if (item := self._begin(start)) is not None]

    def use(self, item: Running, mib: int) -> None:
        """An attempt uses so much from now on."""
        self._fake.note_use(item.native_id, uuid(0), mib)

    def work(self, seconds: float) -> list[Running]:
        """The GPU is busy for a while; what starts meanwhile."""
        self._fake.gpus[0].utilization = 90
        self._fake.show()
        return [item for _ in range(round(seconds / 10.0)) for item in self.look(10.0)]

    def end(self, item: Running, outcome: Outcome = WELL) -> Outcome:
        """An attempt is over."""
        process = next(process for process in self._processes if process.pid == item.native_id)
        process.kill()
        process.wait()
        outcome = self._work.end(item, outcome, fallbacks=0)
        again_at = self.now_s if outcome.state is JobState.INTERRUPTED else None
        self._scheduler.ended(item.job, outcome.state, again_at, self.now_s)
        return outcome

    def leased(self) -> list[Fraction]:
        """The shares that are leased."""
        return sorted(record.shares[uuid(0)] for record in LeaseStore().held())

    def kept(self) -> list[str]:
        """What the next daemon will know."""
        path = self._output / STATE_DIRECTORY / SAMPLES
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        """Ends all processes."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _begin(self, start: Start) -> Running | None:
        lease = self._work.lease(start.slot)
        if lease is None:
            self._scheduler.refuse(start)
            return None
        process = subprocess.Popen(["sleep", "1000"], pass_fds=[lease.fd])
        self._processes.append(process)
        item = Running(start.job, process.pid, 1, start.slot, self.now_s, self.now_s, "log", OPTIONS)
        self._work.begin(item, lease)
        return item


@pytest.fixture
def world(fake_nvml: Callable[..., FakeNvml], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    clock: list[World] = []
    monkeypatch.setattr("runner.gpus.desk.boot_seconds", lambda: clock[0].now_s)
    made = World(fake_nvml(FakeGpu(0, total_mib=20_000)), tmp_path)
    clock.append(made)
    yield made
    made.close()
    pynvml.nvmlShutdown()


def begun_alone(world: World, trials: int) -> Running:
    """So many trials are asked for; the one that has the GPU to itself."""
    world.ask(trials)
    assert world.look() == []  # at first sight it is watched for a moment
    (first,) = world.look()
    assert world.leased() == [1]
    return first


def test_a_steady_attempt_makes_room_for_its_like(world: World) -> None:
    first = begun_alone(world, 5)
    world.use(first, 4_000)
    assert world.look() == []
    assert world.work(STEADY_S - 20.0) == []
    assert world.kept() == []
    (second,) = world.work(30.0)
    assert world.leased() == [Fraction(4_400, TOTAL_MIB)] * 2
    assert len(world.kept()) == 1
    world.use(second, 4_000)
    assert len([*world.look(), *world.look(), *world.look(), *world.look()]) == 2  # four fit
    assert world.leased() == [Fraction(4_400, TOTAL_MIB)] * 4


def test_an_attempt_on_a_gpu_that_does_nothing_teaches_at_its_end(world: World) -> None:
    first = begun_alone(world, 2)
    world.use(first, 500)
    assert [item for _ in range(100) for item in world.look()] == []
    world.use(first, 9_000)
    world.look()
    assert world.end(first).peak_vram_mib == 9_000
    assert len(world.look()) == 1
    assert world.leased() == [Fraction(9_900, TOTAL_MIB)]


def test_what_needs_more_than_its_kind_is_known_to_teaches_at_once(world: World) -> None:
    first = begun_alone(world, 4)
    world.use(first, 2_000)
    world.look()
    world.end(first)
    (second,) = world.look()
    world.use(second, 2_100)
    (third,) = world.look()  # within the margin: 2,000 and 256 MiB
    assert world.leased() == [Fraction(2_256, TOTAL_MIB)] * 2
    world.use(second, 8_000)
    world.use(third, 2_000)
    (fourth,) = world.look()
    assert world.leased() == [Fraction(2_256, TOTAL_MIB)] * 2 + [Fraction(8_800, TOTAL_MIB)]
    assert len(world.kept()) == 2
    assert fourth.slot.label == "gpu 0 #3"


def test_a_lease_that_cannot_shrink_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = begun_alone(world, 2)
    world.use(first, 4_000)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.work(STEADY_S)
    with monkeypatch.context() as patched:
        patched.setattr("runner.gpus.leases.os.write", full)
        assert world.work(30.0) == []
    assert world.leased() == [1]
    assert "No space left on device; the lease stays as it is. Nothing starts on a GPU until" in world.said[-1]
    assert len(world.look()) == 1
    assert world.leased() == [Fraction(4_400, TOTAL_MIB)] * 2


def test_what_runs_again_alone_keeps_its_gpu(world: World) -> None:
    first = begun_alone(world, 3)
    world.use(first, 4_000)
    world.look()
    world.end(first)
    (second,) = world.look()
    world.use(second, 4_000)
    (third,) = world.look()
    world.use(third, 4_000)
    world.look()
    oom = Outcome(JobState.FAILED, 1, 10.0, cause=CauseKind.CUDA_OOM.value)
    assert world.end(second, oom).state is JobState.INTERRUPTED
    world.end(third)  # so the kind is known
    (again,) = world.look()
    assert again.job == second.job
    assert world.look() == []
    assert world.leased() == [1]
