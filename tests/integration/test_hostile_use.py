"""What careless or unlucky use must not break."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
import yaml

from runner import client
from runner.cli import main
from tests.conftest import RUN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.protocol import Channel
    from tests.conftest import Project, Said

    Typed = Callable[..., Said]

SIMPLE = "template:\n  a: echo {x} > {_output}/result\nresource: {cpu: 2}\n---\nx: [1, 2, 3]\n"


def test_a_command_that_deletes_its_directory_fails_alone(project: Project) -> None:
    project.write(
        "template:\n  a: 'test {x} != 1 || rm -rf {_output}'\n  b: 'true'\nresource: {cpu: 1}\n---\nx: [1, 2, 3]\n"
    )
    result = project.run()
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert [project.stat(f"X_{x}") for x in (2, 3)] == [{"a": "finished", "b": "finished"}] * 2
    assert not (project.output / "X_1").exists()


def test_a_command_that_empties_its_directory_keeps_its_records(project: Project) -> None:
    project.write(
        "template:\n  a: rm -rf {_output} && mkdir {_output} && echo {x} > {_output}/said\n  b: cat {_config}\n"
        "  c: rm -rf {_output}/*\nresource: {cpu: 2}\n---\nx: [1, 2]\n"
    )
    for number in (1, 2):
        result = project.run("-f")
        assert result.returncode == 0, result.stdout + result.stderr
        assert project.stat("X_1") == {"a": "finished", "b": "finished", "c": "finished"}
        assert yaml.safe_load((project.output / "X_1" / "param").read_text())["x"] == 1
        assert [record["stage"] for record in project.attempts("X_1", "start")] == ["a", "b", "c"] * number
        assert [record["attempt"] for record in project.attempts("X_1", "end")] == [1, 1, 1, 2, 2, 2][: 3 * number]


EMPTIES = """\
template:
  a: 'test -e again || {before}; rm -rf {_output}/*; touch emptied; test -e again || {after}; echo {x} >> ends'
resource: {cpu: 1}
---
x: [1, 2]
"""
WAIT = "while ! test -e go; do sleep 0.02; done"


def empty_and_kill(project: Project, until: Callable[..., None]) -> None:
    """Kills the daemon when a command has emptied its trial's directory and goes on."""
    project.write(EMPTIES.replace("{before}", "true").replace("{after}", WAIT))
    assert project.run("--detach").returncode == 0
    until((project.path / "emptied").exists, project.trials)
    project.daemons()[0].kill()


def test_a_directory_that_was_emptied_while_no_daemon_lived_refuses_nothing(
    project: Project, until: Callable[..., None]
) -> None:
    empty_and_kill(project, until)
    (project.path / "go").touch()
    until(lambda: not project.living(), project.living)
    (project.path / "again").touch()
    assert [path.name for path in (project.output / "X_1").iterdir()] == ["attempts"]  # an exit code alone
    result = project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert (project.path / "ends").read_text() == "1\n1\n2\n"
    assert project.stat("X_1") == {"a": "finished"}
    assert [project.attempts("X_1", event)[0]["attempt"] for event in ("start", "exit", "end")] == [1, 1, 1]


def test_an_attempt_that_deleted_its_records_does_not_run_beside_the_next_one(
    project: Project, until: Callable[..., None]
) -> None:
    empty_and_kill(project, until)
    (project.path / "again").touch()
    result = project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert project.living() == []
    (project.path / "go").touch()
    assert (project.path / "ends").read_text() == "1\n2\n"
    assert [record["attempt"] for record in project.attempts("X_1", "exit")] == [1]


def test_an_adopted_command_that_empties_its_directory_keeps_its_records(
    project: Project, until: Callable[..., None]
) -> None:
    project.write(EMPTIES.replace("{before}", f"touch begun; {WAIT}").replace("{after}", "true"))
    assert project.run("--detach").returncode == 0
    until((project.path / "begun").exists, project.trials)
    project.daemons()[0].kill()
    assert project.run("--detach").returncode == 0
    (project.path / "go").touch()
    assert project.run("wait").returncode == 0
    assert (project.path / "ends").read_text() == "1\n2\n"
    assert yaml.safe_load((project.output / "X_1" / "param").read_text())["x"] == 1
    (started,) = project.attempts("X_1", "start")
    assert started["attempt"] == 1


def test_a_command_too_long_for_linux_is_bad_input(project: Project) -> None:
    project.write(f"template:\n  a: 'echo {{x}}'\nresource: {{cpu: 1}}\n---\nx: [1, {'y' * 140_000}]\n")
    result = project.run()
    assert result.returncode == 2
    assert "the command of `a` is longer than Linux lets an argument be" in result.stderr
    assert not project.output.exists()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("echo training  # the first step\n    echo {x} > {_output}/result", "a comment (#)"),
        ("cat <<EOF\n    {x}\n    EOF", "a here-document (<<)"),
        ('echo "$(case 1 in 1) echo "{x}";; esac)"', "`case` inside $(…)"),
        ("echo ${HOME:+{x}}", "a placeholder inside ${HOME:+{x}…"),
    ],
)
def test_a_command_that_cannot_mean_what_it_says_is_refused(project: Project, template: str, said: str) -> None:
    project.write(f"template:\n  a: |\n    {template}\nresource: {{cpu: 1}}\n---\nx: 1\n")
    result = project.run()
    assert result.returncode == 2
    assert "params.yaml, line 2, template.a: the command holds " in result.stderr
    assert said in result.stderr
    assert not project.output.exists()


def test_harmless_hashes_and_continued_lines_are_left_alone(project: Project) -> None:
    project.write(
        "template:\n  a: |\n    echo a#b '# c' \\\n      \"# {x}\" $#\n    echo $((1<<2)) <<< here  # the end\n"
        "resource: {cpu: 1}\n---\nx: 1\n"
    )
    assert project.run().returncode == 0
    assert project.log("X_1", "a") == "a#b # c # 1 0 echo 4\n"


def test_a_copy_never_overwrites_the_users_file(project: Project) -> None:
    (project.path / "work").mkdir()
    own = project.path / "work" / "params.yaml"
    own.write_text("# precious\n")
    project.write(SIMPLE)
    result = subprocess.run(
        [str(RUN), "-y", "../params.yaml", "-o", "."], cwd=own.parent, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "a file of yours stands where the copy" in result.stderr
    assert own.read_text() == "# precious\n"


def test_a_file_from_a_pipe_is_read_once_and_copied_whole(project: Project) -> None:
    project.write(SIMPLE)
    command = f"{RUN} -y <(cat params.yaml)"
    result = subprocess.run(["bash", "-c", command], cwd=project.path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert SIMPLE in [path.read_text() for path in project.output.iterdir() if path.is_file()]


def test_what_ignored_the_hang_up_still_does(project: Project, until: Callable[..., None]) -> None:
    project.write("template:\n  a: 'while ! test -e go; do sleep 0.05; done'\nresource: {cpu: 1}\n---\nx: 1\n")
    process = subprocess.Popen(
        ["nohup", str(RUN)], cwd=project.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: bool(project.living()), lambda: process.poll())
    process.send_signal(signal.SIGHUP)
    (project.path / "go").touch()
    assert process.wait(30) == 0


def test_another_run_between_planning_and_starting_is_noticed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = "template: {a: 'echo {d} > {_output}/result'}\ndefault: {d: A}\nresource: {cpu: 2}\n---\nx: [0, 1]\n"
    project.write(params)
    project.write(params.replace("d: A", "d: B"), "slow.yaml")
    connect = client.connect_or_start

    def connect_too_late(output: Path) -> Channel:
        assert project.run().returncode == 0
        return connect(output)

    monkeypatch.chdir(project.path)
    monkeypatch.setattr(client, "connect_or_start", connect_too_late)
    assert main(["-y", "slow.yaml"]) == 0
    results = {path.parent.name: path.read_text() for path in project.output.glob("*/result")}
    assert results["X_0"] == results["X_1"] == "A\n"
    assert sorted(results.values()) == ["A\n", "A\n", "B\n", "B\n"]


@pytest.mark.parametrize("standard", ["<&-", ">&-", "2>&-", ">&- 2>&-"])
def test_closed_standard_streams_do_no_harm(project: Project, standard: str) -> None:
    project.write(SIMPLE)
    result = subprocess.run(["bash", "-c", f"{RUN} {standard}"], cwd=project.path, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [(project.output / f"X_{x}" / "result").read_text() for x in (1, 2, 3)] == ["1\n", "2\n", "3\n"]


# --- damage ---


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", b"output/.runner/trials"), "output/.runner/trials: Perm"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space"),  # standard output is on a full disk
    ],
)
def test_what_the_machine_refuses_is_one_line(
    project: Project, typed: Typed, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    project.output.mkdir()
    monkeypatch.setattr("runner.subcommands.status.overview.look", Mock(side_effect=error))
    told = typed("status")
    assert (told.code, told.err.count("\n")) == (1, 1)
    assert told.err.startswith(f"run: error: {said}")


def test_a_journal_that_may_not_be_read_is_not_called_damaged(
    project: Project, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.output.mkdir()
    monkeypatch.setattr("runner.plan.whole_lines", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    told = typed("status")
    assert (told.code, told.err) == (1, "run: error: output/.runner/plan.jsonl: Permission denied.\n")


def test_a_lost_journal_is_not_taken_for_an_empty_one(project: Project) -> None:
    project.write(SIMPLE)
    project.run()
    (project.output / ".runner" / "plan.jsonl").write_text("")
    result = project.run()
    assert result.returncode == 1
    assert "plan.jsonl: holds no whole line" in result.stderr


@pytest.mark.parametrize("name", ["param", "stat", "attempts", ".runner/plan.jsonl"])
def test_a_directory_in_place_of_a_record_is_one_message(project: Project, name: str) -> None:
    project.write(SIMPLE.replace("[1, 2, 3]", "1") + "---\nx: 1\n")
    project.run()
    path = project.output / name if "/" in name else project.output / "X_1" / name
    path.unlink()
    path.mkdir()
    (project.output / "X_1" / "stat").unlink(missing_ok=True) if name == "attempts" else None
    result = project.run()
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert name in result.stderr
    assert "directory" in result.stderr.lower()


def test_a_cut_param_is_one_message_and_nothing_runs(project: Project) -> None:
    project.write(SIMPLE)
    project.run()
    (project.output / "X_1" / "param").write_text("")
    result = project.run()
    assert result.returncode == 1
    assert "X_1/param: not whole" in result.stderr
    assert project.trials() == ["X_1", "X_2", "X_3"]


def test_attempts_that_lost_their_end_do_not_overrule_a_finished_stage(project: Project) -> None:
    project.write("template:\n  a: 'true'\n  b: 'test -e go'\nresource: {cpu: 1}\n---\nx: 1\n")
    project.run()
    path = project.output / "X_1" / "attempts"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    (project.path / "go").touch()
    assert project.run().returncode == 0
    assert [record["stage"] for record in project.attempts("X_1", "start")] == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        "step,lr,loss\n1,-1,2\n2,-1,1\n",
        "step,lr,loss\nx,1,2\ny,1,1\n",
        "step,lr,loss\n1,1," + "9" * 200_000 + "\n",
        "step,lr,loss,[/red]\n1,1,1,[/red]\n",
        "\0\1\2",
        "",
    ],
    ids=["negative", "text steps", "a long cell", "markup", "binary", "empty"],
)
def test_results_never_decide_the_exit_code(project: Project, content: str) -> None:
    (project.path / "body").write_text(content)
    project.write("template:\n  a: cp body {_output}/metrics.csv\nresource: {cpu: 1}\n---\nx: ['[/red]', 2]\n")
    result = project.run()
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def test_a_directory_named_as_the_picture_does_no_harm(project: Project) -> None:
    (project.output / "curves.png").mkdir(parents=True)
    write = json.dumps("printf 'step,lr,loss\\n1,1,1\\n2,1,1\\n' > {_output}/metrics.csv")
    project.write(f"template:\n  a: {write}\nresource: {{cpu: 1}}\n---\nx: 1\n")
    result = project.run()
    assert result.returncode == 0, result.stderr
    assert "The results cannot be shown: IsADirectoryError" in result.stdout
