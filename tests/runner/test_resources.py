"""Slots from what the file and the machine say."""

import os
from pathlib import Path

import pytest

from runner import resources
from runner.gpus import visible
from runner.header import CpuResource
from runner.model import Slot


def files(root: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="ascii")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without GPUs, with 8 cores and no quota; a test changes what it is about."""
    monkeypatch.setattr(visible, "visible_indices", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(resources, "_cgroup_quota", lambda: None)
    return monkeypatch


# --- quotas ---


@pytest.mark.parametrize(
    ("membership", "tree", "quota"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/a/b\n", {"cpu.max": "800000 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3.0),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "100000 50000\n"}, 0.5),
        ("0::/a\n", {"b/cpu.max": "100000 100000\n"}, None),
        ("0::/../elsewhere\n", {"cpu.max": "max 100000\n"}, None),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1.5),
        (
            "7:memory:/m\n4:cpuacct,cpu:/job/1\n1:name=systemd:/\n",
            {
                "cpu/job/1/cpu.cfs_quota_us": "-1\n",
                "cpu/job/1/cpu.cfs_period_us": "100000\n",
                "cpu/job/cpu.cfs_quota_us": "400000\n",
                "cpu/job/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        ("7:memory:/m\n3:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "1\n", "cpu/cpu.cfs_period_us": "1\n"}, None),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "150000\n"}, None),
        (
            "4:cpu:/x\n0::/x\n",
            {"cpu/x/cpu.cfs_quota_us": "300000\n", "cpu/x/cpu.cfs_period_us": "100000\n", "x/cpu.max": "200000 100000"},
            2.0,
        ),
        ("", {"cpu.max": "100000 100000\n"}, None),
    ],
)
def test_the_tightest_quota_of_the_groups_of_this_process_counts(
    tmp_path: Path, membership: str, tree: dict[str, str], quota: float | None
) -> None:
    files(tmp_path / "cgroup", tree)
    files(tmp_path, {"membership": membership})
    assert resources._cgroup_quota(tmp_path / "cgroup", tmp_path / "membership") == quota


def test_the_quota_of_this_machine_can_be_read() -> None:
    quota = resources._cgroup_quota()
    assert quota is None or quota > 0


def test_a_kernel_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert resources._cgroup_quota(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize(
    ("quota", "cores"), [(None, 8), (100.0, 8), (8.0, 8), (7.99, 7), (2.5, 2), (1.0, 1), (0.5, 1), (0.01, 1)]
)
def test_cores_are_those_of_the_affinity_or_of_a_smaller_quota(
    machine: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    machine.setattr(resources, "_cgroup_quota", lambda: quota)
    assert resources.usable_cores() == cores


def test_an_affinity_limits_the_cores(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7} if pid == 0 else set())
    assert resources.usable_cores() == 3


# --- slots ---


def test_auto_without_a_gpu_is_one_slot_a_core(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(resources, "_cgroup_quota", lambda: 3.0)
    slots, origin = resources.slots("auto")
    assert slots == [Slot("cpu 0"), Slot("cpu 1"), Slot("cpu 2")]
    assert origin == "no GPU; 3 CPU slots, one a core"


def test_auto_with_gpus_is_one_slot_a_gpu(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(visible, "visible_indices", lambda: ["0", "3"])
    slots, origin = resources.slots("auto")
    assert slots == [Slot("gpu 0", "0"), Slot("gpu 3", "3")]
    assert origin == "2 GPUs"


@pytest.mark.usefixtures("machine")
def test_a_number_of_cpu_slots_is_taken_as_it_is() -> None:
    slots, origin = resources.slots(CpuResource(cpu=20))
    assert [slot.label for slot in slots] == [f"cpu {index}" for index in range(20)]
    assert {slot.gpus for slot in slots} == {None}
    assert origin == "20 CPU slots"


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["0"], [("gpu 0", "0")]),
        (["0,1", "2,3"], [("gpu 0,1", "0,1"), ("gpu 2,3", "2,3")]),
        (["0", "0", "1", "0"], [("gpu 0", "0"), ("gpu 0 #2", "0"), ("gpu 1", "1"), ("gpu 0 #3", "0")]),
    ],
)
def test_listed_gpus_are_slots_and_repeated_ones_are_numbered(
    items: list[str], expected: list[tuple[str, str]]
) -> None:
    slots, origin = resources.slots(items)
    assert slots == [Slot(label, gpus) for label, gpus in expected]
    assert len({slot.label for slot in slots}) == len(items)
    assert origin == f"{len(items)} GPU slots"
