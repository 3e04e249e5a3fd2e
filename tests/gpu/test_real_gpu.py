"""What the fake driver stands for, on a real GPU with real programs; skipped where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from runner.gpus.devices import Health
from runner.gpus.eligibility import Conditions, judge, remember
from runner.gpus.nvml import Nvml
from runner.gpus.sampler import Sampler, process_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.gpus.devices import Device, Snapshot

# Each line that it reads is an amount in MiB to hold in all; it answers with what torch itself reports.
PROGRAM = """
import json, sys
import torch
held = [torch.zeros(1, device="cuda")]
for line in sys.stdin:
    mib = int(line)
    try:
        held.append(torch.empty(mib << 20, dtype=torch.uint8, device="cuda"))
        torch.cuda.synchronize()
        fault = ""
    except torch.OutOfMemoryError as error:
        fault = str(error)
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    print(json.dumps({"reserved_mib": torch.cuda.memory_reserved() >> 20, "uuid": uuid, "fault": fault}), flush=True)
"""
START_TIMEOUT_S = 60
WITHIN = 0.05


class TorchProgram:
    """A program on a GPU that takes memory when it is told to."""

    def __init__(self, visible: str) -> None:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def hold(self, mib: int) -> dict[str, str | int]:
        """Lets it take some more; what torch reports then."""
        assert self.process.stdin
        assert self.process.stdout
        print(mib, file=self.process.stdin, flush=True)
        report: dict[str, str | int] = json.loads(self.process.stdout.readline())
        return report


@contextmanager
def torch_program(visible: str) -> Iterator[TorchProgram]:
    """One until the end of the block."""
    program = TorchProgram(visible)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.communicate(timeout=START_TIMEOUT_S)


@pytest.fixture(scope="module")
def nvml() -> Iterator[Nvml]:
    reader = Nvml()
    snapshot = reader.snapshot()
    if not snapshot.usable():
        pytest.skip(f"no real GPU here: {snapshot.no_driver or 'the driver knows of none'}")
    if not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("torch is not built for this GPU")
    yield reader
    reader.close()


@pytest.fixture
def device(nvml: Nvml) -> Device:
    """The GPU with most free memory."""
    return max(nvml.snapshot().usable(), key=lambda device: device.free_mib or 0)


def why_not_free(snapshot: Snapshot, device: Device) -> str:
    past = remember({}, snapshot, {}, Conditions())
    return judge(snapshot, past, {}, Conditions(max_util=100))[device.uuid].reason


def test_a_reading_is_whole(device: Device) -> None:
    assert device.health is Health.WELL
    assert device.uuid.startswith(("GPU-", "MIG-"))
    assert device.name
    assert device.total_mib is not None
    assert device.free_mib is not None
    assert 0 < device.free_mib <= device.total_mib


@pytest.mark.parametrize("by", ["uuid", "index"])
def test_indices_and_uuids_mean_the_same_to_nvml_and_cuda(device: Device, by: str) -> None:
    if device.parent is not None and by == "index":
        pytest.skip("a MIG instance is known by its UUID alone")
    with torch_program(device.uuid if by == "uuid" else device.index) as program:
        assert str(program.hold(1)["uuid"]) in device.uuid


def test_the_peak_is_what_torch_reports(nvml: Nvml, device: Device) -> None:
    before = nvml.snapshot()
    mib = min(8_192, (device.free_mib or 0) // 2)
    with torch_program(device.uuid) as program:
        sampler = Sampler(program.process.pid, [device.uuid], before)
        first = int(program.hold(1)["reserved_mib"])
        context_mib = sampler.sample(nvml.snapshot(), process_table()).vram_mib[device.uuid] - first
        reported = int(program.hold(mib)["reserved_mib"])
        usage = sampler.sample(nvml.snapshot(), process_table())
    print(f"{device.name}: {usage.vram_mib[device.uuid]} MiB measured; torch: {reported}, its context: {context_mib}")
    assert reported >= mib
    assert usage.vram_mib[device.uuid] == pytest.approx(reported + context_mib, rel=WITHIN)
    assert sampler.peak.vram_mib == usage.vram_mib


def test_a_strangers_program_is_seen_and_its_end_too(nvml: Nvml, device: Device, until: Callable[..., None]) -> None:
    if why_not_free(nvml.snapshot(), device):
        pytest.skip(f"GPU {device.index} is in use")
    with torch_program(device.uuid) as program:
        program.hold((device.total_mib or 0) // 8)
        reason = why_not_free(nvml.snapshot(), device)
    # A container's driver may not show the processes; then their memory tells.
    assert reason.startswith("in use by") or "MiB are used by others" in reason
    until(lambda: not why_not_free(nvml.snapshot(), device), nvml.snapshot)


def test_what_does_not_fit_is_refused_with_the_words_that_are_looked_for(device: Device) -> None:
    with torch_program(device.uuid) as program:
        assert "out of memory" in str(program.hold((device.total_mib or 0) * 2)["fault"])
