"""Commands of a batch system: what they are given, and that none of them holds the runner up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner import children
from runner.executors import batch
from runner.executors.batch import UnreachableError
from runner.executors.commandline import Answer, ask, expanded, ranges

if TYPE_CHECKING:
    from tests.runner.executors.conftest import Fakes


def test_a_surrounding_job_does_not_leak_into_a_command(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SQUEUE_FORMAT", "SGE_TASK_ID", "JOB_ID", "API_TOKEN"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("SLURM_CONF", "/etc/of/the/site")
    monkeypatch.setenv("HOME", "/home/me")
    fakes.script("squeue", 'declare -px; echo "here $PWD"')
    answer = ask(["squeue"], variables={"TZ": "UTC"})
    assert "leaked" not in answer.output
    assert 'SLURM_CONF="/etc/of/the/site"' in answer.output
    assert 'HOME="/home/me"' in answer.output
    assert 'TZ="UTC"' in answer.output
    assert "here /\n" in answer.output


def test_the_input_and_the_answer_are_whole(fakes: Fakes, tmp_path: Path) -> None:
    fakes.script("sbatch", 'while read -r line; do echo "<$line>"; done; echo "no" >&2; pwd; exit 3')
    answer = ask(["sbatch", "--parsable"], "echo 'ü $x'\ntrue\n", cwd=str(tmp_path))
    assert answer == Answer("sbatch", 3, f"<echo 'ü $x'>\n<true>\n{tmp_path}\n", "no\n")


def test_a_command_that_does_not_read_its_input_is_no_fault(fakes: Fakes) -> None:
    fakes.script("sbatch", "exec 0<&-; echo 7")
    assert ask(["sbatch"], "x" * 200_000).output == "7\n"


@pytest.mark.parametrize("end", ["wait", "exit 0"])
def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    monkeypatch.setattr(batch, "COMMAND_S", 0.5)
    os.mkfifo(tmp_path / "alive")
    fakes.script("qstat", f"/bin/sleep 600 3>{tmp_path}/alive & {end}")
    with open(os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)) as alive:  # noqa: PTH123
        with pytest.raises(UnreachableError, match=r"^qstat gave no answer within 0.5 s\.$"):
            ask(["qstat"])
        os.set_blocking(alive.fileno(), True)
        assert alive.read() == ""  # its only writer is gone


def test_a_command_that_was_reaped_leaves_its_number_to_others(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.script("squeue", "echo $$")
    assert not children.is_ours(int(ask(["squeue"]).output))
    monkeypatch.setattr(batch, "COMMAND_S", 0.5)
    fakes.script("squeue", f"echo $$ >{fakes.directory}/pid; exec /bin/sleep 600")
    with pytest.raises(UnreachableError):
        ask(["squeue"])
    assert not children.is_ours(int((fakes.directory / "pid").read_text()))


def test_a_command_that_is_missing_or_killed_may_work_later(fakes: Fakes) -> None:
    with pytest.raises(UnreachableError, match=r"squeue is not on the PATH: is this a login node\? A daemon keeps its"):
        ask(["squeue"])
    fakes.script("squeue", "kill -9 $$")
    with pytest.raises(UnreachableError, match="squeue was ended by SIGKILL"):
        ask(["squeue"])
    with pytest.raises(UnreachableError, match="could not be started: No such file or directory: /no/directory"):
        ask(["squeue"], cwd="/no/directory")
    (fakes.directory / "squeue").chmod(0o644)
    with pytest.raises(UnreachableError, match="could not be started: Permission denied"):
        ask(["squeue"])


def test_only_a_descriptor_that_is_named_is_inherited(fakes: Fakes) -> None:
    fakes.script("sbatch", "for fd in /proc/self/fd/*; do echo ${fd##*/}; done")
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        assert str(write) not in ask(["sbatch"]).output.split()
        given = ask(["sbatch"], inherited=write).output.split()
        assert str(write) in given
        assert str(read) not in given
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize(
    ("complaint", "message"),
    [
        (
            "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid name\n",
            "sbatch: invalid partition specified: x; Batch job submission failed: Invalid name",
        ),
        ('Unable to run job: unknown resource "foo"\nExiting.\n', 'sbatch: Unable to run job: unknown resource "foo"'),
        ("\x1b[31merror: no\x1b[0m", "sbatch: error: no"),
        ("", "sbatch: exit code 1"),
    ],
)
def test_a_complaint_becomes_one_line(complaint: str, message: str) -> None:
    assert Answer("sbatch", 1, "", complaint).message == message


def test_numbers_of_tasks_are_written_and_read_as_ranges() -> None:
    assert ranges([]) == []
    assert ranges([0, 1, 2, 5, 7, 8]) == ["0-2", "5", "7-8"]
    assert expanded("0-2,5,7-8") == [0, 1, 2, 5, 7, 8]
    assert expanded("1-9:4") == [1, 5, 9]
    for text in ("", "1-", "a", "1,,2"):
        with pytest.raises(ValueError, match="is no list of tasks"):
            expanded(text)
    assert len(expanded(",".join(ranges(range(0, 20_000, 2))))) == 10_000
