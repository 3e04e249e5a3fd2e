"""`run gpus` on machines that the test invents, and the GPUs that `resource: auto` means there."""

from __future__ import annotations

import getpass
import json
import os
from fractions import Fraction
from typing import TYPE_CHECKING

import pynvml
import pytest

from runner.gpus.leases import LeaseStore
from runner.options import StageOptions
from runner.resources import places
from tests.fakenvml.driver import FakeGpu, FakeNvml, uuid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Project, Said

MIG_UUID = "MIG-00000000-0000-4000-8000-00000000aaaa"


@pytest.fixture(autouse=True)
def _no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_driver_one_line_says_so(fake_nvml: Callable[..., FakeNvml], typed: Callable[..., Said]) -> None:
    fake = fake_nvml()
    fake.init_error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    fake.show()
    said = typed("gpus")
    assert (said.code, said.out, said.err) == (0, "no GPU: the NVIDIA driver is not loaded\n", "")
    assert typed("gpus", "--json").out == ""


def test_a_driver_without_gpus_is_said_too(fake_nvml: Callable[..., FakeNvml], typed: Callable[..., Said]) -> None:
    fake_nvml()
    assert typed("gpus").out == "no GPU: the NVIDIA driver knows of none\n"


def test_the_table_says_what_each_gpu_does_and_why_it_is_not_used(
    fake_nvml: Callable[..., FakeNvml], typed: Callable[..., Said], tmp_path: Path
) -> None:
    fake = fake_nvml(FakeGpu(0), FakeGpu(1), FakeGpu(2), FakeGpu(3))
    fake.fail("*", uuid(3), pynvml.NVML_ERROR_GPU_IS_LOST)
    store = LeaseStore(tmp_path / "leases")
    lease, part = store.take({uuid(2): Fraction(1)}), store.take({uuid(0): Fraction(1, 4)})
    assert lease is not None
    assert part is not None
    with fake.program("1", "5000") as pid:
        said = typed("gpus")
    lease.release()
    part.release()
    assert (said.code, said.err) == (0, "")
    rows = [line for line in said.out.splitlines() if "NVIDIA Fake 24GB" in line]
    assert len(rows) == 3  # the lost one was never read
    assert "75% free" in rows[0]
    assert f"in use by {getpass.getuser()}" in rows[1]
    assert "program.py 5000" in rows[1]
    assert f"pid {pid}" in rows[1]
    assert "5000 of 24576" in rows[1]
    assert f"leased by {getpass.getuser()}" in rows[2]
    assert f"{getpass.getuser()}: all" in rows[2]
    assert "GPU 3 does not answer: GPU is lost" in said.out


def test_json_is_one_object_a_gpu(fake_nvml: Callable[..., FakeNvml], typed: Callable[..., Said]) -> None:
    fake = fake_nvml(FakeGpu(0, utilization=50), FakeGpu(1, mig_mode=1, instances=[(0, MIG_UUID, 9_984)]))
    fake.gpus[0].processes = [(os.getpid(), "G", 30)]
    fake.show()
    first, second, third = map(json.loads, typed("gpus", "--json").out.splitlines())
    assert first["uuid"] == uuid(0)
    assert (first["used_mib"], first["utilization"], first["is_usable"]) == (30, 50, False)
    assert first["reason"] == "50% busy (the limit is 10%)"
    assert first["processes"][0]["pid"] == os.getpid()
    assert first["processes"][0]["is_compute"] is False
    assert (second["index"], second["is_usable"]) == ("1", False)
    assert (third["index"], third["uuid"], third["is_usable"]) == ("1:0", MIG_UUID, True)


def test_a_limit_of_the_shell_is_the_reason(
    fake_nvml: Callable[..., FakeNvml], typed: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml(FakeGpu(0), FakeGpu(1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    first, second = map(json.loads, typed("gpus", "--json").out.splitlines())
    assert first["reason"] == "not allowed here: CUDA_VISIBLE_DEVICES=1"
    assert second["is_usable"]


def test_the_command_needs_no_params_file_and_writes_nothing(
    fake_nvml: Callable[..., FakeNvml], project: Project
) -> None:
    project.environment |= fake_nvml(FakeGpu(0)).environment
    before = set(project.path.iterdir())
    done = project.run("gpus")
    assert (done.returncode, done.stderr) == (0, "")
    assert "NVIDIA Fake 24GB" in done.stdout
    assert set(project.path.iterdir()) == before


# --- what `resource: auto` means ---


@pytest.mark.parametrize(
    ("limit", "origin"),
    [(None, "3 GPUs"), ("2", "1 GPU"), ("2,0", "2 GPUs"), ("", "no GPU (CUDA_VISIBLE_DEVICES=)"), ("9", "no GPU (")],
)
def test_auto_is_every_gpu_and_instance_that_is_allowed(
    fake_nvml: Callable[..., FakeNvml], monkeypatch: pytest.MonkeyPatch, limit: str | None, origin: str
) -> None:
    fake_nvml(FakeGpu(0), FakeGpu(1, mig_mode=1, instances=[(0, MIG_UUID, 9_984)]), FakeGpu(2))
    if limit is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", limit)
    assert places("auto", [StageOptions()]).origin.startswith(origin)


def test_auto_is_cores_without_a_driver(fake_nvml: Callable[..., FakeNvml], monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_nvml(FakeGpu(0))
    fake.init_error = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    fake.show()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = places("auto", [StageOptions()])
    assert (found.gpus, found.origin.partition(";")[0]) == (None, "no GPU")
