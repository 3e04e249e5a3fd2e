"""Reading, judging, leasing, packing and sampling together: a small scheduler over real processes on fake GPUs."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.gpus.eligibility import Conditions, Past, Patience, judge, remember
from runner.gpus.leases import Lease, LeaseStore, claims
from runner.gpus.nvml import Nvml
from runner.gpus.packing import Sample, estimate, is_settling
from runner.gpus.placing import NOBODY, Card, Demand, Running, Turn, place
from runner.gpus.sampler import Sampler, process_table
from tests.fakenvml.driver import PROGRAM, FakeGpu, FakeNvml, uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONDITIONS = Conditions()
PEAKS_MIB = {"small": 3_000, "large": 13_000}  # they come late, as with an evaluation
PATIENCE = Patience(first_s=0.0, stranger_s=0.3)


@dataclass
class Attempt:
    """A program on one GPU."""

    kind: str
    uuid: str
    lease: Lease
    pid: int
    sampler: Sampler
    started_s: float
    level: int = 1


@dataclass
class MiniDaemon:
    """Starts what may start, and learns from what has ended.

    A program is ended when its peak was seen and, once its class is known, a small one was one of `packs` on a card;
    by itself it ends only when its memory is refused.
    """

    fake: FakeNvml
    nvml: Nvml
    peaks_mib: dict[str, int]  # by class
    waiting: deque[tuple[int, str]]
    store: LeaseStore
    past: dict[str, Past] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    running: dict[int, Attempt] = field(default_factory=dict)
    starts: list[tuple[str, str, int]] = field(default_factory=list)  # class, GPU, how many were there then
    exits: dict[int, int] = field(default_factory=dict)
    packs: int = 1
    turn: Turn = NOBODY

    def step(self) -> None:
        """One look at everything."""
        self.reap()
        snapshot = self.nvml.snapshot()
        table = process_table()
        held = claims(self.store.held(), mine=[attempt.pid for attempt in self.running.values()])
        self.past = remember(self.past, snapshot, held, CONDITIONS)
        verdicts = judge(snapshot, self.past, held, CONDITIONS, patience=PATIENCE)
        settling = {
            attempt.uuid
            for attempt in self.running.values()
            if is_settling(
                snapshot.at_s - attempt.started_s,
                attempt.sampler.sample(snapshot, table).vram_mib[attempt.uuid],
                max((sample.peak_mib for sample in self.samples.get(attempt.kind, ())), default=0),
            )
        }
        cards = [
            Card(
                device.uuid,
                device.total_mib,
                tuple(Running(claim.share) for claim in held.get(device.uuid, ())),
                device.uuid in settling,
            )
            for device in snapshot.usable()
            if verdicts[device.uuid].is_usable
        ]
        kinds = dict(self.waiting)
        demands = [Demand(key, share=None, need=estimate(self.samples.get(kind, []))) for key, kind in self.waiting]
        placements, self.turn = place(demands, cards, turn=self.turn)
        for placement in placements:
            lease = self.store.take(placement.shares)
            if lease is not None:
                self.waiting.remove((placement.key, kinds[placement.key]))  # type: ignore[index, arg-type]
                self.start(placement.key, kinds[placement.key], lease, snapshot.at_s)  # type: ignore[index, arg-type]

    def start(self, key: int, kind: str, lease: Lease, at_s: float) -> None:
        """Starts an attempt in a session of its own, with the lease's descriptor."""
        (device,) = lease.shares
        environment = {**os.environ, **self.fake.environment, "CUDA_VISIBLE_DEVICES": device}
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, str(PROGRAM), "500", f"{self.peaks_mib[kind]}@0.3", "for-ever"],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, lease.fd, lease.fd),
            ],
            setsid=True,
        )
        lease.name_root(pid)
        beside = [attempt for attempt in self.running.values() if attempt.uuid == device]
        sampler = Sampler(pid, [device], self.nvml.snapshot())
        self.running[key] = Attempt(kind, device, lease, pid, sampler, at_s, len(beside) + 1)
        self.starts.append((kind, device, len(beside) + 1))

    def reap(self) -> None:
        """Takes note of what has ended."""
        is_packed = max((level for kind, _, level in self.starts if kind == "small"), default=0) >= self.packs
        for key, attempt in list(self.running.items()):
            may_end = is_packed or attempt.kind not in self.samples
            if may_end and attempt.sampler.peak.vram_mib.get(attempt.uuid, 0) >= self.peaks_mib[attempt.kind]:
                os.kill(attempt.pid, signal.SIGTERM)
            pid, status = os.waitpid(attempt.pid, os.WNOHANG)
            if pid:
                del self.running[key]
                attempt.lease.release()
                self.exits[key] = os.waitstatus_to_exitcode(status)
                peak = attempt.sampler.peak.vram_mib.get(attempt.uuid, 0)
                self.samples.setdefault(attempt.kind, []).append(Sample(peak, attempt.level))

    def close(self) -> None:
        """Ends what still runs."""
        for attempt in self.running.values():
            os.kill(attempt.pid, signal.SIGKILL)
            os.waitpid(attempt.pid, 0)
            attempt.lease.release()


@pytest.fixture
def daemon(fake_nvml: Callable[..., FakeNvml], tmp_path: Path) -> Iterator[Callable[[list[str]], MiniDaemon]]:
    """A scheduler on three GPUs of 24 GB for a queue of classes."""
    fake = fake_nvml(FakeGpu(0), FakeGpu(1), FakeGpu(2))
    nvml = Nvml()
    made: list[MiniDaemon] = []

    def make(queue: list[str]) -> MiniDaemon:
        made.append(MiniDaemon(fake, nvml, PEAKS_MIB, deque(enumerate(queue)), LeaseStore(tmp_path / "leases")))
        return made[-1]

    yield make
    for one in made:
        one.close()
    nvml.close()


def run_until(daemon: MiniDaemon, condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s, (daemon.waiting, daemon.running, daemon.exits)
        daemon.step()
        time.sleep(0.01)


def test_learned_packing_fills_the_cards_and_nobody_runs_out_of_memory(
    daemon: Callable[[list[str]], MiniDaemon],
) -> None:
    one = daemon(["small", "large", *["small"] * 14, *["large"] * 2])
    one.packs = 3
    run_until(one, lambda: not one.waiting and not one.running)
    assert one.exits == dict.fromkeys(range(18), -signal.SIGTERM)
    assert max(level for kind, _, level in one.starts if kind == "small") > 2
    peaks = {kind: {sample.peak_mib for sample in samples} for kind, samples in one.samples.items()}
    assert peaks == {"small": {3000}, "large": {13000}}
    assert one.store.held() == []


def test_a_strangers_gpu_is_left_out_and_comes_back(
    daemon: Callable[[list[str]], MiniDaemon],
) -> None:
    one = daemon(["small"] * 14)
    with one.fake.program(uuid(1), "9000"):
        run_until(one, lambda: len(one.exits) >= 2)
        assert {device for _, device, _ in one.starts} == {uuid(0), uuid(2)}
    before = len(one.starts)
    run_until(one, lambda: not one.waiting and not one.running)
    assert uuid(1) in {device for _, device, _ in one.starts[before:]}
    assert one.exits == dict.fromkeys(range(14), -signal.SIGTERM)
