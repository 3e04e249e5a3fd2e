"""The daemon at a user's word: detach, status, logs, pause, cancel, retry, stop; editing the file while it works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from runner import client, process
from tests.conftest import RUN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Project

# Each trial says that it began, and goes on once a file of its name is there.
GATED = """\
template:
  a: 'echo begun {n}; touch {_output}/begun; while ! test -e go.{n}; do sleep 0.02; done; echo over; exit {code}'
  b: echo second {n}
default: {code: 0}
resource: {cpu: 2}
---
_title: main
n: [0, 1, 2, 3]
"""


def begun(project: Project, *numbers: int) -> bool:
    return all((project.output / f"N_{n}" / "begun").exists() for n in numbers)


def go(project: Project, *numbers: int) -> None:
    for n in numbers:
        (project.path / f"go.{n}").touch()


def status(project: Project) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(project.run("status", "--json").stdout)
    return result


def states(project: Project) -> dict[str, dict[str, str]]:
    return {trial["name"]: trial["states"] for trial in status(project)["trials"]}


@pytest.fixture
def gated(project: Project, until: Callable[..., None]) -> Project:
    """Four trials of which the first two run and wait."""
    project.write(GATED)
    said = project.run("--detach")
    assert said.returncode == 0, said.stderr
    assert "The daemon goes on." in said.stdout
    until(lambda: begun(project, 0, 1), project.trials)
    return project


def test_status_shows_what_runs_and_what_waits_with_and_without_a_daemon(gated: Project) -> None:
    shown = status(gated)
    assert shown["daemon"]["pid"] == gated.daemons()[0].pid
    assert shown["sweeps"] == [
        {"sweep": "main", "stages": {"a": {"pending": 2, "running": 2}, "b": {"pending": 4}}},
    ]
    assert [trial["number"] for trial in shown["trials"]] == [1, 2, 3, 4]
    text = gated.run("status").stdout
    assert "main   a            2        2" in text
    assert f"{gated.output}: pid {shown['daemon']['pid']}, 2 running on 2 slots, 6 waiting" in gated.run(
        "status", "--all"
    ).stdout.replace("\n", " ")
    go(gated, 0, 1, 2, 3)
    assert gated.run("wait").returncode == 0
    after = status(gated)
    assert after["daemon"] is None
    assert after["sweeps"][0]["stages"] == {"a": {"finished": 4}, "b": {"finished": 4}}


def test_logs_of_a_trial_by_number_name_and_stage(gated: Project) -> None:
    assert gated.run("logs", "1").stdout == "begun 0\n"
    assert gated.run("logs", "N_1").stdout == "begun 1\n"
    refused = gated.run("logs", "N_3")
    assert (refused.returncode, refused.stderr) == (2, "run: error: N_3: nothing of it has been started yet.\n")
    assert gated.run("logs", "N_").returncode == 2
    unknown = gated.run("logs", "N_0", "c")
    assert unknown.returncode == 2
    assert "c: no stage of N_0." in unknown.stderr
    follower = gated.start("logs", "N_0", "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "begun 0\n"
    go(gated, 0)
    assert follower.communicate(timeout=30)[0] == "over\n\n--- b, attempt 1 ---\nsecond 0\n"
    assert gated.run("logs", "N_0", "a").stdout == "begun 0\nover\n"


def test_logs_says_that_a_log_is_no_longer_there(project: Project) -> None:
    project.write("template: {a: 'true'}\nresource: {cpu: 1}\n---\nn: 0\n")
    assert "on 1 CPU slot\n" in project.run().stdout
    (log,) = (project.output / "N_0").glob("log.a.*")
    log.unlink()
    for words in (["1"], ["N_0", "a"], ["N_0", "-f"]):
        said = project.run("logs", *words)
        assert (said.returncode, said.stdout) == (1, "")
        assert f"output/N_0/{log.name}: no such log: it was deleted, " in said.stderr
    assert "`run status N_0` says how it stands." in said.stderr


def test_who_stops_watching_leaves_the_work_alone(gated: Project) -> None:
    interrupt, terminate = signal.SIGINT, signal.SIGTERM  # `timeout 1h run wait` sends the second
    for words, number, code in (
        (["watch"], interrupt, 130),
        (["watch"], terminate, 130),
        (["logs", "-f", "N_0"], interrupt, 0),
    ):
        process = gated.start(*words)
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(20) == code
        assert gated.daemons()
    assert len(gated.living()) >= 2


def test_a_watch_sees_the_work_through(gated: Project) -> None:
    watch = gated.start("watch")
    assert watch.stdout is not None
    assert watch.stdout.readline().startswith("ADOPT     cpu 0, a: 1/4")
    go(gated, 0, 1, 2, 3)
    rest, _ = watch.communicate(timeout=30)
    assert watch.returncode == 0
    assert rest.count("DONE") == 8


def test_a_pause_lets_nothing_start_until_it_is_taken_back(gated: Project, until: Callable[..., None]) -> None:
    assert gated.run("pause").returncode == 0
    go(gated, 0, 1, 2, 3)
    until(lambda: states(gated)["N_1"]["a"] == "finished", lambda: states(gated))
    assert states(gated)["N_2"] == {"a": "pending", "b": "pending"}
    assert "Paused: nothing starts" in gated.run("status").stdout
    assert gated.run("resume").returncode == 0
    assert gated.run("wait").returncode == 0


def test_cancel_takes_out_what_waits_and_ends_what_runs(gated: Project) -> None:
    assert gated.run("cancel", "N_0", "N_3").stdout == "Canceled 4 jobs of 2 trials.\n"
    assert gated.run("cancel").returncode == 2
    go(gated, 1, 2)
    assert gated.run("wait").returncode == 1
    assert states(gated)["N_0"]["a"] == "canceled"
    assert gated.stat("N_2") == {"a": "finished", "b": "finished"}
    assert not (gated.output / "N_3").exists()


def test_retry_runs_what_failed_again(project: Project, until: Callable[..., None]) -> None:
    project.write(
        "template: {a: 'test {n} = 0 || test -e mended', b: 'while ! test -e go; do sleep 0.02; done'}\n"
        "resource: {cpu: 1}\n---\nn: [1, 0]\n"
    )
    assert project.run("--detach").returncode == 0
    until(lambda: project.output.exists() and "N_0" in project.trials(), lambda: "not begun")
    assert "Failed: a, N_1 (exit code 1)" in project.run("status").stdout
    (project.path / "mended").touch()
    assert project.run("retry").stdout == "Due again: 2 jobs of 1 trial.\n"
    (project.path / "go").touch()
    assert project.run("wait").returncode == 0
    assert [record["attempt"] for record in project.attempts("N_1", "start")] == [1, 2, 1]


def test_what_has_failed_may_be_tried_again_when_all_is_over(project: Project) -> None:
    project.write("template: {a: 'test -e ok.{n}', b: 'true'}\nresource: {cpu: 1}\n---\nn: [0, 1, 2]\n")
    assert project.run().returncode == 1
    (project.path / "ok.0").touch()
    (project.path / "ok.1").touch()
    for _ in range(2):
        assert "Due again: 2 jobs of 1 trial." in project.run("retry", "N_2").stdout
        project.run("wait")
    assert "Due again: 2 jobs of 1 trial." in project.run("retry", "N_1").stdout
    project.run("wait")
    assert project.stat("N_1") == {"a": "finished", "b": "finished"}
    assert [len(project.attempts(name, "start")) for name in ("N_0", "N_1", "N_2")] == [1, 3, 3]
    assert "Due again: 4 jobs of 2 trials." in project.run("retry").stdout
    project.run("wait")
    assert project.stat("N_0") == {"a": "finished", "b": "finished"}
    assert "no such trial" in project.run("retry", "N_7").stderr


def test_resume_does_not_take_a_stop_back_and_says_so(gated: Project) -> None:
    assert gated.run("stop").returncode == 0
    said = gated.run("resume")
    assert said.returncode == 1
    assert "was told to stop and leaves when 2 running attempts have ended (`run stop --now` ends them)" in said.stderr
    assert "type `run` then, which goes on" in gated.run().stderr
    go(gated, 0, 1)
    gated.run("wait")


def test_a_drain_lets_what_runs_end_and_a_stop_ends_it(gated: Project, until: Callable[..., None]) -> None:
    assert "the daemon leaves when 2 running attempts have ended" in gated.run("stop").stdout
    go(gated, 0, 1)
    until(lambda: not gated.daemons(), gated.daemons)
    assert states(gated)["N_0"] == {"a": "finished", "b": "pending"}
    assert gated.run("resume").returncode == 1
    assert gated.run("--detach").returncode == 0
    until(lambda: begun(gated, 2, 3), gated.trials)
    assert gated.run("stop", "--now").returncode == 0
    until(lambda: not gated.daemons(), gated.daemons)
    assert gated.stat("N_3") == {"a": "interrupted"}
    assert not gated.living()


def test_an_edited_file_is_applied_to_the_queue(gated: Project) -> None:
    gated.write(GATED.replace("[0, 1, 2, 3]", "[0, 2, 4]").replace("echo second", "echo other"))
    said = gated.run("--detach").stdout
    assert "Applied to the queue: 1 new, 1 running, 1 waiting, now with another command" in said
    assert "1 no longer asked for, taken out, 1 no longer asked for, but running (--prune ends them)." in said
    go(gated, 0, 1, 2, 3, 4)
    assert gated.run("wait").returncode == 0
    assert gated.stat("N_0") == {"a": "finished", "b": "finished"}
    assert gated.log("N_2", "b") == "other 2\n"
    assert gated.stat("N_1") == {"a": "finished"}
    assert not (gated.output / "N_3").exists()
    assert len(gated.attempts("N_0", "start")) == 2


def test_prune_ends_what_is_no_longer_asked_for(gated: Project, until: Callable[..., None]) -> None:
    gated.write(GATED.replace("[0, 1, 2, 3]", "[0]"))
    assert gated.run("--detach", "--prune").returncode == 0
    until(lambda: gated.stat("N_1") == {"a": "canceled"}, lambda: gated.stat("N_1"))
    go(gated, 0)
    assert gated.run("wait").returncode == 0


def test_a_part_of_the_file_only_adds(gated: Project) -> None:
    gated.write(GATED + "---\n_title: more\nn: 7\n")
    assert "1 new" not in gated.run("--detach", "-t", "more").stdout
    go(gated, 0, 1, 2, 3, 7)
    assert gated.run("wait").returncode == 0
    assert [gated.stat(f"N_{n}")["b"] for n in (0, 1, 2, 3, 7)] == ["finished"] * 5


def test_waiting_trials_keep_environment_and_directory_of_their_plan(project: Project) -> None:
    project.write("template: {a: 'echo $WORD $(umask); pwd'}\nresource: {cpu: 1}\n---\nn: [0, 1]\n")
    environment = {**project.environment, "WORD": "secret", "COLUMNS": "200"}
    done = subprocess.run(["bash", "-c", f"umask 027; {RUN}"], cwd=project.path, env=environment, check=True)
    assert done.returncode == 0
    assert project.log("N_1", "a") == f"secret 0027\n{project.path}\n"
    kept = list((project.output / ".runner" / "plans").glob("*.env"))
    assert [oct(path.stat().st_mode & 0o777) for path in kept] == ["0o600"]


@pytest.mark.parametrize(
    ("options", "command", "cause"),
    [
        ("timeout: 0.3s", "sleep 60", "timeout"),
        ("stall: 0.3s", "echo once; sleep 60", "stall"),
        ("grace: 1s", "no-such-program", "not-found"),
        ("grace: 1s", "exit 76", "diverged"),
        ("grace: 1s", 'python -c "raise ValueError(5)"', "traceback"),
    ],
)
def test_a_failure_has_a_cause(project: Project, options: str, command: str, cause: str) -> None:
    text = f"template:\n  a:\n    cmd: {json.dumps(command)}\n    {options}\nresource: {{cpu: 1}}\n---\nn: 0\n"
    project.write(text)
    assert project.run().returncode == 1
    assert project.attempts("N_0", "end")[0]["cause"] == cause
    failure = status(project)["trials"][0]["failures"][0]
    assert failure["cause"] == cause
    assert project.stat("N_0") == {"a": "timeout" if cause == "timeout" else "failed"}


def test_only_the_named_causes_are_tried_again(project: Project) -> None:
    project.write(
        "template:\n  a: {cmd: 'exit {code}', retry: {times: 2, on: [diverged], delay: 10ms}}\n"
        "resource: {cpu: 1}\n---\ncode: [76, 3]\n"
    )
    assert project.run().returncode == 1
    assert [len(project.attempts(f"Code_{code}", "start")) for code in (76, 3)] == [3, 1]


def test_a_sweep_whose_first_trials_fail_alike_pauses_itself_and_tells(
    project: Project, until: Callable[..., None]
) -> None:
    project.write(
        "template: {a: 'test -e mended'}\nresource: {cpu: 1}\nfail_fast: 2\n"
        "notify: {cmd: 'cat >> told; echo {event} {sweep} >> told'}\n---\n_title: bad\nn: [0, 1, 2, 3]\n"
    )
    process = project.start()
    told = project.path / "told"
    until(lambda: told.exists() and "paused bad" in told.read_text(), project.trials)
    assert status(project)["paused"] == ["bad"]
    assert "nothing waits for it that is not paused" in project.run("status").stdout
    assert project.trials() == ["N_0", "N_1"]
    (project.path / "mended").touch()
    assert project.run("resume").returncode == 0
    assert process.wait(30) == 1
    assert project.stat("N_3") == {"a": "finished"}
    until(lambda: "sweep-ended bad" in told.read_text(), told.read_text)
    assert told.read_text().count("first-failure bad") == 1


def test_priority_and_breadth_first(project: Project) -> None:
    project.write(
        "template: {a: 'echo a{n} >> order', b: 'echo b{n} >> order'}\nresource: {cpu: 1}\norder: breadth\n"
        "---\nn: [0, 1]\n---\nn: 2\n_priority: 5\n"
    )
    assert project.run().returncode == 0
    assert (project.path / "order").read_text().split() == ["a2", "b2", "a0", "a1", "b0", "b1"]


def test_finished_trials_keep_only_the_newest_files(project: Project) -> None:
    project.write(
        "template:\n  a: {cmd: 'for i in 1 2 3; do touch -d @$i {_output}/c$i.pt; done', keep: {'*.pt': 1}}\n"
        "  b: 'ls {_output} | grep -c c.[.]pt'\nresource: {cpu: 1}\n---\nn: 0\n"
    )
    assert project.run().returncode == 0
    assert project.log("N_0", "b") == "3\n"
    assert [path.name for path in (project.output / "N_0").glob("*.pt")] == ["c3.pt"]


def test_a_stage_has_its_own_environment_and_directory(project: Project, tmp_path: Path) -> None:
    (project.path / "sub").mkdir()
    project.write(
        "template:\n  a: {cmd: 'echo $A $B; pwd', env: {A: 1, B: x y}, cwd: sub}\nstage: {env: {B: all}}\n"
        "resource: {cpu: 1}\n---\nn: 0\n"
    )
    assert project.run().returncode == 0
    assert project.log("N_0", "a") == f"1 x y\n{tmp_path}/sub\n"


def test_a_stage_in_another_directory_finds_its_own(project: Project) -> None:
    (project.path / "sub").mkdir()
    project.write(
        "template:\n  a: {cmd: 'echo $RUNNER_OUTPUT; cat {_config}; touch {_output}/here', cwd: sub}\n"
        "  b: 'echo $RUNNER_OUTPUT {_output}'\n"
        "gather:\n  all: {of: g, cmd: 'cat {_trials}; touch {_output}/here', cwd: sub}\n"
        "resource: {cpu: 1}\n---\n_title: g\nn: 7\n"
    )
    done = project.run()
    assert done.returncode == 0, done.stdout
    assert project.log("N_7", "a") == f"{project.output}/N_7\nn: 7\n"
    assert project.log("N_7", "b") == "output/N_7 output/N_7\n"
    assert [(project.output / name / "here").exists() for name in ("N_7", "gather.all/all")] == [True, True]


def test_another_file_takes_no_stage_away_from_what_waits(gated: Project) -> None:
    gated.write(GATED.replace("  b:", "  c:"), "quick.yaml")
    assert gated.run("-y", "quick.yaml", "--detach").returncode == 0
    assert all({"a", "b", "c"} == found.keys() for found in states(gated).values())
    go(gated, 0, 1, 2, 3)
    assert gated.run("wait").returncode == 0
    assert {frozenset(gated.stat(name).values()) for name in gated.trials()} == {frozenset({"finished"})}


def test_a_daemon_of_another_host_is_seen_and_gets_words_by_file(gated: Project) -> None:
    lock = gated.output / ".runner" / "lock"
    holder = json.loads(lock.read_text())
    lock.write_text(json.dumps(holder | {"host": "elsewhere", "boot": "another"}))
    assert "on elsewhere" in gated.run("status").stdout
    handed = gated.run()
    assert (handed.returncode, "Handed to the daemon on elsewhere" in handed.stdout) == (0, True)
    assert "which works on another host" in gated.run("stop", "--now").stdout
    lock.write_text(json.dumps(holder))
    assert gated.run("wait").returncode in (1, 130)
    assert gated.stat("N_0") == {"a": "interrupted"}


def leave_dead(project: Project, boot: str) -> None:
    """Finishes N_0, asks for N_1 too, and says that a daemon with this boot id works there, which is dead."""
    project.write("template: {a: 'true'}\nresource: {cpu: 1}\n---\nn: 0\n")
    assert project.run().returncode == 0
    project.write("template: {a: 'true'}\nresource: {cpu: 1}\n---\nn: [0, 1]\n")
    lock = project.output / ".runner" / "lock"
    holder = {"pid": 1, "host": "gone", "boot": boot, "pid_namespace": "n", "uid": 0, "started": "", "socket": ""}
    lock.write_text(json.dumps(holder))
    just_before = time.time() - client.STALE_S + 1.0  # another host's counts as dead in a second
    os.utime(lock, (just_before, just_before))


@pytest.mark.parametrize("boot", ["another", "this one"])
def test_a_dead_daemon_of_another_host_or_container_is_replaced(project: Project, boot: str) -> None:
    leave_dead(project, process.this_host().boot if boot == "this one" else boot)
    said = project.run()
    assert (said.returncode, project.stat("N_1")) == (0, {"a": "finished"}), said
    assert list((project.output / ".runner" / "inbox").glob("*")) == []
    assert "refused" not in (project.output / ".runner" / "daemon.log").read_text()


def test_what_is_to_be_submitted_does_not_run_here_in_place_of_a_dead_daemon(project: Project) -> None:
    leave_dead(project, "another")
    said = project.run("--submit", "1h")
    assert (said.returncode, "--submit: no executor but this machine" in said.stderr) == (2, True), said
    assert not (project.output / "N_1").exists()


def test_work_of_a_submitted_daemon_that_another_one_has_finished_waits_for_no_job(gated: Project) -> None:
    asked = {"executor": "slurm", "told": {}, "time_s": 60.0, "variables": {}}
    record = {"asked": asked, "name": "run-0", "since": 0.0, "job": "12"}
    (gated.output / ".runner" / "daemon.job").write_text(json.dumps(record))
    go(gated, 0, 1, 2, 3)
    assert gated.run("wait").returncode == 0
    assert gated.run("status").stdout.startswith("No daemon works here: all is complete.")


def test_a_plan_that_follows_a_word_at_once_is_taken_by_a_daemon_of_another_host(
    gated: Project, until: Callable[..., None]
) -> None:
    lock, inbox = gated.output / ".runner" / "lock", gated.output / ".runner" / "inbox"
    holder = json.loads(lock.read_text())
    lock.write_text(json.dumps(holder | {"host": "elsewhere", "boot": "another"}))
    (daemon,) = gated.daemons()
    daemon.suspend()  # it looks every few seconds
    gated.write(GATED.replace("[0, 1, 2, 3]", "[0, 1, 2, 3, 4]"))
    assert gated.run("cancel", "N_2").returncode == 0
    run = gated.start()
    until(lambda: len(list(inbox.glob("*.json"))) == 2, gated.trials)
    daemon.resume()
    said, complaint = run.communicate(timeout=30)
    assert (run.returncode, "Handed to the daemon on elsewhere" in said) == (0, True), complaint
    lock.write_text(json.dumps(holder))
    assert {"N_2", "N_4"} <= states(gated).keys()


def test_words_without_a_daemon_say_so(project: Project) -> None:
    project.write("template: {a: 'true'}\nresource: {cpu: 1}\n---\nn: 0\n")
    assert project.run("status").returncode == 2
    assert project.run().returncode == 0
    for words in (["pause"], ["resume"], ["cancel", "N_0"], ["stop"]):
        said = project.run(*words)
        assert (said.returncode, "no daemon works here" in said.stderr) == (1, True), words
    assert project.run("retry").stdout == "Nothing has failed or was canceled or interrupted.\n"
    assert project.run("wait").returncode == 0
    assert project.run("watch").stdout == "No daemon works here: all is complete.\n"
    assert project.run("status").stdout.startswith("No daemon works here: all is complete.\n")
    assert project.run("archive", "N_0", "--yes").returncode == 0
    assert project.run("status").stdout.startswith("No daemon works here: what is not finished goes on with `run`.\n")
    waited = project.run("wait")
    assert (waited.returncode, "0 of 1 job complete" in waited.stdout) == (1, True)
    (project.path / "empty").mkdir()
    assert "nothing has been asked for; `run` begins" in project.run("status", "-o", "empty").stdout
    waited = project.run("wait", "-o", "empty")
    assert (waited.returncode, "nothing has been asked for; `run` begins" in waited.stdout) == (1, True)


def test_a_pause_of_a_grid_whose_trials_count_for_an_earlier_one_says_so(gated: Project) -> None:
    gated.write(GATED + "---\n_title: part\nn: [1, 2]\n")
    assert gated.run("--detach").returncode == 0
    said = gated.run("pause", "-t", "part")
    assert said.returncode == 2
    told = "no sweep with trials of its own. Known: main. A trial of several grids counts for the first of them."
    assert said.stderr == f"run: error: part: {told}\n"


def test_words_after_a_stop_tell_how_to_go_on(gated: Project) -> None:
    assert gated.run("stop", "--now").returncode == 0
    gated.run("wait")
    for word in ("resume", "pause"):
        said = gated.run(word)
        assert said.returncode == 1
        assert said.stderr == "run: error: output: no daemon works here; type `run`, which does what is left.\n"
    assert "0 of 8 jobs complete; `run status` tells more, `run` goes on." in gated.run("wait").stdout


def test_an_attempt_of_other_code_is_marked(project: Project) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    project.write("template: {a: 'true', b: 'true'}\nresource: {cpu: 1}\n---\nn: 0\n")
    (project.path / ".gitignore").write_text("output/\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], cwd=project.path, check=True)
    assert project.run("-c", "a").returncode == 0
    (project.path / "new.py").write_text("1\n")
    assert project.run("-c", "b").returncode == 0
    first, second = project.attempts("N_0", "start")
    assert first["code"] != second["code"]
    assert ("code_changed" in first, second.get("code_changed")) == (False, True)
