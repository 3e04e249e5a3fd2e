"""SIGKILL at random moments: nothing finished runs again, nothing stale is skipped, nothing runs twice at a time."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Project
    from tests.crash.conftest import Site

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("RUNNER_KILLS", "60")) // 4
TRIALS, STAGES = 8, ("a", "b")
PARAMS = f"""\
template:
  a: bash job.sh {{n}} $DURATION_S
  b: bash job.sh {{n}} $DURATION_S
resource: {{cpu: 3}}
---
n: {list(range(TRIALS))}
"""
WAITS = "touch {_output}/started; while ! test -e go; do sleep 0.05; done"


def starts(project: Project, trial: str, stage: str) -> int:
    return sum(record["stage"] == stage for record in project.attempts(trial, "start"))


@pytest.mark.parametrize("victim", ["daemon", "client", "everything"])
def test_kill_9_at_random_moments(site: Site, job_script: str, victim: str, until: Callable[..., None]) -> None:
    choice = random.Random(seed := random.randrange(10**6))
    site.project.write(PARAMS)
    site.project.write(job_script, "job.sh")
    kills = typed = repeated = 0
    # What is killed itself must work for longer than it takes to find it.
    site.environment["DURATION_S"] = "0.5" if victim == "everything" else "0.1"
    kill = {"daemon": site.kill_daemon, "client": site.kill_clients, "everything": site.kill_everything}[victim]

    def finish() -> None:
        nonlocal typed, repeated
        typed += site.finish()
        site.wait_until_left()
        site.check_complete(TRIALS, STAGES)
        begins = site.begins()
        repeated += begins.total() - len(begins)
        if victim != "everything":
            # Attempts outlive both: no work is lost.
            assert set(begins.values()) == {1}, f"seed {seed}: {begins}"

    while kills < KILLS:
        site.begin_anew()
        run = site.type()
        for _ in range(6):
            if choice.random() < 0.7:  # not only while it starts
                lines = site.ledger().total()
                until(lambda lines=lines, run=run: run.is_over or site.ledger().total() > lines, site.daemon_log)
            time.sleep(choice.uniform(0.0, 0.3))  # the moment is what is tested
            if run.is_over and run.wait() == 0:
                break
            kills += bool(kill())
            if victim != "daemon" or run.is_over:
                run = site.type()
                typed += 1
        finish()
    print(f"{victim}: {kills} kills, `run` typed {typed} times; every job complete exactly once, {repeated} begun anew")


def begun(site: Site, names: list[str], until: Callable[..., None]) -> dict[str, int]:
    """Waits until attempts of these trials are under way; returns their pids."""
    until(lambda: all((site.output / name / "started").exists() for name in names), lambda: names)
    until(lambda: all(site.project.attempts(name, "process") for name in names), lambda: names)
    return {name: site.project.attempts(name, "process")[0]["pid"] for name in names}


def test_attempts_outlive_the_daemon_and_are_adopted(site: Site, until: Callable[..., None]) -> None:
    site.project.write(
        f"template:\n  a: 'echo before; {WAITS}; echo after; exit {{n}}'\nresource: {{cpu: 3}}\n---\nn: [0, 1, 5]\n"
    )
    names = ["N_0", "N_1", "N_5"]
    first = site.type()
    pids = begun(site, names, until)
    first.kill()
    killed = site.kill_daemon()
    second = site.type()
    until(lambda: second.text.count("ADOPT") == 3, lambda: second.text)
    assert [daemon.pid for daemon in site.daemons()] != killed
    assert all(psutil.Process(pid).is_running() for pid in pids.values())
    log = site.type("logs", "N_5", "-f")
    until(lambda: log.text == "before\n", lambda: log.text)
    (site.path / "go").touch()
    assert second.wait() == 1, second.text
    assert log.wait() == 0
    assert log.text == "before\nafter\n"
    assert "START" not in second.text
    assert site.project.stat("N_0") == {"a": "finished"}
    assert site.project.stat("N_5") == {"a": "failed"}
    assert [site.project.attempts(name, "end")[0]["exit_code"] for name in names] == [0, 1, 5]
    assert [starts(site.project, name, "a") for name in names] == [1, 1, 1]
    assert {name: site.project.attempts(name, "process")[0]["pid"] for name in names} == pids


def test_who_watches_goes_on_with_the_next_daemon(site: Site, until: Callable[..., None]) -> None:
    site.project.write(f"template:\n  a: '{WAITS}'\n  b: 'true'\nresource: {{cpu: 1}}\n---\nn: 0\n")
    run = site.type()
    begun(site, ["N_0"], until)
    site.replace_daemon()
    (site.path / "go").touch()
    assert run.wait() == 0, run.text
    assert starts(site.project, "N_0", "a") == 1
    assert site.project.stat("N_0") == {"a": "finished", "b": "finished"}


@pytest.mark.parametrize(("code", "state"), [(0, "finished"), (3, "failed")])
def test_an_exit_that_nobody_watched_is_taken_from_the_record(
    site: Site, until: Callable[..., None], code: int, state: str
) -> None:
    site.project.write(f"template:\n  a: '{WAITS}; exit {code}'\nresource: {{cpu: 1}}\n---\nn: 0\n")
    run = site.type()
    begun(site, ["N_0"], until)
    run.kill()
    site.kill_daemon()
    (site.path / "go").touch()
    until(lambda: not site.project.living(), site.project.living)
    # A word to the output directory is enough: what was asked for is taken up again.
    assert site.type("wait").wait() == (0 if code == 0 else 1)
    assert starts(site.project, "N_0", "a") == 1
    assert site.project.attempts("N_0", "end")[0]["exit_code"] == code
    assert site.project.stat("N_0") == {"a": state}


def test_a_process_whose_start_was_not_recorded_is_found(site: Site, until: Callable[..., None]) -> None:
    site.project.write(f"template:\n  a: '{WAITS}'\nresource: {{cpu: 1}}\n---\nn: 0\n")
    run = site.type()
    begun(site, ["N_0"], until)
    run.kill()
    site.kill_daemon()
    path = site.output / "N_0" / "attempts"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if '"process"' not in line))
    second = site.type()
    until(lambda: "ADOPT" in second.text, lambda: second.text)
    (site.path / "go").touch()
    assert second.wait() == 0, second.text
    assert starts(site.project, "N_0", "a") == 1


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


@pytest.mark.parametrize("boot", ["another-boot", None])
def test_another_process_of_the_same_number_is_not_taken_for_the_attempt(
    site: Site, until: Callable[..., None], boot: str | None
) -> None:
    site.project.write("template:\n  a: 'test $RUNNER_ATTEMPT = 2 || sleep 100'\nresource: {cpu: 1}\n---\nn: 0\n")
    site.type()
    until(lambda: bool(site.project.output.exists() and site.project.attempts("N_0", "process")), site.daemon_log)
    site.kill_everything()
    # The pid is this process's now; after another boot even its start time might be the same.
    path = site.output / "N_0" / "attempts"
    (start,), (process,) = site.project.attempts("N_0", "start"), site.project.attempts("N_0", "process")
    text = path.read_text().replace(f'"pid": {process["pid"]}', f'"pid": {os.getpid()}')
    if boot is not None:
        fields = (Path("/proc/self/stat").read_text()).rpartition(")")[2].split()
        text = text.replace(start["boot"], boot).replace(f'"ticks": {process["ticks"]}', f'"ticks": {fields[19]}')
    path.write_text(text)
    assert site.type().wait() == 0
    assert starts(site.project, "N_0", "a") == 2
    assert psutil.pid_exists(os.getpid())


def test_plans_that_are_done_do_not_pile_up(site: Site) -> None:
    site.project.write("template:\n  a: 'true'\nresource: {cpu: 1}\n---\nn: 0\n")
    for _ in range(3):
        assert site.type().wait() == 0
    site.wait_until_left()
    assert sorted(path.suffix for path in (site.output / ".runner" / "plans").iterdir()) == [".env", ".jsonl"]
