"""What an attempt uses, from its processes and from what the driver tells of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runner.gpus.desk import SampleFile, Seen, sample_of
from runner.gpus.nvml import Nvml
from runner.gpus.packing import Sample
from runner.gpus.sampler import Process, Sampler, Usage, process_table, tree
from tests.fakenvml.driver import NOT_SUPPORTED, PROGRAM, FakeGpu, FakeNvml, uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# As an attempt's shell: in its own session, with a child that allocates, one that left for a session of its own, and
# one that holds 64 MiB of host memory.
SHELL = f"""
{sys.executable} {PROGRAM} 1000 2500@0.05 for-ever &
setsid {sys.executable} {PROGRAM} 700 for-ever &
{sys.executable} -c 'held = bytearray(64 << 20); import os, signal; os.write(1, b"held\\n"); signal.pause()' &
wait
"""


@pytest.fixture
def nvml(request: pytest.FixtureRequest) -> Iterator[Nvml]:
    """A reader that is closed before the fake driver goes."""
    request.getfixturevalue("fake_nvml")
    result = Nvml()
    yield result
    result.close()


@pytest.fixture
def attempt() -> Iterator[Callable[[FakeNvml], int]]:
    """Starts the shell; its pid once all its children have what they want."""
    started: list[subprocess.Popen[str]] = []

    def start(fake: FakeNvml) -> int:
        environment = {**os.environ, **fake.environment, "CUDA_VISIBLE_DEVICES": "0"}
        process = subprocess.Popen(
            ["bash", "-c", SHELL], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout
        assert sorted(process.stdout.readline() for _ in range(3)) == ["held\n", "ready\n", "ready\n"]
        return process.pid

    yield start
    for process in started:
        for member in tree(process.pid, process_table()):
            os.kill(member.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_a_tree_holds_the_session_and_all_below() -> None:
    table = [Process(pid, parent, session, 0.0) for pid, parent, session in ((10, 1, 10), (11, 10, 10), (12, 11, 12))]
    others = [Process(13, 12, 12, 0.0), Process(14, 1, 10, 0.0), Process(20, 1, 20, 0.0)]
    assert {process.pid for process in tree(10, [*table, *others])} == {10, 11, 12, 13, 14}
    assert tree(99, table) == []


def test_a_peak_keeps_the_most_of_each_figure() -> None:
    first, second = Usage({"a": 5, "b": 1}, host_mib=3.0, cpu_s=1.0), Usage({"a": 2, "c": 9}, True, 2.0, 4.0)
    assert first.peak_with(second) == Usage({"a": 5, "b": 1, "c": 9}, True, 3.0, 4.0)


def test_the_whole_tree_of_an_attempt_counts_and_nobody_else(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml, attempt: Callable[[FakeNvml], int], until: Callable[..., None]
) -> None:
    fake = fake_nvml(FakeGpu(0, other_used_mib=300), FakeGpu(1))
    before = nvml.snapshot()
    with fake.program("0", "4000"):
        sampler = Sampler(attempt(fake), [uuid(0)], before)
        until(lambda: sampler.sample(nvml.snapshot(), process_table()).vram_mib == {uuid(0): 3200}, nvml.snapshot)
    usage = sampler.sample(nvml.snapshot(), process_table())
    assert not usage.is_whole_device
    assert 64 < usage.host_mib < 1000
    assert usage.cpu_s > 0


def test_the_peak_outlives_the_memory(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    fake = fake_nvml(FakeGpu(0))
    own = os.getpid()
    sampler = Sampler(own, [uuid(0)], nvml.snapshot())
    for used_mib in (500, 3000, 800):
        fake.note_use(own, uuid(0), used_mib)
        assert sampler.sample(nvml.snapshot(), process_table()).vram_mib == {uuid(0): used_mib}
    assert sampler.peak.vram_mib == {uuid(0): 3000}


@pytest.mark.parametrize("processes", [[(os.getpid(), "C", NOT_SUPPORTED)], [(10_000_000, "C", 2_000)]])
def test_where_processes_cannot_be_told_apart_the_growth_of_the_gpu_counts(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml, processes: list[tuple[int, str, int]]
) -> None:
    fake = fake_nvml(FakeGpu(0, other_used_mib=300))
    sampler = Sampler(os.getpid(), [uuid(0)], nvml.snapshot())
    fake.gpus[0].processes = processes
    fake.gpus[0].other_used_mib = 2_300 if processes[0][2] == NOT_SUPPORTED else 300
    fake.show()
    usage = sampler.sample(nvml.snapshot(), process_table())
    assert (usage.vram_mib, usage.is_whole_device) == ({uuid(0): 2_000}, True)


def test_where_no_process_is_shown_the_growth_of_the_gpu_counts(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    fake = fake_nvml(FakeGpu(0, other_used_mib=300))
    sampler = Sampler(os.getpid(), [uuid(0)], nvml.snapshot())

    def measured(used_mib: int) -> tuple[int, bool]:
        fake.gpus[0].other_used_mib = used_mib
        fake.show()
        usage = sampler.sample(nvml.snapshot(), process_table())
        return usage.vram_mib[uuid(0)], usage.is_whole_device

    assert measured(320) == (0, False)  # the driver's own needs vary a little
    assert [measured(used_mib) for used_mib in (2_300, 1_300)] == [(2_000, True), (1_000, True)]


def test_where_processes_are_shown_the_growth_of_the_gpu_is_not_the_attempts(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml
) -> None:
    fake, own = fake_nvml(FakeGpu(0)), os.getpid()
    sampler = Sampler(own, [uuid(0)], nvml.snapshot())
    fake.note_use(own, uuid(0), 500)
    sampler.sample(nvml.snapshot(), process_table())
    fake.note_use(own, uuid(0), 0)
    fake.gpus[0].other_used_mib = 900
    fake.show()
    usage = sampler.sample(nvml.snapshot(), process_table())
    assert (usage.vram_mib, usage.is_whole_device) == ({uuid(0): 0}, False)


def test_an_adopted_attempt_teaches_nothing_but_that_its_memory_was_too_small() -> None:
    seen = Seen(Usage({uuid(0): 2_000}), 1, 1, 24_576, [24_576], is_adopted=True)
    assert sample_of(seen, was_oom=False, seconds=3.0) is None
    oom = sample_of(seen, was_oom=True, seconds=None)
    assert oom is not None
    assert oom.was_oom


def test_what_is_damaged_among_the_samples_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "vram.jsonl"
    path.write_bytes(
        b'5\nnull\nNaN\n{"a": 1}\n["a", "x", 1, false, 1.0, 5]\n["a", NaN, 1, false, NaN, 9]\n'
        b'[["a"], 9, 1, false, 1, 9]\n["a", null, 1, false, 1, 9]\n["a", -5, 0, false, -1, 0]\n\xff\n["a", 1]\n'
    )
    samples = SampleFile(path)
    samples.add("a", Sample(700, 2, was_oom=True))
    samples.add("b", Sample(900, 1, rate=0.5, card_mib=24_576))
    assert list(samples.read()) == [
        ("a", Sample(700, 2, was_oom=True)),
        ("b", Sample(900, 1, rate=0.5, card_mib=24_576)),
    ]
