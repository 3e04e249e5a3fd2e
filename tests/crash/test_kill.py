"""SIGKILL at random moments: nothing finished runs again, nothing stale is skipped, nothing runs twice at a time."""

from __future__ import annotations

import json
import os
import random
import time
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.conftest import Project

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

TRIALS, STAGES, KILLS = 60, ("a", "b"), 40

# Each attempt writes its begin and end into a ledger, and says so when it finds another attempt of its job alive.
JOB = """\
busy=$RUNNER_OUTPUT/busy.$RUNNER_STAGE
test -e $busy && kill -0 $(cat $busy) 2>/dev/null && echo twice >> ledger
echo $$ > $busy
echo begin $1 $RUNNER_STAGE >> ledger
sleep 0.1
echo end $1 $RUNNER_STAGE >> ledger
rm $busy
"""
PARAMS = f"""\
template:
  a: bash job.sh {{n}}
  b: bash job.sh {{n}}
resource: {{cpu: 3}}
---
n: {list(range(TRIALS))}
"""


def completed(project: Project) -> set[tuple[str, str]]:
    """The jobs whose exit code 0 is on record."""
    return {
        (trial, record["stage"])
        for trial in (project.trials() if project.output.exists() else [])
        for record in project.attempts(trial, "exit")
        if record["exit_code"] == 0
    }


def starts(project: Project, trial: str, stage: str) -> int:
    return sum(record["stage"] == stage for record in project.attempts(trial, "start"))


def kill_everything(project: Project, process: subprocess.Popen[str]) -> None:
    """The daemon first, then its attempts, as a dying machine might."""
    process.kill()
    process.wait()
    while living := project.living():
        for attempt in living:
            try:
                attempt.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(living, timeout=5)


def test_kill_9_of_everything_at_random_moments(project: Project) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    moments = random.Random(seed)
    project.write(PARAMS)
    project.write(JOB, "job.sh")
    kills = 0
    for _ in range(KILLS):
        process = project.start()
        time.sleep(moments.uniform(0.2, 0.6))  # the moment is what is tested
        if process.poll() is not None:
            assert process.returncode == 0
            break
        before = completed(project)
        counts = {job: starts(project, *job) for job in before}
        kill_everything(project, process)
        kills += 1
        # What was on record before the kill is not started by any later run.
        assert all(starts(project, *job) == count for job, count in counts.items())
    before = completed(project)
    counts = {job: starts(project, *job) for job in before}
    result = project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert completed(project) == {(f"N_{n}", stage) for n in range(TRIALS) for stage in STAGES}
    assert all(starts(project, *job) == count for job, count in counts.items())
    ledger = (project.path / "ledger").read_text().splitlines()
    assert "twice" not in ledger
    for n in range(TRIALS):
        assert project.stat(f"N_{n}") == dict.fromkeys(STAGES, "finished")
        for stage in STAGES:
            records = [record for record in project.attempts(f"N_{n}", "exit") if record["stage"] == stage]
            assert [record["exit_code"] for record in records].count(0) == 1
    print(f"{kills} kills, {ledger.count('begin 0 a')} begins of the first job; every job complete exactly once")
    assert kills > 5


def test_attempts_outlive_the_daemon_and_are_adopted(project: Project, until: Callable[..., None]) -> None:
    project.write(
        "template:\n  a: 'touch {_output}/started; while ! test -e go; do sleep 0.05; done; exit {n}'\n"
        "resource: {cpu: 3}\n---\nn: [0, 1, 5]\n"
    )
    process = project.start()
    names = ["N_0", "N_1", "N_5"]
    until(lambda: all((project.output / name / "started").exists() for name in names), project.trials)
    process.kill()
    process.wait()
    pids = {name: project.attempts(name, "process")[0]["pid"] for name in names}
    second = project.start()
    assert second.stdout is not None
    line = second.stdout.readline()
    seen = [line]
    while not line.startswith("ADOPT") or sum(item.startswith("ADOPT") for item in seen) < 3:
        line = second.stdout.readline()
        seen.append(line)
        assert line, seen
    assert all(psutil.pid_exists(pid) for pid in pids.values())
    (project.path / "go").touch()
    output, _ = second.communicate(timeout=30)
    assert second.returncode == 1
    assert "START" not in output
    assert project.stat("N_0") == {"a": "finished"}
    assert [project.attempts(name, "end")[0]["exit_code"] for name in names] == [0, 1, 5]
    assert [starts(project, name, "a") for name in names] == [1, 1, 1]


def test_an_exit_that_nobody_watched_is_taken_from_the_record(project: Project, until: Callable[..., None]) -> None:
    project.write(
        "template:\n  a: 'touch {_output}/started; while ! test -e go; do sleep 0.05; done'\n"
        "  b: 'true'\nresource: {cpu: 1}\n---\nn: 0\n"
    )
    process = project.start()
    until(lambda: (project.output / "N_0" / "started").exists(), project.trials)
    process.kill()
    process.wait()
    (project.path / "go").touch()
    until(lambda: not project.living(), project.living)
    result = project.run()
    assert result.returncode == 0
    assert starts(project, "N_0", "a") == 1
    assert project.stat("N_0") == {"a": "finished", "b": "finished"}


def test_a_process_whose_start_was_not_recorded_is_found(project: Project, until: Callable[..., None]) -> None:
    project.write(
        "template:\n  a: 'touch {_output}/started; while ! test -e go; do sleep 0.05; done'\n"
        "resource: {cpu: 1}\n---\nn: 0\n"
    )
    process = project.start()
    until(lambda: (project.output / "N_0" / "started").exists(), project.trials)
    process.kill()
    process.wait()
    path = project.output / "N_0" / "attempts"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if '"process"' not in line))
    second = project.start()
    assert second.stdout is not None
    until(lambda: "ADOPT" in second.stdout.readline(), project.living)
    (project.path / "go").touch()
    assert second.wait(30) == 0
    assert starts(project, "N_0", "a") == 1


def test_another_hosts_attempt_is_not_taken_for_dead(project: Project) -> None:
    project.write("template:\n  a: 'true'\nresource: {cpu: 1}\n---\nn: 0\n")
    project.run()
    path = project.output / "N_0" / "attempts"
    first = path.read_text().splitlines()[0]
    start = json.loads(first) | {"host": "elsewhere", "boot": "of another machine"}
    path.write_text(json.dumps(start) + "\n")
    (project.output / "N_0" / "stat").write_text("a: running\n")
    refused = project.run()
    assert refused.returncode == 2
    assert "was started on host elsewhere" in refused.stderr
    assert path.read_text().count("\n") == 1
    assert project.run("--take-over").returncode == 0
    assert starts(project, "N_0", "a") == 2


def test_after_another_boot_nothing_is_alive(project: Project, until: Callable[..., None]) -> None:
    project.write("template:\n  a: 'test $RUNNER_ATTEMPT = 2 || sleep 100'\nresource: {cpu: 1}\n---\nn: 0\n")
    process = project.start()
    until(lambda: bool(project.living()), project.trials)
    until(lambda: bool(project.attempts("N_0", "process")), project.trials)
    kill_everything(project, process)
    # The pid is another process's now, and the record is of an earlier boot.
    path = project.output / "N_0" / "attempts"
    boot = project.attempts("N_0", "start")[0]["boot"]
    pid = project.attempts("N_0", "process")[0]["pid"]
    path.write_text(path.read_text().replace(boot, "another-boot").replace(f'"pid": {pid}', f'"pid": {os.getpid()}'))
    assert project.run().returncode == 0
    assert starts(project, "N_0", "a") == 2
