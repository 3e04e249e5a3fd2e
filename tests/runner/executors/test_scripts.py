"""The scripts of arrays, run by a real shell."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.errors import InputError
from runner.executors.batch import Batch, BatchKeys
from runner.executors.scripts import ahead_s, compose, quoted
from runner.executors.sge import SgeExecutor, SgeKeys
from runner.executors.slurm import SlurmExecutor, SlurmKeys

if TYPE_CHECKING:
    from collections.abc import Iterator

AWKWARD = ["plain", "a b", "per%cent %a", "quo'te", 'double"', "ha#sh", "ünï", "$HOME", "back\\slash", "a:b,c;d", "`x`"]


def batch(directory: Path, keys: BatchKeys, **changes: Any) -> Batch:
    (directory / "log").mkdir(parents=True, exist_ok=True)
    whole = Batch(
        name="run-0123456789ab",
        count=3,
        gpus=0,
        cpus=1,
        cwd=str(directory),
        log_directory=str(directory / "log"),
        enter="export ENTERED=yes",
        task="bash -c 'echo \"$ENTERED $PWD\"'",
        keys=keys,
    )
    return replace(whole, **changes)


def ran(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    whole = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(["bash", "-s"], input=script, capture_output=True, text=True, env=whole, cwd="/", check=False)


@pytest.mark.parametrize("name", AWKWARD)
def test_slurm_script_is_a_bash_script_in_any_directory(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    script = SlurmExecutor().script(batch(directory, SlurmKeys()))
    result = ran(script, SLURM_ARRAY_TASK_ID="2")
    assert result.returncode == 0, result.stderr
    log = directory / "log" / "2.log"
    assert (log.read_text() if log.exists() else result.stdout) == f"yes {directory}\n"


@pytest.mark.parametrize("name", AWKWARD)
def test_sge_script_writes_into_any_directory(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    script = SgeExecutor().script(batch(directory, SgeKeys()))
    assert ran(script, SGE_TASK_ID="3").returncode == 0
    assert (directory / "log" / "2.log").read_text() == f"yes {directory}\n"


def test_slurm_directives(tmp_path: Path) -> None:
    keys = SlurmKeys(
        time="90s",  # type: ignore[arg-type]
        memory="2GiB",  # type: ignore[arg-type]
        account="physics",
        partition="gpu",
        qos="long",
        constraint="[a|b]&c",
        gpu_type="h100",
        limit=7,
        lines=["--mail-type=FAIL"],
    )
    directives = SlurmExecutor().script(batch(tmp_path, keys, gpus=2, cpus=8)).split("\ncd ")[0].split("\n")
    log = f"{tmp_path}/log/%a.log"
    assert directives == [
        "#!/bin/bash",
        "#SBATCH --job-name=run-0123456789ab",
        "#SBATCH --array=0-2%7",
        f"#SBATCH --output={log}",
        f"#SBATCH --error={log}",
        "#SBATCH --open-mode=append",
        "#SBATCH --export=ALL",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=physics",
        "#SBATCH --qos=long",
        '#SBATCH --constraint="[a|b]&c"',
        "#SBATCH --time=2",
        "#SBATCH --mem=2048M",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --gres=gpu:h100:2",
        "#SBATCH --signal=B:TERM@45",
        "#SBATCH --requeue",
        "#SBATCH --mail-type=FAIL",
    ]


def test_sge_directives(tmp_path: Path) -> None:
    keys = SgeKeys(
        time="1h",  # type: ignore[arg-type]
        memory="2GiB",  # type: ignore[arg-type]
        account="physics",
        queue="gpu.q@@fast",
        project="p1",
        pe="threads",
        gpu_resource="gpus",
        gpu_type="v100",
        limit=7,
        lines=["-M me@example.org"],
    )
    directives = SgeExecutor().script(batch(tmp_path, keys, gpus=2, cpus=3)).split("\nexec >>")[0].split("\n")
    assert directives == [
        "#!/bin/bash",
        "#$ -N run-0123456789ab",
        "#$ -t 1-3",
        "#$ -S /bin/bash",
        "#$ -o /dev/null",
        "#$ -j y",
        "#$ -wd /",
        "#$ -r y",
        "#$ -notify",
        "#$ -tc 7",
        "#$ -q gpu.q@@fast",
        "#$ -P p1",
        "#$ -A physics",
        "#$ -pe threads 3",
        "#$ -l h_rt=3600",
        "#$ -l s_rt=3540",
        "#$ -l h_vmem=683M",
        "#$ -l gpus=2",
        "#$ -l gpu_type=v100",
        "#$ -M me@example.org",
    ]


def test_a_small_task_asks_for_nothing_special(tmp_path: Path) -> None:
    assert not {"--gres", "--time", "--mem", "--partition"} & set(
        SlurmExecutor().script(batch(tmp_path, SlurmKeys())).replace("=", " ").split()
    )
    assert not {"-l", "-pe", "-q", "-tc"} & set(SgeExecutor().script(batch(tmp_path, SgeKeys())).split())


def test_of_a_short_limit_one_half_is_left_to_work_in() -> None:
    assert ahead_s(BatchKeys()) == 60
    assert ahead_s(BatchKeys(time=3600.0)) == 60
    assert ahead_s(BatchKeys(time=60.0)) == 30
    assert ahead_s(BatchKeys(time=1.0, ahead=0.0)) == 1


@pytest.mark.parametrize(
    "command",
    [
        "false",
        "true && false",
        "cd /no/where; false",
        "no-such-command",
        "for x in 1 2; do\n  test $x = 1\ndone",
        "it's () {",
    ],
)
def test_a_setup_command_that_fails_ends_the_task_and_is_named(tmp_path: Path, command: str) -> None:
    script = SlurmExecutor().script(batch(tmp_path, SlurmKeys(setup=["true", command])))
    result = ran(script)
    assert result.returncode != 0
    assert "yes" not in result.stdout
    if command != "it's () {":  # the shell itself complains of what it cannot read
        assert f"setup: {command} failed with exit code " in result.stderr


def test_setup_commands_are_one_shell_and_come_after_the_environment(tmp_path: Path) -> None:
    setup = ["module() { export LOADED=$1; }", "module x/1.0", "# a remark", "if true; then cd /; fi", "", "A='b  c'"]
    made = batch(tmp_path, SlurmKeys(setup=["test $ENTERED = yes", *setup]), task="bash -c 'echo $LOADED $PWD'")
    result = ran(SlurmExecutor().script(made))
    assert (result.stdout, result.stderr, result.returncode) == ("x/1.0 /\n", "", 0)


def test_the_users_own_script_stays_as_it_is_around_the_task(tmp_path: Path) -> None:
    head = "#!/bin/bash -u\n# mine\n#SBATCH --time=99\n\n#SBATCH --nodes=1\n"
    template = head + "set -e\n#SBATCH --late\necho before; {_task}; echo after\n"
    made = batch(tmp_path, SlurmKeys(time=60.0), template=template)
    script = SlurmExecutor().script(made)
    lines = script.split("\n")
    assert script.startswith(head)
    assert lines.index("#SBATCH --time=99") < lines.index("#SBATCH --time=1") < lines.index("set -e")
    assert lines.index("export ENTERED=yes") < lines.index("set -e")
    assert ran(script).stdout == f"before\nyes {tmp_path}\nafter\n"


def test_a_template_without_a_first_line_gets_one_and_carriage_returns_go(tmp_path: Path) -> None:
    script = SlurmExecutor().script(batch(tmp_path, SlurmKeys(), template="#SBATCH --nodes=1\r\n{_task}\r\n"))
    assert script.startswith("#!/bin/bash\n#SBATCH --nodes=1\n#SBATCH --job-name=")
    assert "\r" not in script
    assert ran(script).stdout == f"yes {tmp_path}\n"


def test_a_template_that_does_not_say_where_the_trial_goes_is_refused(tmp_path: Path) -> None:
    keys = SlurmKeys(script="submit.sh")
    with pytest.raises(InputError, match=r"^submit.sh: nothing says where the trial goes; write \{_task\}"):
        compose(batch(tmp_path, keys, template="#!/bin/bash\nsrun x\n"), "#SBATCH", [])


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A user's own script, whose task says that it is ready, and what signal it gets."""
    task = "bash -c 'trap \"echo saved; exit 5\" TERM; echo ready; while :; do sleep 0.05; done'"
    template = "set -eu\ntrap 'echo code $?' EXIT\n  {_task}\necho not here\n"
    made = batch(tmp_path, SlurmKeys(), template=template, task=task)
    arguments = ["bash", "-c", SlurmExecutor().script(made)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        yield child
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_the_users_own_script_hands_a_signal_on_and_waits(started: subprocess.Popen[str], number: int) -> None:
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    os.kill(started.pid, number)  # the batch system signals the shell alone
    assert started.stdout.read() == "saved\ncode 5\n"
    assert started.wait() == 5


def test_words_of_directives_are_quoted_only_where_they_must_be() -> None:
    assert quoted("/data/a-b_c.d/%a") == "/data/a-b_c.d/%a"
    assert quoted("a b") == '"a b"'
    assert quoted('a"b\\c') == '"a\\"b\\\\c"'
    assert quoted("ü") == '"ü"'
    assert shlex.split(quoted("a#b'c")) == ["a#b'c"]
