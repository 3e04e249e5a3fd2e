"""Slots from what the file and the machine say."""

import os
from pathlib import Path

import pytest

from runner import resources
from runner.errors import InputError
from runner.gpus import nvml
from runner.gpus.devices import Device, Limit, Snapshot
from runner.gpus.wish import GpuWish
from runner.model import Slot
from runner.options import StageOptions
from runner.params.header import ResourceKeys
from runner.resources import Places
from runner.text import counted


def files(root: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="ascii")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without GPUs, with 8 cores and no quota; a test changes what it is about."""
    monkeypatch.setattr(nvml, "one_look", lambda: Snapshot(0.0, no_driver="no NVIDIA driver: none"))
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


# --- places ---

NO_OPTIONS = [StageOptions()]


def gpu(index: int, name: str = "NVIDIA A100") -> Device:
    return Device(f"GPU-{index:08d}", str(index), name, total_mib=40_000, used_mib=0, free_mib=40_000)


@pytest.fixture
def four_gpus(machine: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with four GPUs, the last of another kind."""
    devices = (*map(gpu, range(3)), gpu(3, "NVIDIA T4"))
    machine.setattr(nvml, "one_look", lambda: Snapshot(0.0, devices))
    machine.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return machine


def test_auto_without_a_gpu_is_one_slot_a_core(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(resources, "_cgroup_quota", lambda: 3.0)
    found = resources.places("auto", NO_OPTIONS)
    assert found.slots == (Slot("cpu 0"), Slot("cpu 1"), Slot("cpu 2"))
    assert (found.gpus, found.count, found.origin) == (None, 3, "no GPU; 3 CPU slots, one a core")


def test_a_stage_of_several_cores_has_fewer_slots(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(resources, "_cgroup_quota", lambda: 5.0)
    found = resources.places("auto", [StageOptions(cpus=2), StageOptions()])
    assert (found.count, found.origin) == (2, "no GPU; 2 CPU slots, one for 2 cores")


@pytest.mark.usefixtures("four_gpus")
def test_auto_with_gpus_is_each_gpu() -> None:
    found = resources.places("auto", NO_OPTIONS)
    assert found == Places((), GpuWish(), "4 GPUs", 4)


def test_what_the_shell_does_not_show_is_not_there(four_gpus: pytest.MonkeyPatch) -> None:
    four_gpus.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = resources.places("auto", NO_OPTIONS)
    limit = Limit("1", "CUDA_VISIBLE_DEVICES=1")
    assert found == Places((), GpuWish(limit=limit), "1 GPU", 1)
    with pytest.raises(InputError, match="no GPU 0 here; there are: 1"):
        resources.places(["0"], NO_OPTIONS)


@pytest.mark.usefixtures("four_gpus")
def test_conditions_are_asked_for() -> None:
    wanted = ResourceKeys(name="a100", min_free_vram="20GiB", max_util="5%")  # type: ignore[arg-type]
    found = resources.places(wanted, NO_OPTIONS)
    assert found == Places((), GpuWish(None, 20_480, "a100", 5), "3 GPUs", 3)
    with pytest.raises(InputError, match="no GPU is called 'H100' here; there are: NVIDIA A100, NVIDIA T4"):
        resources.places(ResourceKeys(name="H100"), NO_OPTIONS)


@pytest.mark.usefixtures("four_gpus")
def test_listed_gpus_are_taken_as_they_stand() -> None:
    found = resources.places(["0,1", "2", "2"], [StageOptions(), StageOptions(gpus=0)])
    assert found.gpus == GpuWish(("0,1", "2", "2"))
    assert {slot.gpus for slot in found.slots} == {None}
    with pytest.raises(InputError, match="no GPU 7 here; there are: 0, 1, 2, 3"):
        resources.places(["0", "7"], NO_OPTIONS)


@pytest.mark.usefixtures("four_gpus")
def test_more_gpus_than_there_are_is_an_error() -> None:
    with pytest.raises(InputError, match="line 3, resource: gives 4, but a stage has `gpus: 5`"):
        resources.places("auto", [StageOptions(gpus=5)], "params.yaml, line 3, resource")
    # An entry that stands twice is one GPU for two attempts.
    with pytest.raises(InputError, match="resource: gives 1, but a stage has `gpus: 2`"):
        resources.places(["0", "0"], [StageOptions(gpus=2)])
    assert resources.places(["0", "0"], NO_OPTIONS).origin == "1 GPU"
    with pytest.raises(InputError, match="resource: no GPU has 40960 MiB here; the largest has 40000 MiB"):
        resources.places(ResourceKeys(min_free_vram="40GiB"), NO_OPTIONS)  # type: ignore[arg-type]


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("items", "twice"), [(["0,1", "1,2"], "1"), (["0,0"], "0"), (["0", "1", "GPU-00000001"], "GPU-00000001")]
)
def test_a_gpu_that_is_asked_for_in_two_ways_is_an_error(items: list[str], twice: str) -> None:
    with pytest.raises(InputError, match=f"resource: GPU {twice} stands in it"):
        resources.places(items, NO_OPTIONS)


@pytest.mark.usefixtures("machine")
def test_conditions_without_a_gpu_are_an_error() -> None:
    with pytest.raises(InputError, match="there is none: no NVIDIA driver"):
        resources.places(ResourceKeys(name="A100"), NO_OPTIONS)


@pytest.mark.usefixtures("machine")
def test_a_number_of_cpu_slots_is_taken_as_it_is() -> None:
    found = resources.places(ResourceKeys(cpu=20), NO_OPTIONS)
    assert [slot.label for slot in found.slots] == [f"cpu {index}" for index in range(20)]
    assert {slot.gpus for slot in found.slots} == {None}
    assert found.origin == "20 CPU slots"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["0"], [("gpu 0", "0")]),
        (["0,1", "2,3"], [("gpu 0,1", "0,1"), ("gpu 2,3", "2,3")]),
        (["0", "0", "1", "0"], [("gpu 0", "0"), ("gpu 0 #2", "0"), ("gpu 1", "1"), ("gpu 0 #3", "0")]),
    ],
)
def test_listed_gpus_without_a_driver_are_slots_that_nobody_checks(
    items: list[str], expected: list[tuple[str, str]]
) -> None:
    found = resources.places(items, NO_OPTIONS)
    assert found.slots == tuple(Slot(label, gpus) for label, gpus in expected)
    assert found.origin == f"{counted(len(items), 'GPU slot')}, unchecked (no NVIDIA driver: none)"


@pytest.mark.usefixtures("machine")
def test_what_could_never_start_is_an_error_without_a_driver_too() -> None:
    with pytest.raises(InputError, match="resource: gives 2, but a stage has `gpus: 3`"):
        resources.places(["0", "1", "0"], [StageOptions(gpus=3)])
    with pytest.raises(InputError, match="resource: GPU 1 stands in it"):
        resources.places(["0,1", "1"], NO_OPTIONS)


@pytest.mark.parametrize(
    ("options", "count", "cores"),
    [(StageOptions(), 2, 4), (StageOptions(), 3, 2), (StageOptions(), 20, 1), (StageOptions(cpus=5), 3, 5)],
)
@pytest.mark.usefixtures("machine")
def test_cores_are_shared_out_by_the_plan(options: StageOptions, count: int, cores: int) -> None:
    assert resources.resolved(options, resources.places(ResourceKeys(cpu=count), [options]), "auto").cpus == cores


def test_attempts_that_share_a_gpu_share_its_cores(four_gpus: pytest.MonkeyPatch) -> None:
    four_gpus.setattr(os, "sched_getaffinity", lambda _: set(range(32)))
    places = resources.places("auto", NO_OPTIONS)
    assert [resources.resolved(StageOptions(per_gpu=count), places, "auto").cpus for count in (1, 2, None)] == [8, 4, 2]
