"""Ctrl-C, a closed terminal, and what attempts leave behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Project

ONE_FINISHED_TWO_CUT = """\
template:
  a: 'test {n} = 0 || test $RUNNER_ATTEMPT = 2 || { touch {_output}/started; sleep 60; }'
  b: 'true'
resource: {cpu: 2}
---
n: [0, 1, 2]
"""


def is_started(project: Project, *trials: str) -> bool:
    return all((project.output / trial / "started").exists() for trial in trials)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_exactly_there(project: Project, until: Callable[..., None], number: int) -> None:
    project.write(ONE_FINISHED_TWO_CUT)
    process = project.start()
    until(lambda: is_started(project, "N_1", "N_2"), project.trials)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Stopping: 2 running attempts were asked to end" in output
    assert project.stat("N_0") == {"a": "finished", "b": "finished"}
    assert project.stat("N_1") == {"a": "interrupted"}
    assert not project.living()

    again = project.run()
    assert again.returncode == 0
    assert sum(line.startswith("SKIP") for line in again.stdout.splitlines()) == 2
    assert [record["attempt"] for record in project.attempts("N_0", "start")] == [1, 1]
    assert [record["attempt"] for record in project.attempts("N_1", "start")] == [1, 2, 1]
    assert project.stat("N_1") == {"a": "finished", "b": "finished"}


def test_a_closed_terminal_leaves_the_work_running(project: Project, until: Callable[..., None]) -> None:
    project.write(
        "template:\n  a: 'touch {_output}/started; while ! test -e go; do sleep 0.05; done'\n"
        "resource: {cpu: 1}\n---\nn: [0, 1]\n"
    )
    process = project.start()
    until(lambda: is_started(project, "N_0"), project.trials)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 129
    assert project.living()
    (project.path / "go").touch()
    assert project.run("wait").returncode == 0
    assert [project.stat(f"N_{n}") for n in (0, 1)] == [{"a": "finished"}] * 2


HELD = """import os, time
import runner.handover

def held(_request):
    while not os.path.exists("sent"):
        time.sleep(0.01)

runner.handover.copy_file = held
"""


@pytest.mark.parametrize(("number", "code", "state"), [("INT", 130, "interrupted"), ("HUP", 129, "finished")])
def test_a_signal_may_come_before_run_has_read_the_answer_to_its_plan(
    project: Project, tmp_path: Path, number: str, code: int, state: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HELD)
    project.environment["PYTHONPATH"] = os.pathsep.join([os.fspath(tmp_path), os.environ.get("PYTHONPATH", "")])
    project.write(
        f"template:\n  a: 'until kill -{number} $(cat pid); do sleep 0.01; done; touch sent; sleep 1'\n"
        "resource: {cpu: 1}\n---\nn: 0\n"
    )
    process = project.start()
    (project.path / "pid").write_text(f"{process.pid}\n")
    assert process.wait(30) == code
    project.run("wait")
    assert project.stat("N_0") == {"a": state}


def test_ctrl_c_leaves_a_daemon_that_does_not_answer(project: Project, until: Callable[..., None]) -> None:
    project.write(
        "template:\n  a: 'touch {_output}/started; while ! test -e go; do sleep 0.05; done'\n"
        "resource: {cpu: 1}\n---\nn: 0\n"
    )
    assert project.run("--detach").returncode == 0
    until(lambda: is_started(project, "N_0"), project.trials)
    (daemon,) = project.daemons()
    daemon.suspend()
    process = project.start()
    plans = project.output / ".runner" / "plans"
    until(lambda: len(list(plans.glob("*.jsonl"))) == 2, lambda: list(plans.iterdir()))

    def has_left() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    until(has_left, project.trials)
    daemon.resume()
    assert process.wait(30) in (130, -signal.SIGINT)  # one may meet the interpreter on its way out
    (project.path / "go").touch()
    assert project.run("wait").returncode == 0


def test_a_program_may_save_before_it_leaves(project: Project, until: Callable[..., None]) -> None:
    (project.path / "program.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    time.sleep(0.5)\n    pathlib.Path(sys.argv[1], 'saved').touch()\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "pathlib.Path(sys.argv[1], 'started').touch()\ntime.sleep(60)\n"
    )
    project.write("template:\n  a: python program.py {_output}; echo not reached\nresource: {cpu: 1}\n---\nn: 0\n")
    process = project.start()
    until(lambda: is_started(project, "N_0"), project.trials)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert (project.output / "N_0" / "saved").exists()
    assert project.attempts("N_0", "end")[0]["exit_code"] == 75
    assert project.stat("N_0") == {"a": "interrupted"}
    assert "not reached" not in project.log("N_0", "a")


def test_a_program_that_leaves_with_0_when_stopped_has_not_completed_its_command(
    project: Project, until: Callable[..., None]
) -> None:
    (project.path / "program.py").write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "pathlib.Path(sys.argv[1], 'started').touch()\ntime.sleep(60)\n"
    )
    project.write("template:\n  a: python program.py {_output} && echo the rest\nresource: {cpu: 1}\n---\nn: 0\n")
    process = project.start()
    until(lambda: is_started(project, "N_0"), project.trials)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert project.stat("N_0") == {"a": "interrupted"}


def test_a_second_ctrl_c_ends_what_ignores_the_first(project: Project, until: Callable[..., None]) -> None:
    project.write(
        "template:\n  a: \"trap '' TERM; touch {_output}/started; while :; do sleep 0.1; done\"\n"
        "resource: {cpu: 1}\n---\nn: 0\n"
    )
    process = project.start()
    until(lambda: is_started(project, "N_0"), project.trials)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    until(lambda: "Stopping" in process.stdout.readline(), project.trials)
    assert project.living()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    until(lambda: not project.living(), project.living)
    assert project.stat("N_0") == {"a": "interrupted"}
    assert project.attempts("N_0", "end")[0]["exit_code"] is None


def test_ctrl_c_belongs_to_the_program_that_is_debugged(project: Project, until: Callable[..., None]) -> None:
    (project.path / "program.py").write_text(
        "import pathlib, sys, time\n"
        "try:\n    pathlib.Path(sys.argv[1], 'started').touch(); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('caught', flush=True)\n"
    )
    project.write("template:\n  a: python program.py {_output} && echo the rest\nresource: {cpu: 1}\n---\nn: 0\n")
    process = project.start("-d")
    until(lambda: is_started(project, "N_0"), project.trials)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "caught\nthe rest\n" in output
    assert project.stat("N_0") == {"a": "finished"}


def test_exit_code_75_means_run_me_again(project: Project) -> None:
    project.write("template:\n  a: 'test $RUNNER_ATTEMPT = 2 || exit 75'\n  b: 'true'\nresource: {cpu: 1}\n---\nn: 0\n")
    result = project.run()
    assert result.returncode == 0
    assert "exit code 75, due again" in result.stdout
    assert project.stat("N_0") == {"a": "finished", "b": "finished"}


def test_a_program_that_only_ever_saves_is_not_run_for_ever(project: Project) -> None:
    project.write("template:\n  a: exit 75\nresource: {cpu: 1}\n---\nn: 0\n")
    result = project.run()
    assert result.returncode == 1
    assert "What was interrupted is due again" in result.stdout
    assert [record["attempt"] for record in project.attempts("N_0", "start")] == [1, 2, 3]
    assert project.stat("N_0") == {"a": "interrupted"}


def test_what_a_command_leaves_behind_ends_with_it(project: Project, until: Callable[..., None]) -> None:
    project.write("template:\n  a: 'sleep 1000 & echo $!'\nresource: {cpu: 1}\n---\nn: 0\n")
    assert project.run().returncode == 0
    left = int(project.log("N_0", "a"))
    until(lambda: not any(process.pid == left for process in project.living()), project.living)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 7", 7),
        ("exec python -c 'raise SystemExit(8)'", 8),
        ("set -e; false; echo no", 1),
        ("cd /; exit 9", 9),
        ("trap 'echo mine' EXIT; exit 4", 4),
        ("no-such-program", 127),
        ("kill -9 $BASHPID", 137),
    ],
)
def test_the_exit_code_is_recorded_whatever_the_command_does(project: Project, command: str, code: int) -> None:
    (project.path / "command.sh").write_text(command)
    project.write(
        f"template:\n  a: |-\n    {command}\n  b: |-\n    exec bash command.sh\nresource: {{cpu: 2}}\n---\n"
        "n: 0\n_cmd: a\n---\nn: 1\n_cmd: b\n"
    )
    assert project.run().returncode == 1
    in_shell = code if "BASHPID" not in command else None  # it killed the shell that records
    assert project.attempts("N_0", "end")[0]["exit_code"] == in_shell
    assert project.attempts("N_1", "end")[0]["exit_code"] == code
    recorded = [record["exit_code"] for record in project.attempts("N_1", "exit")]
    assert recorded == [code]


def test_the_work_goes_on_when_the_reader_of_its_output_is_gone(project: Project) -> None:
    project.write("template:\n  a: sleep 0.1\nresource: {cpu: 1}\n---\nn: [0, 1, 2, 3, 4, 5]\n")
    process = project.start()
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 0
    assert [project.stat(f"N_{n}") for n in range(6)] == [{"a": "finished"}] * 6


def test_a_terminal_shows_the_live_view_and_gets_its_cursor_back(project: Project) -> None:
    import pty

    project.write("template:\n  a: echo working on {n}; sleep 0.5\nresource: {cpu: 2}\n---\nn: [0, 1, 2]\n")
    shown = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        shown.extend(data)
        return data

    old = Path.cwd()
    environment = dict(os.environ)
    try:
        os.chdir(project.path)
        os.environ.update({"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"})
        status = pty.spawn([str(project.environment["PATH"].split(":")[0]) + "/run"], read)
    finally:
        os.chdir(old)
        os.environ.clear()
        os.environ.update(environment)
    text = shown.decode()
    assert os.waitstatus_to_exitcode(status) == 0
    assert "working on 0" in text  # the last line of a running attempt's log
    assert "/3 jobs" in text
    assert "left" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
