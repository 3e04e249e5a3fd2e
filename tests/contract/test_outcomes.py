"""What comes of trials, and what they find around them, is the same wherever they run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.contract.conftest import Site

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.contract.conftest import Place

PARAMS = """\
resource: {cpu: 4}
template:
  a:
    cmd: bash job.sh {what}
    timeout: 3s
    cpus: 2
    env: {OF_STAGE: "1 2"}
  b: echo second {what}
---
what: [fine, fails, killed, slow]
"""
JOB = """\
echo "job $1"
case $1 in
  fine) env -0 > "$RUNNER_OUTPUT/environment" ;;
  fails) echo cannot open it; exit 3 ;;
  killed) kill -SEGV $$ ;;
  slow) sleep 60 ;;
esac
"""
VOLATILE = {"PWD", "OLDPWD", "SHLVL", "_"}


Ran = tuple[Site, "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def ran(lasting_site: Site) -> Ran:
    """One trial that succeeds, and three that do not."""
    lasting_site.environment |= {"OF_USER": "ü and 'quotes'", "OF_LINES": "two\nlines"}
    lasting_site.environment.pop("OMP_NUM_THREADS", None)
    lasting_site.write_params(PARAMS)
    lasting_site.write(JOB, "job.sh")
    return lasting_site, lasting_site.run()


def end(site: Site, trial: str) -> dict[str, Any]:
    (record,) = site.attempts(trial, "end")
    return record


def test_the_stages_of_a_trial_run_one_after_the_other(ran: Ran, place: Place) -> None:
    site, said = ran
    assert site.stat("What_fine") == {"a": "finished", "b": "finished"}
    assert site.log("What_fine", "b") == "second fine\n"
    starts = site.attempts("What_fine", "start")
    assert [(record["stage"], record["attempt"]) for record in starts] == [("a", 1), ("b", 1)]
    assert len({(record["host"], record["slot"]) for record in starts}) == 1
    words = [line.split() for line in said.stdout.splitlines() if line.endswith("What_fine")]
    assert [line[0] for line in words] == ["START", "DONE", "START", "DONE"]
    if place.is_batch:
        assert said.stdout.count("Submitted to") == 1
        assert starts[0]["host"].startswith("node")


def test_a_failure_has_its_exit_code_its_cause_and_its_last_line(ran: Ran) -> None:
    site, said = ran
    assert said.returncode == 1
    assert site.stat("What_fails") == {"a": "failed", "b": "blocked"}
    found = end(site, "What_fails")
    assert (found["exit_code"], found["cause"], found["line"]) == (3, "exit", "cannot open it")
    (line,) = (line for line in said.stdout.splitlines() if line.startswith("FAIL") and line.endswith("What_fails"))
    assert "exit code 3" in line
    assert "  cannot open it\n" in said.stdout


def test_a_program_killed_by_a_signal_failed(ran: Ran) -> None:
    site, _ = ran
    found = end(site, "What_killed")
    assert (found["state"], found["exit_code"], found["cause"]) == ("failed", 139, "signal")


def test_a_stage_ends_at_its_time_limit(ran: Ran) -> None:
    site, _ = ran
    assert site.stat("What_slow") == {"a": "timeout", "b": "blocked"}
    found = end(site, "What_slow")
    assert (found["cause"], found["exit_code"]) == ("timeout", 143)
    assert found["seconds"] >= 3
    assert not site.living()


def test_the_environment_of_whoever_typed_run_reaches_the_trial(ran: Ran, place: Place) -> None:
    site, _ = ran
    text = (site.output / "What_fine" / "environment").read_text()
    found = dict(item.split("=", 1) for item in text.split("\0") if item)
    assert found["OF_USER"] == "ü and 'quotes'"
    assert found["OF_LINES"] == "two\nlines"
    assert (found["OF_STAGE"], found["OMP_NUM_THREADS"]) == ("1 2", "2")
    assert {name for name, value in site.environment.items() if found.get(name) != value} <= VOLATILE
    own = {"SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"} if place.name == "slurm" else {"SGE_TASK_ID", "JOB_ID"}
    assert not place.is_batch or own <= found.keys()
    assert "RUNNER_TASK" not in found


def test_the_table_and_the_status_tell_of_all(ran: Ran) -> None:
    site, said = ran
    rows = [line.split() for line in said.stdout.splitlines()]
    assert ["stage", "completed", "failed", "blocked"] in rows
    assert ["a", "1", "3", "·"] in rows
    assert ["b", "1", "·", "3"] in rows
    assert site.states() == {
        "What_fine": {"a": "finished", "b": "finished"},
        "What_fails": {"a": "failed", "b": "blocked"},
        "What_killed": {"a": "failed", "b": "blocked"},
        "What_slow": {"a": "timeout", "b": "blocked"},
    }


WORDS = ["ü € 日本", "two\nlines\n", "50% $HOME `id` \"q\" 'p' \\ %j %%", "", " lead", "-n"]
AWKWARD = "a b'c\"d\\e ü % %j $HOME `x` #"


def test_values_and_paths_of_any_kind_arrive_as_they_are(tmp_path: Path, place: Place) -> None:
    path = tmp_path / AWKWARD
    (path / AWKWARD).mkdir(parents=True)
    site = Site(path, place)
    output = f"out {AWKWARD}"
    site.write_params(
        "resource: {cpu: 4}\n"
        "template:\n"
        "  a: pwd > {_output}/pwd; printf %s {word} > {_output}/said; echo done {word}\n"
        f"  b: {{cmd: 'pwd', cwd: {json.dumps(AWKWARD)}}}\n"
        f"---\nword: {json.dumps(WORDS)}\n"
    )
    try:
        said = site.run("-o", output)
    finally:
        site.clean_up()
    assert said.returncode == 0, said.stdout + said.stderr
    directories = [item.parent for item in (path / output).glob("*/param")]
    found = {yaml.safe_load((item / "param").read_text())["word"]: item for item in directories}
    assert found.keys() == set(WORDS)
    for word, directory in found.items():
        assert (directory / "said").read_text() == word
        assert (directory / "pwd").read_text() == f"{path}\n"
        (log,) = directory.glob("log.b.*")
        assert log.read_text() == f"{path / AWKWARD}\n"
