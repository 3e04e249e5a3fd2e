"""Readings of GPUs through the real pynvml, from a driver that the test invents."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pynvml
import pytest

from runner.gpus.devices import Health
from runner.gpus.nvml import REOPEN_S, Nvml
from tests.fakenvml.driver import EVERY_CALL, HANGS, NOT_SUPPORTED, FakeGpu, FakeNvml, uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIG_UUIDS = ("MIG-00000000-0000-4000-8000-00000000aaaa", "MIG-00000000-0000-4000-8000-00000000bbbb")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def nvml(clock: Clock, request: pytest.FixtureRequest) -> Iterator[Nvml]:
    """A reader that is closed before the fake driver goes."""
    request.getfixturevalue("fake_nvml")
    result = Nvml(clock)
    yield result
    result.close()


def test_a_snapshot_holds_what_the_driver_tells(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    fake_nvml(FakeGpu(0, utilization=37, other_used_mib=24), FakeGpu(1, total_mib=81_920, name="NVIDIA A100 80GB"))
    snapshot = nvml.snapshot()
    first, second = snapshot.devices
    assert (first.uuid, first.index, first.name) == (uuid(0), "0", "NVIDIA Fake 24GB")
    assert first.bus == "00000000:01:00.0"
    assert (first.total_mib, first.used_mib, first.free_mib) == (24_576, 24, 24_552)
    assert (first.utilization, first.processes, first.health) == (37, (), Health.WELL)
    assert (second.index, second.name, second.total_mib) == ("1", "NVIDIA A100 80GB", 81_920)
    assert snapshot.no_driver == ""
    assert nvml.take_notices() == []


def test_processes_come_with_their_user_command_and_memory(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    fake = fake_nvml(FakeGpu(0), FakeGpu(1))
    with fake.program("1", "3000") as pid:
        idle, busy = nvml.snapshot().devices
        assert idle.processes == ()
        assert busy.used_mib == 3000
        assert busy.processes is not None
        (process,) = busy.processes
        assert (process.pid, process.used_mib, process.is_compute) == (pid, 3000, True)
        assert process.user == getpass.getuser()
        assert "program.py 3000" in (process.command or "")
        assert process.descends_from({os.getpid()})
        assert not process.descends_from({pid + 1})
    gone = nvml.snapshot().devices[1]
    assert (gone.processes, gone.used_mib) == ((), 0)


def test_graphics_and_mps_are_told_from_compute(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    own = os.getpid()
    fake_nvml(FakeGpu(0, processes=[(own, "G", 120), (own + 1, "M", 500), (own + 2, "C", NOT_SUPPORTED)]))
    processes = nvml.snapshot().devices[0].processes
    assert processes is not None
    assert {(process.pid, process.is_compute, process.used_mib) for process in processes} == {
        (own, False, 120),
        (own + 1, True, 500),
        (own + 2, True, None),
    }


def test_a_process_that_draws_and_computes_counts_once(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    fake_nvml(FakeGpu(0, processes=[(os.getpid(), "G", 700), (os.getpid(), "C", 700)]))
    device = nvml.snapshot().devices[0]
    assert device.processes is not None
    assert [(process.is_compute, process.used_mib) for process in device.processes] == [(True, 700)]
    assert device.used_by({os.getpid()}) == 700


def test_a_process_of_another_namespace_has_a_pid_alone(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    beyond = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    fake_nvml(FakeGpu(0, processes=[(beyond, "C", 100)]))
    processes = nvml.snapshot().devices[0].processes
    assert processes is not None
    assert [(process.pid, process.user, process.command, process.lineage) for process in processes] == [
        (beyond, None, None, ())
    ]


def test_a_sandbox_that_shows_its_programs_as_the_first_process_hides_them(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml
) -> None:
    fake_nvml(FakeGpu(0, processes=[(1, "C", 100)]))
    processes = nvml.snapshot().devices[0].processes
    assert processes is not None
    assert [(process.pid, process.user, process.used_mib) for process in processes] == [(1, None, 100)]


def test_many_processes_fit_into_one_reading(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    fake_nvml(FakeGpu(0, processes=[(10_000_000 + number, "C", 1) for number in range(300)]))
    assert len(nvml.snapshot().devices[0].processes or ()) == 300


# --- what a driver lacks ---


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION])
def test_a_missing_reading_is_none_and_said_once(fake_nvml: Callable[..., FakeNvml], nvml: Nvml, code: int) -> None:
    fake = fake_nvml(FakeGpu(0), FakeGpu(1))
    fake.fail("nvmlDeviceGetUtilizationRates", uuid(0), code)
    for _ in range(2):
        first, second = nvml.snapshot().devices
        assert (first.utilization, first.used_mib, first.health) == (None, 0, Health.WELL)
        assert second.utilization == 0
    said = "GPU 0 (NVIDIA Fake 24GB): the driver does not tell its utilisation; not checked there."
    assert nvml.take_notices() == [said]
    assert nvml.take_notices() == []


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_INVALID_ARGUMENT])
def test_what_was_refused_from_the_first_is_lacking_and_what_was_given_before_a_fault(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml, code: int
) -> None:
    fake = fake_nvml(FakeGpu(0, other_used_mib=7), FakeGpu(1))
    for kind in ("Compute", "Graphics", "MPSCompute"):
        for version in ("v2", "v3"):
            fake.fail(f"nvmlDeviceGet{kind}RunningProcesses_{version}", uuid(0), code)
    for call in ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMigMode"):
        fake.fail(call, uuid(0), code)
    first, second = nvml.snapshot().devices
    assert (first.health, first.used_mib, first.utilization, first.processes) == (Health.WELL, 7, None, None)
    assert (second.utilization, second.processes) == (0, ())
    assert [notice.split(":")[0] for notice in nvml.take_notices()] == ["GPU 0 (NVIDIA Fake 24GB)"] * 2
    fake.fail("nvmlDeviceGetUtilizationRates", uuid(1), code)
    first, second = nvml.snapshot().devices
    assert first.health is Health.WELL
    assert second.health is not Health.WELL


def test_a_gpu_that_tells_no_memory_is_not_well_where_it_refuses_the_rest(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml
) -> None:
    fake = fake_nvml(FakeGpu(0))
    for call in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"):
        fake.fail(call, uuid(0), pynvml.NVML_ERROR_NOT_SUPPORTED)
    fake.fail("nvmlDeviceGetUtilizationRates", uuid(0), pynvml.NVML_ERROR_UNKNOWN)
    assert nvml.snapshot().devices[0].health is Health.LOST


def test_an_old_driver_tells_what_it_can(
    fake_nvml: Callable[..., FakeNvml], old_nvml_library: Path, nvml: Nvml
) -> None:
    gpu = FakeGpu(0, other_used_mib=10, utilization=5, processes=[(os.getpid(), "C", 200)])
    fake_nvml(gpu, library=old_nvml_library)
    device = nvml.snapshot().devices[0]
    assert (device.used_mib, device.utilization, device.is_divided) == (210, 5, False)
    assert device.processes is not None
    assert [(process.pid, process.used_mib) for process in device.processes] == [(os.getpid(), 200)]
    assert nvml.take_notices() == []


@pytest.mark.parametrize("call", ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3"])
def test_an_older_form_of_a_call_stands_in_for_a_newer(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml, call: str
) -> None:
    fake = fake_nvml(FakeGpu(0, processes=[(os.getpid(), "C", 64)]))
    fake.fail(call, uuid(0), pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    device = nvml.snapshot().devices[0]
    assert (device.used_mib, len(device.processes or ())) == (64, 1)


def test_unified_memory_has_no_amounts(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    fake = fake_nvml(FakeGpu(0))
    for call in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"):
        fake.fail(call, uuid(0), pynvml.NVML_ERROR_NOT_SUPPORTED)
    device = nvml.snapshot().devices[0]
    assert (device.total_mib, device.free_mib, device.health) == (None, None, Health.WELL)
    assert len(nvml.take_notices()) == 1


# --- MIG ---


def test_instances_are_devices_and_their_gpu_is_divided(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    fake = fake_nvml(
        FakeGpu(0),
        FakeGpu(1, mig_mode=1, instances=[(0, MIG_UUIDS[0], 9_984), (3, MIG_UUIDS[1], 19_968)]),
    )
    fake.note_use(os.getpid(), MIG_UUIDS[1], 500)
    snapshot = nvml.snapshot()
    assert [device.index for device in snapshot.devices] == ["0", "1", "1:0", "1:3"]
    assert [device.uuid for device in snapshot.usable()] == [uuid(0), *MIG_UUIDS]
    instance = snapshot.device(MIG_UUIDS[1])
    assert instance is not None
    assert (instance.parent, instance.total_mib, instance.used_mib) == (uuid(1), 19_968, 500)
    assert instance.used_by({os.getpid()}) == 500
    assert instance.utilization is None
    assert nvml.take_notices() == []  # that is no fault of the driver


@pytest.mark.parametrize(
    ("code", "health"),
    [(pynvml.NVML_ERROR_TIMEOUT, Health.UNREADABLE), (pynvml.NVML_ERROR_GPU_IS_LOST, Health.LOST)],
)
@pytest.mark.parametrize(
    ("call", "failing"),
    [
        (EVERY_CALL, uuid(0)),
        ("nvmlDeviceGetMaxMigDeviceCount", uuid(0)),
        ("nvmlDeviceGetMigDeviceHandleByIndex", uuid(0)),
        ("nvmlDeviceGetMemoryInfo_v2", MIG_UUIDS[0]),
    ],
)
def test_instances_share_their_gpus_fate(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml, call: str, failing: str, code: int, health: Health
) -> None:
    fake = fake_nvml(FakeGpu(0, mig_mode=1, instances=[(0, MIG_UUIDS[0], 9_984)]))
    nvml.snapshot()
    fake.fail(call, failing, code)
    gpu, instance = nvml.snapshot().devices
    assert (gpu.health, gpu.is_divided, gpu.total_mib) == (health, True, 24_576)
    assert (instance.uuid, instance.health) == (MIG_UUIDS[0], health)
    fake.heal()
    assert {device.health for device in nvml.snapshot().devices} == {Health.WELL}


def test_an_instance_that_was_taken_away_is_lost(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    fake = fake_nvml(FakeGpu(0, mig_mode=1, instances=[(0, MIG_UUIDS[0], 9_984)]))
    nvml.snapshot()
    fake.gpus[0].instances.clear()
    fake.show()
    gpu, instance = nvml.snapshot().devices
    assert (gpu.health, instance.health) == (Health.WELL, Health.LOST)


# --- a GPU that is lost, and found ---


@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_RESET_REQUIRED]
)
def test_a_lost_gpu_is_marked_and_the_rest_goes_on(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml, clock: Clock, code: int
) -> None:
    fake = fake_nvml(FakeGpu(0), FakeGpu(1, other_used_mib=7))
    nvml.snapshot()
    fake.fail(EVERY_CALL, uuid(0), code)
    for _ in range(3):
        lost, well = nvml.snapshot().devices
        assert (lost.uuid, lost.health, lost.used_mib) == (uuid(0), Health.LOST, None)
        assert lost.fault
        assert (well.health, well.used_mib) == (Health.WELL, 7)
        clock.now_s += REOPEN_S
    fake.heal()
    clock.now_s += REOPEN_S
    assert {device.uuid: device.health for device in nvml.snapshot().devices} == {
        uuid(0): Health.WELL,
        uuid(1): Health.WELL,
    }


def test_a_gpu_that_leaves_the_drivers_list_is_lost_under_its_own_uuid(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml, clock: Clock
) -> None:
    fake = fake_nvml(FakeGpu(0), FakeGpu(1))
    nvml.snapshot()
    taken = fake.gpus.pop(0)
    fake.gpus[0].index = 0  # the driver counts anew
    fake.show()
    assert {device.uuid: device.health for device in nvml.snapshot().devices}[uuid(0)] is Health.LOST
    clock.now_s += REOPEN_S
    after = nvml.snapshot()
    assert {device.uuid: (device.index, device.health) for device in after.devices} == {
        uuid(1): ("0", Health.WELL),
        uuid(0): ("0", Health.LOST),
    }
    fake.gpus[0].index = 1
    fake.gpus.insert(0, taken)
    fake.show()
    clock.now_s += REOPEN_S
    assert all(device.health is Health.WELL for device in nvml.snapshot().devices)


def test_a_passing_fault_is_not_a_loss(fake_nvml: Callable[..., FakeNvml], nvml: Nvml) -> None:
    fake = fake_nvml(FakeGpu(0))
    nvml.snapshot()
    fake.fail("nvmlDeviceGetMemoryInfo_v2", uuid(0), pynvml.NVML_ERROR_TIMEOUT)
    device = nvml.snapshot().devices[0]
    assert (device.health, device.processes) == (Health.UNREADABLE, None)
    fake.heal()
    assert nvml.snapshot().devices[0].health is Health.WELL


# --- no driver ---


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "the NVIDIA driver is not loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "a reboot is needed"),
        (pynvml.NVML_ERROR_UNKNOWN, "the NVIDIA driver does not answer: Unknown Error"),
    ],
)
def test_a_driver_that_does_not_start_is_no_driver(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml, clock: Clock, code: int, said: str
) -> None:
    fake = fake_nvml(FakeGpu(0))
    fake.init_error = code
    fake.show()
    assert nvml.snapshot().devices == ()
    assert said in nvml.snapshot().no_driver
    fake.heal()
    assert nvml.snapshot().devices == ()  # it is not asked all the time
    clock.now_s += REOPEN_S
    assert len(nvml.snapshot().devices) == 1


def test_with_the_driver_all_gpus_go(fake_nvml: Callable[..., FakeNvml], nvml: Nvml, clock: Clock) -> None:
    fake = fake_nvml(FakeGpu(0), FakeGpu(1))
    nvml.snapshot()
    fake.fail(EVERY_CALL, "*", pynvml.NVML_ERROR_UNKNOWN)
    fake.init_error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    fake.show()
    nvml.snapshot()
    clock.now_s += REOPEN_S
    snapshot = nvml.snapshot()
    assert [device.health for device in snapshot.devices] == [Health.LOST, Health.LOST]
    assert snapshot.devices[0].fault == "the NVIDIA driver is not loaded"


def test_a_driver_that_does_not_answer_for_a_while_has_lost_no_gpu(
    fake_nvml: Callable[..., FakeNvml], nvml: Nvml, clock: Clock
) -> None:
    fake = fake_nvml(FakeGpu(0), FakeGpu(1))
    nvml.snapshot()
    fake.fail("nvmlDeviceGetMemoryInfo_v2", uuid(0), pynvml.NVML_ERROR_TIMEOUT)
    fake.init_error = pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES
    fake.show()
    assert [device.health for device in nvml.snapshot().devices] == [Health.UNREADABLE, Health.WELL]
    clock.now_s += REOPEN_S
    assert [device.health for device in nvml.snapshot().devices] == [Health.UNREADABLE, Health.UNREADABLE]
    fake.heal()
    clock.now_s += REOPEN_S
    assert [device.health for device in nvml.snapshot().devices] == [Health.WELL, Health.WELL]


def test_a_call_that_hangs_keeps_nobody_waiting(fake_nvml: Callable[..., FakeNvml], until: Callable[..., None]) -> None:
    fake, nvml = fake_nvml(FakeGpu(0), FakeGpu(1)), Nvml(patience_s=2.0)
    assert [device.used_mib for device in nvml.snapshot().devices] == [0, 0]
    fake.fail("nvmlDeviceGetUtilizationRates", uuid(1), HANGS)
    for _ in range(2):
        snapshot = nvml.snapshot()
        assert [device.health for device in snapshot.devices] == [Health.UNREADABLE, Health.UNREADABLE]
        assert snapshot.devices[0].fault == "the NVIDIA driver has not answered for 2 s"
    fake.gpus[0].other_used_mib = 300
    fake.heal()
    # What was asked before the memory was taken is not told any more.
    until(lambda: nvml.snapshot().devices[0].health is Health.WELL, nvml.snapshot)
    assert [device.used_mib for device in nvml.snapshot().devices] == [300, 0]
    nvml.close()


def test_a_driver_that_hangs_from_the_first_can_be_left(fake_nvml: Callable[..., FakeNvml]) -> None:
    fake = fake_nvml(FakeGpu(0))
    fake.fail("nvmlInitWithFlags", "-", HANGS)
    code = "from runner.gpus.nvml import Nvml; nvml = Nvml(patience_s=0.2); print(nvml.snapshot()); nvml.close()"
    environment = {**os.environ, **fake.environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert "devices=(), no_driver='the NVIDIA driver has not answered for 0.2 s'" in done.stdout


def test_a_machine_without_the_library_has_no_gpu(tmp_path: Path) -> None:
    code = "from runner.gpus.nvml import Nvml; print(Nvml().snapshot().no_driver)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    if not done.stdout.strip():
        pytest.skip("this machine has an NVIDIA driver")
    assert done.stdout == "no NVIDIA driver: libnvidia-ml.so.1 was not found\n"


def test_the_loader_finds_the_fake_library_for_a_new_process(fake_nvml: Callable[..., FakeNvml]) -> None:
    fake = fake_nvml(FakeGpu(0), FakeGpu(1))
    code = "from runner.gpus.nvml import Nvml; print([device.uuid for device in Nvml().snapshot().devices])"
    environment = {**os.environ, **fake.environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str([uuid(0), uuid(1)])
