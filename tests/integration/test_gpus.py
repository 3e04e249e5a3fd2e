"""`run` on GPUs: the fake driver library under the real pynvml, a real daemon, real programs."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pynvml
import pytest

from runner.gpus.leases import WHOLE, LeaseStore
from tests.fakenvml.driver import HANGS, PROGRAM, FakeGpu, FakeNvml, uuid

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Project

USES = f"{sys.executable} {PROGRAM}"
WAITS = "while ! test -e go; do sleep 0.02; done"


@pytest.fixture
def machine(fake_nvml: Callable[..., FakeNvml], project: Project) -> Callable[..., FakeNvml]:
    """A machine with some GPUs for what is typed in the project."""

    def make(*gpus: FakeGpu) -> FakeNvml:
        fake = fake_nvml(*gpus)
        project.environment |= fake.environment
        return fake

    return make


def starts(project: Project) -> dict[str, dict[str, Any]]:
    """The record of each trial's last start."""
    return {name: project.attempts(name, "start")[-1] for name in project.trials()}


def ends(project: Project, name: str) -> list[dict[str, Any]]:
    return project.attempts(name, "end")


def seen_mib(project: Project) -> list[int]:
    """What is used of each GPU, as the daemon saw it last."""
    places = json.loads(project.run("status", "--json").stdout)["places"]
    return [place["used_mib"] for place in places if place["used_mib"] is not None]


def looks(leases: Path) -> list[tuple[float, float]]:
    """Since when each daemon waits that does, and when it looked last."""
    marks = [json.loads(path.read_text()) for path in leases.glob("*.wait")]
    return [(mark["since"], mark["at"]) for mark in marks]


def most_at_once(project: Project) -> int:
    """How many programs were alive together at most, by the lines `begin` and `end` of the file `ledger`."""
    count = most = 0
    for line in (project.path / "ledger").read_text().split():
        count += 1 if line == "begin" else -1
        most = max(most, count)
    return most


def test_each_trial_has_a_gpu_of_its_own_and_a_strangers_is_left_alone(
    machine: Callable[..., FakeNvml], project: Project
) -> None:
    fake = machine(FakeGpu(0), FakeGpu(1), FakeGpu(2))
    project.write(f"template:\n  a: echo $CUDA_VISIBLE_DEVICES; {USES} 900@0.1 900@1.5\n---\nn: [0, 1, 2, 3]\n")
    with fake.program(uuid(1), "9000"):
        done = project.run()
        assert done.returncode == 0, done.stdout + done.stderr
        assert "on 3 GPUs" in done.stdout
    told = {name: project.log(name, "a").split()[0] for name in project.trials()}
    assert set(told.values()) == {uuid(0), uuid(2)}
    slots = {name: record["slot"] for name, record in starts(project).items()}
    assert {slots[name]: told[name] for name in told} == {"gpu 0": uuid(0), "gpu 2": uuid(2)}
    assert [ends(project, name)[0]["peak_vram_mib"] for name in ("N_0", "N_1")] == [900, 900]


def test_a_stage_may_have_two_gpus_and_none(machine: Callable[..., FakeNvml], project: Project) -> None:
    machine(FakeGpu(0), FakeGpu(1))
    project.write(
        "template:\n  a: {cmd: 'echo $CUDA_VISIBLE_DEVICES', gpus: 2}\n"
        "  b: {cmd: 'echo ${CUDA_VISIBLE_DEVICES-none}', gpus: 0}\n---\nn: [0, 1]\n"
    )
    assert project.run().returncode == 0
    for name in ("N_0", "N_1"):
        assert project.log(name, "a").strip() == f"{uuid(0)},{uuid(1)}"
        assert project.log(name, "b").strip() == "none"
        first, second = project.attempts(name, "start")
        assert (first["slot"], first["gpus"]) == ("gpu 0,1", {uuid(0): "1", uuid(1): "1"})
        assert second["slot"].startswith("cpu ")


def test_a_number_of_attempts_shares_a_gpu(machine: Callable[..., FakeNvml], project: Project) -> None:
    machine(FakeGpu(0))
    project.write(
        f"template:\n  a: echo begin >> ledger; {USES} 900@0.4; echo end >> ledger\n"
        "stage: {per_gpu: 3}\n---\nn: {_range: [0, 6]}\n"
    )
    assert project.run().returncode == 0
    assert most_at_once(project) == 3
    assert {record["slot"] for record in starts(project).values()} == {"gpu 0", "gpu 0 #2", "gpu 0 #3"}
    assert {record["gpus"][uuid(0)] for record in starts(project).values()} == {"1/3"}


def test_what_fits_together_is_learned_from_the_first(machine: Callable[..., FakeNvml], project: Project) -> None:
    machine(FakeGpu(0))
    project.write(
        f"template:\n  a: echo begin >> ledger; {USES} 1000 5000@0.5 5000@1.5; echo end >> ledger\n"
        "stage: {per_gpu: auto}\n---\nn: {_range: [0, 7]}\n"
    )
    done = project.run()
    assert done.returncode == 0, done.stdout
    lines = (project.path / "ledger").read_text().split()
    assert lines[:2] == ["begin", "end"]  # the first one runs alone
    assert most_at_once(project) == 4  # each needs 5,500 of 24,576 MiB with its margin
    assert ends(project, "N_0")[0]["peak_vram_mib"] == 5000
    # What was learned is there for the next run.
    (project.path / "ledger").unlink()
    assert project.run("-f").returncode == 0
    assert (project.path / "ledger").read_text().split()[:2] == ["begin", "begin"]


def test_what_is_learned_from_one_makes_room_beside_those_that_began_alone(
    machine: Callable[..., FakeNvml], project: Project, until: Callable[..., None]
) -> None:
    machine(FakeGpu(0), FakeGpu(1))
    project.write(
        f"template:\n  a: '{USES} 5000 for-ever & until test -e go.{{n}}; do sleep 0.02; done; kill $!'\n"
        "stage: {per_gpu: auto}\n---\nn: {_range: [0, 9]}\n"
    )
    assert project.run("--detach").returncode == 0
    until(lambda: seen_mib(project) == [5000, 5000], lambda: seen_mib(project))
    assert project.trials() == ["N_0", "N_1"]
    (project.path / "go.0").touch()
    until(lambda: len(project.trials()) == 9, project.trials)
    for number in range(1, 9):
        (project.path / f"go.{number}").touch()
    assert project.run("wait").returncode == 0
    beside = starts(project)["N_1"]["gpus"].keys()
    assert sum(record["gpus"].keys() == beside for record in starts(project).values()) == 4


def test_a_program_that_works_for_long_teaches_before_its_end(
    machine: Callable[..., FakeNvml], project: Project, tmp_path: Path, until: Callable[..., None]
) -> None:
    fake = machine(FakeGpu(0))
    (tmp_path / "sitecustomize.py").write_text("import runner.gpus.packing\nrunner.gpus.packing.STEADY_S = 1.0\n")
    project.environment["PYTHONPATH"] = os.pathsep.join([os.fspath(tmp_path), os.environ.get("PYTHONPATH", "")])
    project.write(
        f"template:\n  a: '{USES} 5000 for-ever & {WAITS}; kill $!'\n"
        "stage: {per_gpu: auto}\n---\nn: {_range: [0, 4]}\n"
    )
    assert project.run("--detach").returncode == 0
    until(lambda: seen_mib(project) == [5000], lambda: seen_mib(project))
    assert project.trials() == ["N_0"]
    fake.gpus[0].utilization = 80
    fake.show()
    until(lambda: seen_mib(project) == [20_000], lambda: seen_mib(project))
    assert ends(project, "N_0") == []
    (project.path / "go").touch()
    assert project.run("wait").returncode == 0
    assert {ends(project, name)[0]["peak_vram_mib"] for name in project.trials()} == {5000}


def test_out_of_memory_beside_others_is_not_the_trials_fault(
    machine: Callable[..., FakeNvml], project: Project
) -> None:
    machine(FakeGpu(0))
    # The small ones keep their memory until the large one, which comes when one of them has it, was refused.
    project.write(
        f"""\
case $1 in
  0) {USES} $2 $2@2.5 ;;
  2) until test -e held; do sleep 0.02; done
     {USES} 1000 $2 $2@2.5 || (touch refused; exit 1) ;;
  *) {USES} $2 for-ever > ready.$1 &
     until test -s ready.$1; do sleep 0.02; done; touch held
     until test -e refused; do sleep 0.02; done; kill $!; wait ;;
esac
""",
        "job.sh",
    )
    project.write(
        "template:\n  a: bash job.sh {n} {mib}\n"
        "stage: {per_gpu: auto}\n---\n_zip: {n: [0, 1, 2, 3], mib: [6000, 6000, 22000, 6000]}\n"
    )
    done = project.run()
    assert done.returncode == 0, done.stdout
    (large,) = [name for name in project.trials() if "22000" in name]
    first, second = ends(project, large)
    assert (first["state"], first["cause"], second["state"]) == ("interrupted", "oom", "finished")
    assert project.attempts(large, "start")[-1]["gpus"] == {uuid(0): "1"}
    assert second["peak_vram_mib"] == 22_000


def test_out_of_memory_alone_is_a_failure_unless_the_user_knows_what_to_do(
    machine: Callable[..., FakeNvml], project: Project
) -> None:
    machine(FakeGpu(0))
    project.write(
        f"template:\n  a: {USES} 500 {{batch}}000\n"
        f"  b: {{cmd: '{USES} {{batch}}000', on_oom: {{batch: '{{batch}}/2'}}}}\n"
        "default: {batch: 90}\n---\n_cmd: a\nn: 0\n---\n_cmd: b\nn: 1\n"
    )
    assert project.run().returncode == 1
    (end,) = ends(project, "N_0")
    assert (end["state"], end["cause"]) == ("failed", "oom")
    attempts = project.attempts("N_1", "start")
    assert [record.get("override") for record in attempts] == [None, {"batch": 45}, {"batch": 22}]
    assert [record["state"] for record in ends(project, "N_1")] == ["interrupted", "interrupted", "finished"]
    assert "batch: 90" in (project.output / "N_1" / "param").read_text()


def test_what_less_needs_says_nothing_of_the_whole(machine: Callable[..., FakeNvml], project: Project) -> None:
    machine(FakeGpu(0))
    project.write(
        f"template:\n  a: {{cmd: '{USES} {{batch}}000 {{batch}}000@0.3', on_oom: {{batch: '{{batch}}/9'}}}}\n"
        "default: {batch: 90}\nstage: {per_gpu: auto}\n---\nn: [0, 1, 2]\n"
    )
    assert project.run().returncode == 0
    for name in project.trials():  # alone from the first: two of ten of these GB would fit together
        assert [record.get("override") for record in project.attempts(name, "start")] == [None, {"batch": 10}]


def test_a_lost_gpu_sends_its_attempt_elsewhere(
    machine: Callable[..., FakeNvml], project: Project, until: Callable[..., None]
) -> None:
    fake = machine(FakeGpu(0), FakeGpu(1))
    project.write(f"template:\n  a: {USES} 700; {WAITS}\n---\nn: 0\n")
    run = project.start()
    until(lambda: (project.output / "N_0" / "attempts").exists() and "700" not in project.log("N_0", "a"), dict)
    until(lambda: "ready" in project.log("N_0", "a"), lambda: project.log("N_0", "a"))
    fake.fail("*", uuid(0), pynvml.NVML_ERROR_GPU_IS_LOST)
    until(lambda: len(project.attempts("N_0", "start")) == 2, lambda: project.attempts("N_0", "end"))
    (project.path / "go").touch()
    assert run.wait(30) == 0
    first, second = project.attempts("N_0", "start")
    assert (first["gpus"], second["gpus"]) == ({uuid(0): "1"}, {uuid(1): "1"})
    assert [record["state"] for record in ends(project, "N_0")] == ["interrupted", "finished"]


def test_a_driver_that_hangs_holds_up_nothing_but_what_wants_a_gpu(
    machine: Callable[..., FakeNvml], project: Project, until: Callable[..., None]
) -> None:
    fake = machine(FakeGpu(0), FakeGpu(1))
    project.write(f"template:\n  a: {USES} 700; {WAITS}\n---\nn: [0, 1]\n")
    with fake.program("1", "2000"):
        run = project.start()
        until(lambda: any(project.output.glob("N_0/log.a.*")), project.trials)
        until(lambda: "ready" in project.log("N_0", "a"), lambda: project.log("N_0", "a"))
        fake.fail("nvmlDeviceGetUtilizationRates", "*", HANGS)
        until(lambda: "has not answered" in project.run("status").stdout, lambda: project.run("status").stdout)
        (project.path / "go").touch()
        until(lambda: bool(ends(project, "N_0")), lambda: project.run("status").stdout)
        assert project.trials() == ["N_0"]
        fake.heal()
        assert run.wait(30) == 0
    assert [ends(project, name)[0]["state"] for name in project.trials()] == ["finished", "finished"]


def test_two_daemons_never_have_the_same_gpu_and_a_killed_one_loses_none(
    machine: Callable[..., FakeNvml], project: Project, until: Callable[..., None]
) -> None:
    machine(FakeGpu(0))
    project.write(
        f"template:\n  a: echo begin >> ledger; {USES} 700@0.2; {WAITS}; echo end >> ledger\n---\nn: [0, 1]\n"
    )
    assert project.run("--detach", "-o", "output").returncode == 0
    until(lambda: (project.path / "ledger").exists(), dict)
    assert project.run("--detach", "-o", "other").returncode == 0
    until(lambda: "leased by" in project.run("status", "-o", "other").stdout, lambda: project.run("status").stdout)
    (daemon,) = [found for found in project.daemons() if found.cmdline()[-1].endswith("output")]
    daemon.kill()
    psutil.wait_procs([daemon])
    # The attempt lives on, and with it its lease.
    (other,) = project.daemons()
    before = other.cpu_times()
    until(lambda: sum(other.cpu_times()[:2]) > sum(before[:2]) + 0.01, dict)
    assert (project.path / "ledger").read_text().split() == ["begin"]
    assert project.run("--detach", "-o", "output").returncode == 0
    (project.path / "go").touch()
    for output in ("output", "other"):
        assert project.run("wait", "-o", output).returncode == 0
    assert most_at_once(project) == 1
    assert len((project.path / "ledger").read_text().split()) == 8


def test_who_comes_later_need_not_wait_until_the_first_is_through(
    machine: Callable[..., FakeNvml], project: Project, until: Callable[..., None]
) -> None:
    machine(FakeGpu(0), FakeGpu(1))
    for name in ("ann", "bob"):
        waits = f"while ! test -e {name}.{{n}}; do sleep 0.02; done"
        project.write(f"template:\n  a: {waits}\n---\nn: {{_range: [0, 5]}}\n", f"{name}.yaml")

    def begun(name: str) -> int:
        return len(list((project.path / name).glob("N_*")))

    def state() -> dict[str, int]:
        return {name: begun(name) for name in ("ann", "bob")}

    def go(name: str, *numbers: int) -> None:
        for number in numbers:
            (project.path / f"{name}.{number}").touch()

    assert project.run("--detach", "-y", "ann.yaml", "-o", "ann").returncode == 0
    until(lambda: begun("ann") == 2, state)
    assert project.run("--detach", "-y", "bob.yaml", "-o", "bob").returncode == 0
    marks = Path(project.environment["RUNNER_LEASES"])
    until(lambda: len(looks(marks)) == 2, state)
    # Both have seen the other's mark, and Bob has watched the GPUs for as long as he has to at first.
    until(lambda: all(now_s - since_s > 2.5 for since_s, now_s in looks(marks)), lambda: looks(marks))
    go("ann", 0)
    until(lambda: begun("bob") == 1, state)
    assert begun("ann") == 2
    go("ann", 1)  # now each has one, and keeps it
    until(lambda: begun("ann") == 3, state)
    go("bob", 0)
    until(lambda: begun("bob") == 2, state)
    assert state() == {"ann": 3, "bob": 2}
    for name in ("ann", "bob"):
        go(name, *range(5))
        assert project.run("wait", "-o", name).returncode == 0


def test_a_daemon_that_can_start_nothing_holds_up_nobody(
    machine: Callable[..., FakeNvml], project: Project, tmp_path: Path, until: Callable[..., None]
) -> None:
    machine(FakeGpu(0))
    (tmp_path / "sitecustomize.py").write_text(
        "import errno\nimport runner.service.launching\n\n\ndef launch(*_):\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device')\n\n\n"
        "runner.service.launching.Launcher.launch = launch\n"
    )
    project.environment["PYTHONPATH"] = os.pathsep.join([os.fspath(tmp_path), os.environ.get("PYTHONPATH", "")])
    leases = Path(project.environment["RUNNER_LEASES"])
    leases.mkdir()
    leases.chmod(0o1777)
    project.write("template:\n  a: 'true'\n---\nn: [0, 1]\n")
    assert project.run("--detach").returncode == 0
    log = project.output / ".runner" / "daemon.log"
    until(lambda: "Nothing starts until this is over" in log.read_text(), log.read_text)
    until(lambda: looks(leases) == [], lambda: looks(leases))


def test_a_daemon_that_is_told_to_stop_waits_no_more(
    machine: Callable[..., FakeNvml], project: Project, until: Callable[..., None]
) -> None:
    machine(FakeGpu(0))
    leases = Path(project.environment["RUNNER_LEASES"])
    lease = LeaseStore(leases).take({uuid(0): WHOLE})
    assert lease is not None
    project.write("template:\n  a: 'true'\n---\nn: 0\n")
    assert project.run("--detach").returncode == 0
    until(lambda: len(looks(leases)) == 1, lambda: looks(leases))
    assert project.run("stop").returncode == 0
    until(lambda: project.daemons() == [], project.daemons)
    assert looks(leases) == []
    lease.release()
    assert list(leases.iterdir()) == []


def test_a_new_daemon_goes_on_watching_what_it_finds_running(
    machine: Callable[..., FakeNvml], project: Project, until: Callable[..., None]
) -> None:
    fake = machine(FakeGpu(0), FakeGpu(1))
    text = f"template:\n  a: {USES} 700 for-ever & {WAITS}\nstage: {{per_gpu: 4}}\n---\nn: {{_range: [0, %d]}}\n"
    project.write(text % 1)
    assert project.run("--detach").returncode == 0
    until(lambda: bool(project.attempts("N_0", "process")) and "ready" in project.log("N_0", "a"), dict)
    (daemon,) = project.daemons()
    daemon.kill()
    psutil.wait_procs([daemon])
    project.write(text % 8)
    assert project.run("--detach").returncode == 0
    # Its lease counts once: all the other shares are given out.
    until(lambda: len(project.trials()) == 8, project.trials)
    fake.fail("*", uuid(0), pynvml.NVML_ERROR_GPU_IS_LOST)
    until(lambda: bool(ends(project, "N_0")), dict)
    (end,) = ends(project, "N_0")
    assert (end["state"], end["peak_vram_mib"]) == ("interrupted", 700)
    (project.path / "go").touch()
    assert project.run("wait").returncode == 0


def test_listed_gpus_without_a_driver_are_taken_unchecked(project: Project, tmp_path: Path) -> None:
    project.environment["LD_LIBRARY_PATH"] = os.fspath(tmp_path)
    project.write("template:\n  a: echo $CUDA_VISIBLE_DEVICES\nresource: [3, 5]\n---\nn: [0, 1]\n")
    done = project.run()
    assert done.returncode == 0
    assert "on 2 GPU slots, unchecked (no NVIDIA driver: libnvidia-ml.so.1 was not found)" in done.stdout
    assert {project.log(name, "a").strip() for name in ("N_0", "N_1")} <= {"3", "5"}


def test_a_gpu_that_is_not_there_is_one_clear_error(machine: Callable[..., FakeNvml], project: Project) -> None:
    machine(FakeGpu(0))
    project.write("template:\n  a: 'true'\nresource: [7]\n---\nn: 0\n")
    done = project.run()
    assert (done.returncode, done.stderr) == (
        2,
        "run: error: params.yaml, line 3, resource: no GPU 7 here; there are: 0.\n",
    )
    assert project.run("-r", "7").stderr == "run: error: -r 7: no GPU 7 here; there are: 0.\n"
    assert not project.output.exists()


def test_a_directory_of_leases_that_cannot_be_used_is_said_and_waited_for(
    machine: Callable[..., FakeNvml], project: Project, tmp_path: Path, until: Callable[..., None]
) -> None:
    machine(FakeGpu(0))
    leases = tmp_path / "leases"
    leases.mkdir(mode=0o755)
    project.write("template:\n  a: 'true'\n---\nn: 0\n")
    run = project.start()
    log = project.output / ".runner" / "daemon.log"
    until(lambda: log.exists() and "Nothing starts on a GPU until this is over" in log.read_text(), dict)
    assert not (project.output / "N_0").exists()
    assert "leases: its mode is 755 and must be 1777, as that of /tmp" in project.run("status").stdout
    leases.chmod(0o1777)
    assert run.wait(30) == 0
    assert project.stat("N_0") == {"a": "finished"}


def test_a_hundred_starts_of_ten_daemons_have_a_hundred_shares(
    machine: Callable[..., FakeNvml], project: Project, until: Callable[..., None]
) -> None:
    machine(*map(FakeGpu, range(25)))
    project.write(f"template:\n  a: {WAITS}\nstage: {{per_gpu: 4}}\n---\nn: {{_range: [0, 10]}}\n")
    outputs = [f"output{number}" for number in range(10)]
    for typed in [project.start("--detach", "-o", output) for output in outputs]:
        assert typed.wait(60) == 0

    def taken() -> list[tuple[str, str]]:
        paths = [path for output in outputs for path in (project.path / output).glob("*/attempts")]
        lines = [path.read_text().splitlines()[0] for path in paths if path.read_text()]
        return [share for line in lines for share in json.loads(line)["gpus"].items()]

    until(lambda: len(taken()) == 100, lambda: len(taken()), 60)
    assert Counter(taken()) == {(uuid(number), "1/4"): 4 for number in range(25)}
    (project.path / "go").touch()
    for output in outputs:
        assert project.run("wait", "-o", output).returncode == 0


@pytest.mark.parametrize("has_driver", [True, False])
def test_gpus_that_are_given_together_are_shown_each_by_itself(
    machine: Callable[..., FakeNvml], project: Project, until: Callable[..., None], tmp_path: Path, has_driver: bool
) -> None:
    machine(*map(FakeGpu, range(4)))
    if not has_driver:
        project.environment["LD_LIBRARY_PATH"] = os.fspath(tmp_path)
    project.write(f"template:\n  a: {WAITS}\nresource: ['0,1', '2,3']\n---\nn: 0\n")
    assert project.run("--detach").returncode == 0
    until(lambda: bool(project.trials()), dict)
    places = [line for line in project.run("status").stdout.splitlines() if line.startswith("gpu ") and "%" in line]
    assert [line[:6].strip() for line in places] == ["gpu 0", "gpu 1", "gpu 2", "gpu 3"]
    assert ["nothing waits for it" in line for line in places] == [False, False, True, True]
    (project.path / "go").touch()
    assert project.run("wait").returncode == 0
