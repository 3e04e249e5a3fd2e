"""The batch systems of the tests are what the other tests take them for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.hosts import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cluster.sge import GridEngine
    from tests.cluster.slurm import Slurm

pytestmark = pytest.mark.cluster

# Two tasks fit on a host at a time, so that both hosts have to take some.
SCRIPT = """#!/bin/sh
echo "$(hostname) ${{{task}}} ${{CUDA_VISIBLE_DEVICES-none}}" > {directory}/${{{task}}}
until test -e {directory}/go; do sleep 0.1; done
"""


def lines(directory: Path) -> list[list[str]]:
    """What the tasks wrote, as far as they have: host, task, GPUs."""
    written = (path.read_text().split() for path in sorted(directory.glob("[0-9]*")))
    return [words for words in written if words]


def test_an_array_runs_on_both_hosts_of_slurm_each_task_with_a_gpu_of_its_own(
    slurm: Slurm, tmp_path: Path, until: Callable[..., None]
) -> None:
    script = tmp_path / "script"
    script.write_text(SCRIPT.format(task="SLURM_ARRAY_TASK_ID", directory=tmp_path))

    job = slurm.call("sbatch", "--parsable", "--array=0-3", "--gres=gpu:1", "--output=/dev/null", str(script)).strip()
    until(lambda: len(lines(tmp_path)) == 4, lambda: slurm.call("squeue"))
    (tmp_path / "go").touch()

    assert [task for _, task, _ in lines(tmp_path)] == ["0", "1", "2", "3"]
    assert sorted((host, gpu) for host, _, gpu in lines(tmp_path)) == [(name, gpu) for name in NAMES for gpu in "01"]
    states = ("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={job}")
    expected = [f"{job}_{task}|COMPLETED" for task in range(4)]
    until(lambda: sorted(slurm.call(*states).split()) == expected, lambda: slurm.call(*states))


def test_slurm_goes_on_after_its_controller_was_killed(
    slurm: Slurm, tmp_path: Path, until: Callable[..., None]
) -> None:
    script = tmp_path / "script"
    script.write_text(SCRIPT.format(task="SLURM_ARRAY_TASK_ID", directory=tmp_path))
    slurm.call("sbatch", "--array=7", "--output=/dev/null", str(script))
    until(lambda: bool(lines(tmp_path)), lambda: slurm.call("squeue"))

    slurm.kill_controller()
    with pytest.raises(RuntimeError, match="DOWN"):
        slurm.call("scontrol", "ping")
    slurm.start_controller()

    slurm.call("sbatch", "--array=8", "--output=/dev/null", str(script))
    until(lambda: len(lines(tmp_path)) == 2, lambda: slurm.call("squeue"))
    (tmp_path / "go").touch()


def test_a_job_of_a_host_of_slurm_that_lost_its_power_starts_on_the_other(
    slurm: Slurm, tmp_path: Path, until: Callable[..., None]
) -> None:
    script = tmp_path / "script"
    script.write_text(SCRIPT.format(task="SLURM_RESTART_COUNT-0", directory=tmp_path))
    slurm.call("sbatch", "--requeue", "--output=/dev/null", str(script))
    until(lambda: len(lines(tmp_path)) == 1, lambda: slurm.call("squeue"))
    ((first, *_),) = lines(tmp_path)

    slurm.kill_node(first)
    until(lambda: len(lines(tmp_path)) == 2, lambda: slurm.call("squeue"), timeout_s=60)
    assert {host for host, *_ in lines(tmp_path)} == set(NAMES)
    (tmp_path / "go").touch()

    slurm.start_node(first)


def test_a_job_goes_on_while_its_host_is_cut_off(slurm: Slurm, tmp_path: Path, until: Callable[..., None]) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\nwhile sleep 0.1; do date +%N >> {tmp_path}/beats; done\n")
    slurm.call("sbatch", "--nodelist=node2", "--output=/dev/null", "--no-requeue", "--time=10", str(script))
    beats = tmp_path / "beats"
    until(beats.exists, lambda: slurm.call("squeue"))

    slurm.cut_node("node2")
    until(lambda: slurm.state("node2").startswith("down"), lambda: slurm.state("node2"), timeout_s=60)
    heard = beats.stat().st_size
    until(lambda: beats.stat().st_size > heard, lambda: heard)

    slurm.join_node("node2")
    until(lambda: slurm.state("node2") == "idle", lambda: slurm.state("node2"), timeout_s=60)


def test_slurm_without_accounting_says_so(slurm_without_accounting: Slurm) -> None:
    with pytest.raises(RuntimeError, match="accounting storage is disabled"):
        slurm_without_accounting.call("sacct")


def test_slurm_with_cgroups_kills_what_takes_too_much_memory(
    slurm_with_cgroups: Slurm, until: Callable[..., None]
) -> None:
    hungry = "python3 -c 'print(len(bytearray(200 << 20)))'"
    job = slurm_with_cgroups.call("sbatch", "--parsable", "--mem=50", "--output=/dev/null", f"--wrap={hungry}").strip()
    states = ("sacct", "--allocations", "--noheader", "--parsable2", "--format=State", f"--jobs={job}")
    until(
        lambda: slurm_with_cgroups.call(*states).strip() == "OUT_OF_MEMORY",
        lambda: slurm_with_cgroups.call(*states),
    )


def test_an_array_runs_on_both_hosts_of_grid_engine(
    sge: GridEngine, tmp_path: Path, until: Callable[..., None]
) -> None:
    script = tmp_path / "script"
    script.write_text(SCRIPT.format(task="SGE_TASK_ID", directory=tmp_path))

    sge.call("qsub", "-terse", "-t", "1-4", "-l", "gpus=1", "-o", "/dev/null", "-j", "y", "-N", "pair", str(script))
    until(lambda: len(lines(tmp_path)) == 4, lambda: sge.call("qstat"))
    (tmp_path / "go").touch()

    assert [task for _, task, _ in lines(tmp_path)] == ["1", "2", "3", "4"]
    assert sorted(host for host, _, _ in lines(tmp_path)) == sorted(NAMES * 2)
    until(lambda: sge.call("qstat") == "", lambda: sge.call("qstat"))
    assert sge.call("qacct", "-j", "pair").count("exit_status  0") == 4


def test_grid_engine_goes_on_after_its_master_was_killed(
    sge: GridEngine, tmp_path: Path, until: Callable[..., None]
) -> None:
    script = tmp_path / "script"
    script.write_text(SCRIPT.format(task="JOB_ID", directory=tmp_path))
    sge.call("qsub", "-o", "/dev/null", "-j", "y", str(script))
    until(lambda: bool(lines(tmp_path)), lambda: sge.call("qstat"))

    sge.kill_controller()
    with pytest.raises(RuntimeError, match="unable to send message to qmaster"):
        sge.call("qstat")
    sge.start_controller()

    sge.call("qsub", "-o", "/dev/null", "-j", "y", str(script))
    until(lambda: len(lines(tmp_path)) == 2, lambda: sge.call("qstat"), timeout_s=60)
    (tmp_path / "go").touch()
    until(lambda: sge.call("qstat") == "", lambda: sge.call("qstat"), timeout_s=60)


def test_a_host_of_grid_engine_that_lost_its_power_comes_back(
    sge: GridEngine, tmp_path: Path, until: Callable[..., None]
) -> None:
    script = tmp_path / "script"
    script.write_text(SCRIPT.format(task="RESTARTED", directory=tmp_path))
    sge.call("qsub", "-r", "y", "-o", "/dev/null", "-j", "y", "-l", "h=node1", str(script))
    until(lambda: bool(lines(tmp_path)), lambda: sge.call("qstat"), timeout_s=60)

    sge.kill_node("node1")
    sge.start_node("node1")

    until(lambda: len(lines(tmp_path)) == 2, lambda: sge.call("qstat"), timeout_s=60)
    (tmp_path / "go").touch()
