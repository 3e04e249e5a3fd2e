"""Which GPUs the surrounding shell allows."""

from __future__ import annotations

import pytest

from runner.gpus.devices import Device, GpuProcess, Limit, allowed, limit_of

GPU_0, GPU_1, GPU_2 = ("GPU-8a6f0000-aaaa", "GPU-8a6f0000-bbbb", "GPU-11110000-cccc")
MIG_A, MIG_B = ("MIG-aaaa", "MIG-bbbb")
DEVICES = [
    Device(GPU_0, "0", "A100"),
    Device(GPU_1, "1", "A100"),
    Device(MIG_A, "2:0", "MIG 1g", parent=GPU_2),
    Device(MIG_B, "2:1", "MIG 1g", parent=GPU_2),
]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, [GPU_0, GPU_1, MIG_A, MIG_B]),
        ("1", [GPU_1]),
        ("1, 0", [GPU_1, GPU_0]),
        ("0,0", [GPU_0]),
        (GPU_1, [GPU_1]),
        ("GPU-1111", [MIG_A, MIG_B]),  # the beginning of a UUID will do
        ("gpu-1111", []),
        (GPU_1.replace("bbbb", "BBBB"), [GPU_1]),
        ("GPU-8a6f", []),  # and must be one GPU's
        ("2", [MIG_A, MIG_B]),
        ("2:1", [MIG_B]),
        (MIG_B, [MIG_B]),
        (f"{MIG_B},0", [MIG_B, GPU_0]),
        ("", []),
        (",", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", [GPU_0]),
        ("1,7,0", [GPU_1]),  # CUDA stops at what is no device
        ("none", []),
    ],
)
def test_a_limit_is_read_as_cuda_reads_it(limit: str | None, expected: list[str]) -> None:
    assert [device.uuid for device in allowed(Limit(limit), DEVICES)] == expected


@pytest.mark.parametrize(
    ("environment", "limit"),
    [
        ({}, (None, "")),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ("1", "CUDA_VISIBLE_DEVICES=1")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ("", "CUDA_VISIBLE_DEVICES=")),
        ({"SLURM_JOB_ID": "7"}, (None, "")),
        ({"SLURM_JOB_GPUS": "2,3"}, ("2,3", "SLURM_JOB_GPUS=2,3")),
        ({"SLURM_JOB_GPUS": ""}, (None, "")),
        ({"SLURM_JOB_GPUS": "2,3", "SLURM_STEP_GPUS": "3"}, ("3", "SLURM_STEP_GPUS=3")),
        ({"SLURM_JOB_GPUS": "2,3", "CUDA_VISIBLE_DEVICES": "0"}, ("0", "CUDA_VISIBLE_DEVICES=0")),
    ],
)
def test_the_shell_limits_before_slurm(environment: dict[str, str], limit: tuple[str | None, str]) -> None:
    assert limit_of(environment) == limit


def test_memory_of_a_process_tree_is_known_only_where_each_of_its_processes_is() -> None:
    processes = (GpuProcess(5, True, 100, lineage=(5, 4, 3)), GpuProcess(6, True, 50, lineage=(6, 6, 3)))
    device = Device(GPU_0, "0", "A100", processes=processes)
    assert device.used_by({3}) == 150
    assert device.used_by({4}) == 100
    assert device.used_by({99}) == 0
    untold = Device(GPU_0, "0", "A100", processes=(*processes, GpuProcess(7, True, None, lineage=(7, 7, 1))))
    assert untold.used_by({3}) == 150
    assert untold.used_by({7}) is None
    assert Device(GPU_0, "0", "A100", processes=None).used_by({3}) is None
